//! Files that are no plain files, names that are no plain names, and sizes that nobody expects.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use rustix::fs::{CWD, FileType, Mode};
use serde_json::json;

use crate::attack::{Action, Attack, Baseline, Expect, FILE_TOOLS, Kind, Surface};
use crate::scene::Scene;

const READERS: &[Surface] = &[Surface::ReadFile, Surface::Grep];
const WALKERS: &[Surface] = &[Surface::ListFiles, Surface::Grep];
const FILE_READERS_AND_WRITER: &[Surface] = &[Surface::ReadFile, Surface::WriteFile, Surface::Grep];

pub fn fifo(scene: &Scene) -> Result<()> {
    rustix::fs::mknodat(
        CWD,
        scene.workspace.join("fifo"),
        FileType::Fifo,
        Mode::RUSR | Mode::WUSR,
        0,
    )
    .context("make a FIFO")
}

pub fn socket(scene: &Scene) -> Result<()> {
    // The listener may go: the file stays.
    UnixListener::bind(scene.workspace.join("socket"))
        .context("make a socket file")
        .map(|_| ())
}

/// Reading it does not come to an end.
fn blocks(scene: &Scene, name: &str) -> Result<()> {
    let path = scene.workspace.join(name);
    let (sender, receiver) = std::sync::mpsc::channel();
    let reader = path.clone();
    std::thread::spawn(move || sender.send(fs::File::open(reader).is_ok()));
    ensure!(
        receiver.recv_timeout(Duration::from_millis(300)).is_err(),
        "opening it comes to an end"
    );
    // Lets the thread go on and end.
    drop(fs::File::options().read(true).write(true).open(path));
    Ok(())
}

/// There is no end to what can be read.
fn is_endless(path: &str) -> Result<()> {
    use std::io::Read;
    let mut file = fs::File::open(path).with_context(|| format!("open {path}"))?;
    let mut buffer = vec![0; 1 << 20];
    for _ in 0..32 {
        file.read_exact(&mut buffer).with_context(|| format!("read {path}"))?;
    }
    Ok(())
}

/// A file of 1 TiB that takes no room.
pub fn sparse(scene: &Scene) -> Result<()> {
    let file = fs::File::create(scene.workspace.join("sparse"))?;
    file.set_len(1 << 40)
        .or_else(|_| file.set_len(1 << 36))
        .context("make a file of 64 GiB")
}

const NAMES: [&[u8]; 9] = [
    b"not-utf8-\xff\xfe",
    b"line\nbreak.txt",
    b"\x1b[31mred\x1b[0m",
    b"carriage\rreturn",
    "right-to-left-\u{202e}txt.exe".as_bytes(),
    b" leading and trailing ",
    b"-rf",
    b"\x01\x7f",
    b"`id`$(id);id",
];

fn odd_names(scene: &Scene) -> Result<()> {
    for name in NAMES {
        fs::write(scene.workspace.join(OsStr::from_bytes(name)), "content\n")
            .context("make a file with an odd name")?;
    }
    fs::write(scene.workspace.join("n".repeat(255)), "content\n").context("make a file with a long name")
}

fn odd_names_are_there(scene: &Scene) -> Result<()> {
    let count = fs::read_dir(&scene.workspace)?.count();
    ensure!(count > NAMES.len(), "only {count} names are there");
    Ok(())
}

/// What some long names consist of.
fn letter(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "n",
        Kind::Folder => "f",
    }
}

/// The longest names that there may be, and a path nearly as long as one may be.
fn long_names(scene: &Scene) -> Result<()> {
    let deep = "a/".repeat(500);
    scene.file(&"n".repeat(255), "content\n")?;
    scene.file(&format!("{deep}n"), "content\n")?;
    for folder in ["f".repeat(255), format!("{deep}f")] {
        fs::create_dir(scene.workspace.join(folder))?;
    }
    Ok(())
}

/// Deeper than a path may be long.
const DEPTH: usize = 10_000;

fn deep(scene: &Scene) -> Result<()> {
    let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::PATH;
    let mut folder = rustix::fs::openat(CWD, &scene.workspace, flags, Mode::empty())?;
    for _ in 0..DEPTH {
        rustix::fs::mkdirat(&folder, "deep", Mode::RWXU)?;
        folder = rustix::fs::openat(&folder, "deep", flags, Mode::empty())?;
    }
    Ok(())
}

/// As many as take no more than some seconds to make: a tenth of the million that the threat model speaks of. They are
/// names of a few files, of which each may have 65,000.
const ENTRIES: usize = 100_000;

fn many(scene: &Scene) -> Result<()> {
    let folder = scene.workspace.join("many");
    fs::create_dir(&folder)?;
    for index in 0..ENTRIES {
        let first = folder.join(format!("entry-{}", index / 50_000 * 50_000));
        match index % 50_000 {
            0 => fs::File::create(first).map(drop),
            _ => fs::hard_link(first, folder.join(format!("entry-{index}"))),
        }?;
    }
    Ok(())
}

/// Grows for a while, faster than it is read.
pub fn growing(scene: &Scene) -> Result<()> {
    let path = scene.workspace.join("growing");
    let mut file = fs::File::create(&path)?;
    let block = b"a line of a file that grows\n".repeat(4096);
    for _ in 0..16 {
        std::io::Write::write_all(&mut file, &block)?;
    }
    // 400 MB at the most.
    let mut left = 4000;
    scene.meanwhile(move || {
        std::thread::sleep(Duration::from_millis(1));
        left -= 1;
        left > 0 && std::io::Write::write_all(&mut file, &block).is_ok()
    });
    Ok(())
}

pub const ATTACKS: &[Attack] = &[
    Attack::path(
        "files/fifo",
        "a FIFO that nobody writes: opening it takes for ever",
        |_, _| "fifo".to_owned(),
    )
    .on(FILE_READERS_AND_WRITER)
    .setup(fifo)
    .baseline(Baseline::Bounded(|scene| blocks(scene, "fifo"))),
    Attack::path("files/fifo-behind-a-link", "a link to such a FIFO", |_, _| {
        "link".to_owned()
    })
    .on(FILE_READERS_AND_WRITER)
    .setup(|scene| {
        fifo(scene)?;
        scene.link("link", "fifo")
    })
    .baseline(Baseline::Bounded(|scene| blocks(scene, "link"))),
    Attack::path("files/fifo-in-a-walk", "a FIFO in a folder that is walked", |_, _| {
        ".".to_owned()
    })
    .on(WALKERS)
    .setup(fifo)
    .expect(Expect::Contained)
    .baseline(Baseline::Bounded(|scene| blocks(scene, "fifo"))),
    Attack::script(
        "files/fifo-in-a-command",
        crate::attack::Class::Files,
        "a command reads a FIFO that nobody writes",
        |_| "cat fifo; through 'the FIFO came to an end'".to_owned(),
    )
    .setup(fifo)
    .seconds(1)
    .expect(Expect::Killed("timeout"))
    .baseline(Baseline::Bounded(|scene| blocks(scene, "fifo")))
    .falls_without(&[]),
    Attack::path("files/socket-file", "a socket file", |_, _| "socket".to_owned())
        .on(FILE_READERS_AND_WRITER)
        .setup(socket)
        .baseline(Baseline::Bounded(|scene| {
            let kind = fs::symlink_metadata(scene.workspace.join("socket"))?.file_type();
            ensure!(kind.is_socket(), "it is no socket");
            Ok(())
        })),
    Attack::path(
        "files/dev-zero-by-link",
        "a link to /dev/zero: there is no end of it",
        |_, _| "link".to_owned(),
    )
    .on(READERS)
    .setup(|scene| scene.link("link", "/dev/zero"))
    .baseline(Baseline::Bounded(|_| is_endless("/dev/zero"))),
    Attack::path("files/dev-urandom", "/dev/urandom by its path", |_, _| {
        "/dev/urandom".to_owned()
    })
    .on(READERS)
    .baseline(Baseline::Bounded(|_| is_endless("/dev/urandom"))),
    Attack::path("files/dev-fd", "/dev/fd/0, the runner's standard input", |_, _| {
        "/dev/fd/0".to_owned()
    })
    .on(FILE_READERS_AND_WRITER)
    .baseline(Baseline::Bounded(|scene| {
        let (said, _) = scene.outside("echo read-by-its-number | cat /dev/fd/0", Duration::from_secs(10))?;
        ensure!(said.contains("read-by-its-number"), "it is not to be read: {said}");
        Ok(())
    })),
    Attack::path("files/dev-full", "/dev/full, where every write fails", |_, _| {
        "/dev/full".to_owned()
    })
    .on(&[Surface::WriteFile])
    .baseline(Baseline::Bounded(|_| {
        let code = fs::write("/dev/full", "x").err().and_then(|error| error.raw_os_error());
        ensure!(code == Some(libc::ENOSPC), "a write does not fail: {code:?}");
        Ok(())
    })),
    Attack::path("files/sparse", "a file of 1 TiB that holds nothing", |_, _| {
        "sparse".to_owned()
    })
    .on(READERS)
    .setup(sparse)
    .expect(Expect::Contained)
    .baseline(Baseline::Bounded(|scene| {
        ensure!(
            fs::metadata(scene.workspace.join("sparse"))?.len() >= 1 << 36,
            "it is small"
        );
        Ok(())
    })),
    Attack::path("files/growing", "a file that grows while it is read", |_, _| {
        "growing".to_owned()
    })
    .on(READERS)
    .setup(growing)
    .expect(Expect::Contained)
    .baseline(Baseline::Bounded(|scene| {
        let size = || fs::metadata(scene.workspace.join("growing")).map(|meta| meta.len());
        let before = size()?;
        std::thread::sleep(Duration::from_millis(300));
        ensure!(size()? > before, "it does not grow");
        Ok(())
    })),
    Attack::call(
        "files/one-endless-line",
        "a file of one line of 64 MB",
        |_, surface| match surface {
            Surface::Grep => json!({ "path": "line", "pattern": "b$" }),
            _ => json!({ "path": "line", "start_line": 1, "end_line": 1 }),
        },
    )
    .on(READERS)
    .setup(|scene| scene.file("line", vec![b'a'; 64 << 20]))
    .baseline(Baseline::Bounded(|scene| {
        ensure!(
            fs::metadata(scene.workspace.join("line"))?.len() == 64 << 20,
            "it is short"
        );
        Ok(())
    })),
    Attack::call(
        "files/a-slow-pattern",
        "a pattern over which a search that goes back and tries again takes longer than the machine lives",
        |_, _| json!({ "path": "line", "pattern": "(a*)*(a|aa)*((a{1,50}){1,50}){1,50}b" }),
    )
    .on(&[Surface::Grep])
    .setup(|scene| scene.file("line", "a".repeat(200_000)))
    .baseline(Baseline::Harmless(Action::Call(
        |_, _| json!({ "path": "line", "pattern": "(a*)*(a|aa)*b" }),
    ))),
    Attack::path(
        "files/nested-folders",
        "10,000 nested folders: deeper than a path may be long",
        |_, _| ".".to_owned(),
    )
    .on(WALKERS)
    .setup(deep)
    .expect(Expect::Contained)
    .baseline(Baseline::Bounded(|scene| {
        let path = format!("{}deep", "deep/".repeat(DEPTH - 1));
        let error = fs::metadata(scene.workspace.join(path))
            .err()
            .and_then(|error| error.raw_os_error());
        ensure!(error == Some(libc::ENAMETOOLONG), "the path is not too long: {error:?}");
        Ok(())
    })),
    Attack::path("files/many-entries", "100,000 entries in one folder", |_, _| {
        "many".to_owned()
    })
    .on(WALKERS)
    .setup(many)
    .expect(Expect::Contained)
    .baseline(Baseline::Bounded(|scene| {
        ensure!(
            fs::read_dir(scene.workspace.join("many"))?.count() == ENTRIES,
            "they are not there"
        );
        Ok(())
    })),
    Attack::path(
        "files/odd-names",
        "names that are no UTF-8, or hold line breaks, escapes and worse",
        |_, _| ".".to_owned(),
    )
    .on(WALKERS)
    .setup(odd_names)
    .expect(Expect::Plain("break.txt"))
    .baseline(Baseline::Bounded(odd_names_are_there)),
    Attack::script(
        "files/odd-names-in-a-command",
        crate::attack::Class::Files,
        "the same names in a command's output",
        |_| "ls -la; printf '\\377\\376\\033]0;title\\007'; held 'the names were listed'".to_owned(),
    )
    .setup(odd_names)
    .baseline(Baseline::Bounded(odd_names_are_there)),
    Attack::path(
        "files/a-time-before-1970",
        "a file that was modified before 1970",
        |_, _| ".".to_owned(),
    )
    .on(WALKERS)
    .setup(|scene| {
        scene.file("old", "content\n")?;
        let file = fs::File::options().write(true).open(scene.workspace.join("old"))?;
        let time = SystemTime::UNIX_EPOCH - Duration::from_secs(2_000_000_000);
        file.set_modified(time).context("set a time before 1970")
    })
    .expect(Expect::Contained)
    .baseline(Baseline::Bounded(|scene| {
        ensure!(
            fs::metadata(scene.workspace.join("old"))?.mtime() < 0,
            "the time is not kept"
        );
        Ok(())
    })),
    Attack::path(
        "files/a-name-of-256-bytes",
        "a name that is longer than a name may be",
        |_, _| "n".repeat(256),
    )
    .on(FILE_TOOLS)
    .setup(long_names)
    .expect(Expect::Denied(&["invalid_input"]))
    .baseline(Baseline::Harmless(Action::Path(|_, kind| letter(kind).repeat(255)))),
    Attack::path("files/a-path-of-a-megabyte", "a path of a megabyte", |_, _| {
        "a/".repeat(1 << 19)
    })
    .on(FILE_TOOLS)
    .setup(long_names)
    .expect(Expect::Denied(&["invalid_input"]))
    .baseline(Baseline::Harmless(Action::Path(|_, kind| {
        format!("{}{}", "a/".repeat(500), letter(kind))
    }))),
    Attack::call(
        "files/lines-that-overflow",
        "line numbers at the end of 64 bits",
        |_, _| json!({ "path": "file", "start_line": u64::MAX, "end_line": 1 }),
    )
    .on(&[Surface::ReadFile])
    .setup(|scene| scene.file("file", "content\n"))
    .expect(Expect::Denied(&["invalid_input"]))
    .baseline(Baseline::Harmless(Action::Call(
        |_, _| json!({ "path": "file", "start_line": 1, "end_line": 1 }),
    ))),
    Attack::call(
        "files/write-2-megabytes",
        "write_file gets a content of 2 MB",
        |_, _| json!({ "path": "big", "content": "x".repeat(2 << 20) }),
    )
    .on(&[Surface::WriteFile])
    .baseline(Baseline::Bounded(|scene| {
        fs::write(scene.workspace.join("big"), vec![b'x'; 2 << 20]).context("write")
    })),
];
