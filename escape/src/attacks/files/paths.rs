//! Paths that lead out by what they say. A command is allowed to say them, and finds nothing there.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use plue_sandbox::mutation::Protection;
use serde_json::{Value, json};

use super::canary;
use crate::attack::{Action, Attack, Baseline, Class, Expect, Surface};
use crate::scene::Scene;
use crate::target::Outcome;

const MOUNT: &[Protection] = &[Protection::Mount];

/// The workspace's absolute path.
fn workspace(scene: &Scene) -> String {
    scene.workspace.display().to_string()
}

fn outside(scene: &Scene) -> String {
    scene.hidden.display().to_string()
}

/// The proper arguments of a file tool for this path.
fn arguments(surface: Surface, path: &str) -> Value {
    match surface {
        Surface::WriteFile => json!({ "path": path, "content": "written by an attack" }),
        Surface::Grep => json!({ "path": path, "pattern": "" }),
        Surface::Shell => json!({ "command": "cat secret.txt", "working_directory": path }),
        _ => json!({ "path": path }),
    }
}

/// What somebody would read who took the path for this one.
fn leads_to(scene: &Scene, path: &str) -> Result<()> {
    let path = scene.workspace.join(path);
    let content = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    ensure!(content.contains(&scene.secrets.prefix), "there is no canary");
    Ok(())
}

/// Outside, the answer for what is there differs from that for what is not.
fn tells_what_is_there(scene: &Scene) -> Result<()> {
    let found = |name: &str| scene.workspace.join(name).exists();
    ensure!(
        found("../folder") && !found("../there-is-no-such-folder"),
        "all is there, or nothing"
    );
    Ok(())
}

const PERCENT: &str = "%2e%2e%2fsecret.txt";
const BACKSLASH: &str = "..\\secret.txt";
const WIDE: &str = "\u{ff0e}\u{ff0e}\u{2215}secret.txt";
/// As C sees it: a text ends at its first NUL.
fn until_nul(path: &str) -> &str {
    path.split('\0').next().unwrap_or_default()
}

pub const ATTACKS: &[Attack] = &[
    Attack::path(
        "files/dotdot-at-the-start",
        "`..` leads to the workspace's parent",
        |_, kind| canary("..", kind),
    )
    .falls_without(MOUNT),
    Attack::path(
        "files/dotdot-in-the-middle",
        "`..` twice behind an ordinary folder",
        |_, kind| canary("inner/../..", kind),
    )
    .setup(|scene| scene.file("inner/file", "x"))
    .falls_without(MOUNT),
    Attack::path(
        "files/dotdot-to-the-root-and-down",
        "`..` to the root of the machine, and down again",
        |scene, kind| canary(&format!("{}{}", "../".repeat(40), outside(scene)), kind),
    )
    .falls_without(MOUNT),
    Attack::path(
        "files/dotdot-between-dots-and-slashes",
        "`..` hidden between `.` and double slashes",
        |_, kind| canary(".//.///.././/.", kind),
    )
    .falls_without(MOUNT),
    Attack::path("files/dotdot-at-the-end", "a path that ends with `..`", |_, _| {
        "inner/../..".to_owned()
    })
    .on(&[Surface::ListFiles, Surface::Grep, Surface::Shell, Surface::Step])
    .setup(|scene| scene.file("inner/file", "x"))
    .falls_without(MOUNT),
    Attack::path("files/absolute", "the absolute path of a canary", |scene, kind| {
        canary(&outside(scene), kind)
    })
    .falls_without(MOUNT),
    Attack::path(
        "files/absolute-from-the-workspace-and-up",
        "an absolute path that begins with the workspace's, and goes up",
        |scene, kind| canary(&format!("{}/..", workspace(scene)), kind),
    )
    .falls_without(MOUNT),
    Attack::path(
        "files/sibling-with-the-same-prefix",
        "a folder beside the workspace whose name begins with the workspace's",
        |scene, kind| canary(&format!("{}-evil", workspace(scene)), kind),
    )
    .falls_without(MOUNT),
    Attack::path(
        "files/proc-self-root",
        "/proc/self/root leads to the root of the machine",
        |scene, kind| canary(&format!("/proc/self/root{}", outside(scene)), kind),
    )
    .falls_without(MOUNT),
    Attack::path("files/proc-self-cwd", "/proc/self/cwd and up", |_, kind| {
        canary("/proc/self/cwd/..", kind)
    })
    .on(&[Surface::Shell, Surface::Step])
    .falls_without(MOUNT),
    Attack::call("files/nul-at-the-start", "a NUL in front of the path", |_, surface| {
        arguments(surface, "\0../secret.txt")
    })
    .expect(Expect::Denied(&["invalid_input"]))
    .baseline(Baseline::Bounded(|scene| {
        leads_to(scene, &"\0../secret.txt".replace('\0', ""))
    })),
    Attack::call(
        "files/nul-in-the-middle",
        "a NUL in the middle: what checks sees all, what opens sees half",
        |_, surface| arguments(surface, "../secret.txt\0/../workspace/inner"),
    )
    .expect(Expect::Denied(&["invalid_input"]))
    .baseline(Baseline::Bounded(|scene| {
        leads_to(scene, until_nul("../secret.txt\0/../workspace/inner"))
    })),
    Attack::call("files/nul-at-the-end", "a NUL behind the path", |_, surface| {
        arguments(surface, "../secret.txt\0")
    })
    .expect(Expect::Denied(&["invalid_input"]))
    .baseline(Baseline::Bounded(|scene| leads_to(scene, until_nul("../secret.txt\0")))),
    Attack::call(
        "files/percent-encoded",
        "`..` and `/` as a URL has them",
        |_, surface| arguments(surface, PERCENT),
    )
    .baseline(Baseline::Bounded(|scene| {
        leads_to(scene, &PERCENT.replace("%2e", ".").replace("%2f", "/"))
    })),
    Attack::call("files/backslashes", "`..\\`, as another system has it", |_, surface| {
        arguments(surface, BACKSLASH)
    })
    .baseline(Baseline::Bounded(|scene| {
        leads_to(scene, &BACKSLASH.replace('\\', "/"))
    })),
    Attack::call("files/a-home-by-tilde", "`~` for a home folder", |_, surface| {
        arguments(surface, "~/../secret.txt")
    })
    .expect(Expect::Denied(&["denied", "not_found"]))
    .on(&[Surface::ReadFile, Surface::ListFiles, Surface::Grep])
    .baseline(Baseline::Bounded(|scene| {
        let (said, _) = scene.outside("HOME=$PWD; cat ~/../secret.txt", Duration::from_secs(10))?;
        ensure!(
            said.contains(&scene.secrets.prefix),
            "the shell reads no canary: {said}"
        );
        Ok(())
    })),
    Attack::call("files/a-file-url", "a `file://` URL", |scene, surface| {
        arguments(surface, &format!("file://{}/secret.txt", outside(scene)))
    })
    .baseline(Baseline::Bounded(|scene| {
        leads_to(scene, &format!("{}/secret.txt", outside(scene)))
    })),
    Attack::call(
        "files/dots-of-another-alphabet",
        "full-width dots and a division slash",
        |_, surface| arguments(surface, WIDE),
    )
    .baseline(Baseline::Bounded(|scene| {
        leads_to(scene, &WIDE.replace('\u{ff0e}', ".").replace('\u{2215}', "/"))
    })),
    Attack::call(
        "files/working-directory-outside",
        "the shell tool's working directory is the parent",
        |_, surface| arguments(surface, ".."),
    )
    .on(&[Surface::Shell])
    .expect(Expect::Denied(&["denied"]))
    .baseline(Baseline::Bounded(|scene| leads_to(scene, "../secret.txt"))),
    Attack::call(
        "files/working-directory-absolute",
        "the shell tool's working directory is absolute",
        |scene, surface| arguments(surface, &outside(scene)),
    )
    .on(&[Surface::Shell])
    .expect(Expect::Denied(&["denied"]))
    .baseline(Baseline::Bounded(|scene| {
        leads_to(scene, &format!("{}/secret.txt", outside(scene)))
    })),
    Attack::call(
        "files/working-directory-through-a-link",
        "the shell tool's working directory is a link out",
        |_, surface| arguments(surface, "up"),
    )
    .on(&[Surface::Shell])
    .setup(|scene| scene.link("up", ".."))
    .expect(Expect::Denied(&["denied"]))
    .baseline(Baseline::Bounded(|scene| leads_to(scene, "up/secret.txt"))),
    Attack::call(
        "files/include-pattern-outside",
        "grep's pattern for names holds `..`",
        |_, _| json!({ "pattern": "plue-canary", "include": "../*.txt" }),
    )
    .on(&[Surface::Grep])
    .baseline(Baseline::Bounded(|scene| {
        let (said, _) = scene.outside("cat ../*.txt", Duration::from_secs(10))?;
        ensure!(
            said.contains(&scene.secrets.prefix),
            "the pattern finds no canary: {said}"
        );
        Ok(())
    })),
    Attack::alike(
        "files/existence-outside",
        "a refusal tells whether a file outside exists",
        |_, surface| {
            let there = match surface {
                Surface::ListFiles => "../folder",
                _ => "../secret.txt",
            };
            [
                arguments(surface, "../there-is-no-such-file"),
                arguments(surface, there),
            ]
        },
    )
    .expect(Expect::Denied(&["denied"]))
    .baseline(Baseline::Bounded(tells_what_is_there)),
    Attack::call(
        "files/existence-of-a-working-directory",
        "a refusal of the shell tool's working directory tells whether a folder outside exists",
        |_, surface| arguments(surface, "../there-is-no-such-folder"),
    )
    .on(&[Surface::Shell])
    .expect(Expect::Denied(&["denied"]))
    .baseline(Baseline::Bounded(tells_what_is_there)),
    Attack::call(
        "files/existence-of-a-working-directory-through-a-link",
        "the same through a link that leads to a folder outside, which is not there",
        |_, surface| arguments(surface, "gone"),
    )
    .on(&[Surface::Shell])
    .setup(|scene| scene.link("gone", "../there-is-no-such-folder"))
    .expect(Expect::Denied(&["denied"]))
    .baseline(Baseline::Bounded(tells_what_is_there)),
    Attack::program(
        "files/empty-list-of-folders",
        Class::Files,
        "reads what lies outside where the operator's COMMAND_READ_PATHS is empty, which must not mean all",
        |target| Outcome::of("read", std::fs::read(target.hidden.join("secret.txt"))),
    )
    .env(&[("COMMAND_READ_PATHS", "")])
    .falls_without(MOUNT),
    Attack::call(
        "files/the-workspace-itself",
        "the workspace's root in place of a file",
        |_, surface| arguments(surface, "."),
    )
    .on(&[Surface::WriteFile, Surface::ReadFile])
    .setup(|scene| scene.file("file", "content\n"))
    .expect(Expect::Denied(&["invalid_input"]))
    .baseline(Baseline::Harmless(Action::Call(|_, surface| {
        arguments(surface, "file")
    }))),
];
