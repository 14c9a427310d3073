//! Links in the workspace that lead out, as a repository can bring them along.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use plue_sandbox::mutation::Protection;

use super::canary;
use crate::attack::{Action, Attack, Baseline, Expect, Kind, Surface};
use crate::scene::Scene;
use crate::secrets;

const MOUNT: &[Protection] = &[Protection::Mount];
/// Whatever takes a folder.
const FOLDERS: &[Surface] = &[Surface::ListFiles, Surface::Grep, Surface::Shell, Surface::Step];

/// `file` or `folder`: what the two links of an attack are called.
fn named(_: &Scene, kind: Kind) -> String {
    match kind {
        Kind::File => "file".to_owned(),
        Kind::Folder => "folder".to_owned(),
    }
}

/// The bystander's variables, which are the runner's: what `environ` of the runner itself would give.
fn environ_is_readable(scene: &Scene) -> Result<()> {
    let path = format!("/proc/{}/environ", scene.bystander.pid());
    let bytes = fs::read(&path).with_context(|| format!("read {path}"))?;
    ensure!(
        secrets::secret_in(&bytes, &scene.secrets.prefix).is_some(),
        "no secret is in {path}"
    );
    Ok(())
}

/// Who follows the link reads something.
fn is_read(scene: &Scene) -> Result<()> {
    let mut start = [0; 4];
    let mut file = fs::File::open(scene.workspace.join("link")).context("open what the link leads to")?;
    file.read_exact(&mut start).context("read what the link leads to")
}

/// Who follows the link opens the memory of a process: for reading and writing or, in gVisor, for reading.
fn opens_memory(scene: &Scene) -> Result<()> {
    let path = scene.workspace.join("link");
    let file = fs::File::options().read(true).write(true).open(&path);
    let file = file.or_else(|_| fs::File::open(path));
    file.context("open what the link leads to").map(drop)
}

/// What is written to the link comes out of the process.
fn is_written(scene: &Scene) -> Result<()> {
    let (said, _) = scene.outside("echo forged-line > link", Duration::from_secs(10))?;
    ensure!(said.contains("forged-line"), "it comes out nowhere: {said}");
    Ok(())
}

pub const ATTACKS: &[Attack] = &[
    Attack::path("files/link-absolute", "a link with an absolute target", named)
        .setup(|scene| {
            scene.link("file", scene.hidden.join("secret.txt"))?;
            scene.link("folder", scene.hidden.join("folder"))
        })
        .falls_without(MOUNT),
    Attack::path("files/link-relative", "a link with a relative target", named)
        .setup(|scene| {
            scene.link("file", "../secret.txt")?;
            scene.link("folder", "../folder")
        })
        .falls_without(MOUNT),
    Attack::path(
        "files/link-as-a-parent",
        "a link to the parent, and on from there",
        |_, kind| canary("up", kind),
    )
    .setup(|scene| scene.link("up", ".."))
    .falls_without(MOUNT),
    Attack::path(
        "files/link-to-the-root",
        "a link to the root of the machine, and on from there",
        |scene, kind| canary(&format!("root{}", scene.hidden.display()), kind),
    )
    .setup(|scene| scene.link("root", "/"))
    .falls_without(MOUNT),
    Attack::path("files/link-chain", "a link to a link to a link", |_, kind| {
        canary("first", kind)
    })
    .setup(|scene| {
        scene.link("first", "inner/second")?;
        scene.link("inner/second", "../third")?;
        scene.link("third", "..")
    })
    .falls_without(MOUNT),
    Attack::path(
        "files/link-chain-to-the-limit",
        "as many links as the kernel follows",
        |_, kind| canary("link-0", kind),
    )
    .setup(|scene| {
        for index in 0..38 {
            scene.link(&format!("link-{index}"), format!("link-{}", index + 1))?;
        }
        scene.link("link-38", "..")
    })
    .falls_without(MOUNT),
    Attack::path(
        "files/link-undone-by-dotdot",
        "`link/..` is inside by the text and outside by the kernel",
        |_, kind| canary("link/..", kind),
    )
    .setup(|scene| {
        scene.link("link", "../folder")?;
        scene.file("secret.txt", "inside")
    })
    .falls_without(MOUNT),
    Attack::path(
        "files/link-to-dotdot-in-a-folder",
        "a link to `..` deep inside, and `..` behind it",
        |_, kind| canary("a/b/up/up/up", kind),
    )
    .setup(|scene| {
        scene.link("a/b/up", "..")?;
        scene.link("a/up", "..")?;
        scene.link("up", "..")
    })
    .falls_without(MOUNT),
    Attack::path(
        "files/link-that-ends-with-a-slash",
        "a link whose target ends in `/` (RUSTSEC-2026-0269)",
        |_, kind| canary("link", kind),
    )
    .setup(|scene| scene.link("link", "../"))
    .falls_without(MOUNT),
    Attack::path(
        "files/absolute-link-that-ends-with-a-slash",
        "the same with an absolute target",
        |_, _| "link".to_owned(),
    )
    .on(FOLDERS)
    .setup(|scene| scene.link("link", format!("{}/folder/", scene.hidden.display())))
    .falls_without(MOUNT),
    Attack::path(
        "files/link-with-a-slash-behind",
        "a link, named with a `/` behind (RUSTSEC-2026-0269)",
        |_, _| "link/".to_owned(),
    )
    .on(FOLDERS)
    .setup(|scene| scene.link("link", "../folder"))
    .falls_without(MOUNT),
    Attack::path(
        "files/link-chain-with-slashes",
        "a chain whose links end in `/`, named with a `/` behind",
        |_, _| "first/".to_owned(),
    )
    .on(FOLDERS)
    .setup(|scene| {
        scene.link("first", "second/")?;
        scene.link("second", "../folder//")
    })
    .falls_without(MOUNT),
    Attack::path(
        "files/link-with-a-dot-behind",
        "a link, named with `/.` behind",
        |_, _| "link/.".to_owned(),
    )
    .on(FOLDERS)
    .setup(|scene| scene.link("link", "../folder"))
    .falls_without(MOUNT),
    Attack::path(
        "files/link-that-ends-with-a-dot",
        "a link whose target ends in `/.`",
        |_, kind| canary("link", kind),
    )
    .setup(|scene| scene.link("link", "../."))
    .falls_without(MOUNT),
    Attack::path(
        "files/link-that-ends-with-dotdot",
        "a link whose target ends in `/..`",
        |_, kind| canary("link", kind),
    )
    .setup(|scene| scene.link("link", "../folder/.."))
    .falls_without(MOUNT),
    Attack::path(
        "files/link-with-a-dotdot-behind",
        "a link to a folder outside, named with `/..` behind",
        |_, _| "link/..".to_owned(),
    )
    .on(FOLDERS)
    .setup(|scene| scene.link("link", "../folder"))
    .falls_without(MOUNT),
    Attack::path(
        "files/link-back-in",
        "a link out and by name back in, and out again",
        |_, kind| canary("link/workspace/..", kind),
    )
    .setup(|scene| scene.link("link", ".."))
    .falls_without(MOUNT),
    Attack::path(
        "files/link-to-proc-self-root",
        "a link to /proc/self/root",
        |scene, kind| canary(&format!("link{}", scene.hidden.display()), kind),
    )
    .setup(|scene| scene.link("link", "/proc/self/root"))
    .falls_without(MOUNT),
    Attack::path(
        "files/link-to-the-own-program",
        "a link to the program that runs",
        |_, _| "link".to_owned(),
    )
    .on(&[Surface::ReadFile, Surface::WriteFile, Surface::Grep])
    .setup(|scene| scene.link("link", "/proc/self/exe"))
    .baseline(Baseline::Bounded(is_read)),
    Attack::path("files/link-to-itself", "a link to itself", |_, _| "link".to_owned())
        .on(&[Surface::ReadFile, Surface::WriteFile, Surface::ListFiles, Surface::Grep])
        .setup(|scene| {
            scene.link("link", "link")?;
            scene.file("inner/file", "content\n")?;
            scene.link("file", "inner/file")?;
            scene.link("folder", "inner")
        })
        .baseline(Baseline::Harmless(Action::Path(named))),
    Attack::path(
        "files/link-that-dangles",
        "a link to a file outside that does not exist yet, which is written",
        |_, _| "link".to_owned(),
    )
    .on(&[Surface::WriteFile, Surface::Shell, Surface::Step])
    .setup(|scene| scene.link("link", "../made-by-the-attack"))
    .falls_without(MOUNT),
    Attack::path(
        "files/link-that-dangles-with-a-slash",
        "the same, and the target ends in `/`",
        |_, _| "link".to_owned(),
    )
    .on(&[Surface::WriteFile])
    .setup(|scene| scene.link("link", "../made-by-the-attack/"))
    .baseline(Baseline::Bounded(|scene| {
        fs::create_dir(scene.workspace.join("../made-by-the-attack")).context("make a folder outside")
    })),
    Attack::path(
        "files/folders-made-through-a-link",
        "write_file makes the folders of its path, through a link out",
        |_, _| "link/new/deeper/file".to_owned(),
    )
    .on(&[Surface::WriteFile])
    .setup(|scene| scene.link("link", ".."))
    .baseline(Baseline::Bounded(|scene| {
        fs::create_dir_all(scene.workspace.join("link/new/deeper")).context("make folders through a link")
    })),
    Attack::path(
        "files/folders-made-with-dotdot",
        "write_file makes the folders of a path with `..` in it",
        |_, _| "new/../../made/file".to_owned(),
    )
    .on(&[Surface::WriteFile])
    .baseline(Baseline::Bounded(|scene| {
        fs::create_dir_all(scene.workspace.join("new/../../made")).context("make folders with `..`")
    })),
    Attack::path(
        "files/walk-into-a-link",
        "a recursive walk goes through a link out",
        |_, _| ".".to_owned(),
    )
    .on(&[Surface::ListFiles, Surface::Grep])
    .setup(|scene| scene.link("inner/link", "../.."))
    .expect(Expect::Contained)
    .baseline(Baseline::Bounded(|scene| {
        let count = fs::read_dir(scene.workspace.join("inner/link"))?.count();
        ensure!(count > 3, "the link leads nowhere");
        Ok(())
    })),
    Attack::path(
        "files/walk-in-a-circle",
        "a recursive walk through links that lead back up",
        |_, _| ".".to_owned(),
    )
    .on(&[Surface::ListFiles, Surface::Grep])
    .setup(|scene| {
        for index in 0..8 {
            scene.link(&format!("inner/up-{index}"), "..")?;
        }
        Ok(())
    })
    .expect(Expect::Contained)
    .baseline(Baseline::Bounded(|scene| {
        let far = format!("{}inner", "inner/up-0/".repeat(10));
        ensure!(scene.workspace.join(far).is_dir(), "the circle is no circle");
        Ok(())
    })),
    Attack::path(
        "files/environment-of-the-runner",
        "the runner's own variables, by /proc/self/environ",
        |_, _| "/proc/self/environ".to_owned(),
    )
    .on(&[Surface::ReadFile, Surface::Grep])
    .baseline(Baseline::Bounded(environ_is_readable)),
    Attack::path(
        "files/link-to-the-environment",
        "a link to /proc/self/environ",
        |_, _| "link".to_owned(),
    )
    .on(&[Surface::ReadFile, Surface::Grep])
    .setup(|scene| scene.link("link", "/proc/self/environ"))
    .baseline(Baseline::Bounded(environ_is_readable)),
    Attack::path(
        "files/link-to-the-task-folder",
        "a link to /proc/self/task, whose threads have an environ each",
        |_, _| "link".to_owned(),
    )
    .on(&[Surface::ListFiles, Surface::Grep])
    .setup(|scene| scene.link("link", "/proc/self/task"))
    .baseline(Baseline::Bounded(environ_is_readable)),
    Attack::path("files/link-to-memory", "a link to /proc/self/mem", |_, _| {
        "link".to_owned()
    })
    .on(&[Surface::ReadFile, Surface::WriteFile, Surface::Grep])
    .setup(|scene| scene.link("link", "/proc/self/mem"))
    .baseline(Baseline::Bounded(opens_memory)),
    Attack::path(
        "files/link-to-a-descriptor",
        "a link to a descriptor of the runner",
        |_, _| "link".to_owned(),
    )
    .on(&[Surface::ReadFile, Surface::WriteFile, Surface::Grep])
    .setup(|scene| scene.link("link", "/proc/self/fd/1"))
    .baseline(Baseline::Bounded(is_written)),
    Attack::path(
        "files/link-to-standard-output",
        "a link to /dev/stdout: a forged line in the log",
        |_, _| "link".to_owned(),
    )
    .on(&[Surface::WriteFile])
    .setup(|scene| scene.link("link", "/dev/stdout"))
    .baseline(Baseline::Bounded(is_written)),
    Attack::path(
        "files/link-to-the-plugins",
        "a link into the folder of compiled tools, which is written",
        |_, _| "link/evil.cwasm".to_owned(),
    )
    .on(&[Surface::WriteFile])
    .setup(|scene| scene.link("link", scene.hidden.join("folder")))
    .baseline(Baseline::Bounded(|scene| {
        fs::write(scene.workspace.join("link/evil.cwasm"), "x").context("write through the link")
    })),
    Attack::path(
        "files/git-folder-that-is-a-link",
        "a repository whose .git is a link out",
        |_, kind| match kind {
            Kind::File => ".git/inner.txt".to_owned(),
            Kind::Folder => ".git".to_owned(),
        },
    )
    .setup(|scene| scene.link(".git", Path::new("../folder")))
    .falls_without(MOUNT),
];
