//! Secrets that are files: what Kubernetes mounts of a Secret, and what Docker has in /run/secrets. They are read again
//! while the runner lives, and no command may read them.

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::OFlags;

/// The longest secret, in bytes. What is longer is another file than the one that was meant.
const MAX_SECRET: u64 = 64 << 10;

/// More links in one path are a circle, as for the kernel.
const MAX_LINKS: u32 = 40;

/// Folders that commands need: they cannot be hidden. What is in a folder of its own below them can.
const NEEDED: [&str; 22] = [
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/opt",
    "/proc",
    "/sbin",
    "/sys",
    "/usr",
    "/usr/bin",
    "/usr/lib",
    "/usr/lib64",
    "/usr/libexec",
    "/usr/local",
    "/usr/local/bin",
    "/usr/share",
    "/var",
    "/var/lib",
];

/// Reads a secret. Links are followed, as those by which a volume of Kubernetes is swapped; a newline at its end is
/// taken off.
///
/// # Errors
/// What is wrong, without anything of the content.
pub(super) fn read(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let cannot = |error: std::io::Error| format!("the file {shown} cannot be read: {error}");
    // A pipe that nobody writes to would keep us waiting.
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path);
    let file = file.map_err(cannot)?;
    let found = file.metadata().map_err(cannot)?;
    if !found.is_file() {
        let what = if found.is_dir() {
            "a folder"
        } else {
            "a pipe or a device"
        };
        return Err(format!("{shown} is {what}, and no file"));
    }
    let mut content = Vec::new();
    file.take(MAX_SECRET + 1).read_to_end(&mut content).map_err(cannot)?;
    if content.len() as u64 > MAX_SECRET {
        return Err(format!("the file {shown} has more than {} KiB", MAX_SECRET >> 10));
    }
    let content = String::from_utf8(content).map_err(|_| format!("the file {shown} is no text in UTF-8"))?;
    match content.trim_end_matches(['\r', '\n']) {
        "" => Err(format!("the file {shown} is empty")),
        secret => Ok(secret.to_owned()),
    }
}

/// A folder that is hidden from commands as a whole, with the links on the way to it followed; it need not be there.
///
/// # Errors
/// When commands would see it all the same, or the workspace would be hidden with it.
pub(super) fn own_folder(folder: &Path, workspace: &Path) -> Result<PathBuf, String> {
    let shown = folder.display();
    let real = |path: &Path| {
        let there = path
            .ancestors()
            .find_map(|outer| Some((outer, outer.canonicalize().ok()?)));
        match there {
            Some((outer, real)) => real.join(path.strip_prefix(outer).unwrap_or(Path::new(""))),
            None => path.to_owned(),
        }
    };
    let (folder, workspace) = (real(folder), real(workspace));
    // Joining nothing leaves a slash at the end.
    let folder: PathBuf = folder.components().collect();
    if folder.components().any(|part| part == Component::ParentDir) {
        return Err(format!("the path {shown} has a .. in it that leads nowhere"));
    }
    if folder.starts_with(&workspace) {
        return Err(format!(
            "the folder {shown} is in WORKSPACE, where tools and commands read it: it must be elsewhere"
        ));
    }
    if workspace.starts_with(&folder) || !can_be_hidden(&folder) {
        return Err(format!(
            "the folder {shown} cannot be hidden from commands: it must be a folder of its own, with nothing else in it"
        ));
    }
    Ok(folder)
}

/// The folders that have to be hidden from commands, so that they do not read the file, also when it is replaced:
/// the one that the file is in, and those with a link on the way to it.
///
/// # Errors
/// When commands would see it all the same.
pub(super) fn folders(path: &Path, workspace: &Path) -> Result<Vec<PathBuf>, String> {
    let shown = path.display();
    let cannot = |error: std::io::Error| format!("the path {shown} cannot be followed: {error}");
    let path = std::path::absolute(path).map_err(cannot)?;
    let mut on_the_way = BTreeSet::new();
    let mut links = 0;
    let mut at = PathBuf::from("/");
    let mut rest: VecDeque<PathBuf> = parts(&path);
    while let Some(part) = rest.pop_front() {
        if part == Path::new("..") {
            at.pop();
            continue;
        }
        let next = at.join(part);
        let Ok(target) = fs::read_link(&next) else {
            at = next;
            continue;
        };
        links += 1;
        if links > MAX_LINKS {
            return Err(format!("the path {shown} goes round in links"));
        }
        on_the_way.insert(at.clone());
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        for part in parts(&target).into_iter().rev() {
            rest.push_front(part);
        }
    }
    let home = at.parent().unwrap_or(Path::new("/")).to_owned();
    let workspace = workspace.canonicalize().unwrap_or_else(|_| workspace.to_owned());
    if home.starts_with(&workspace) || path.starts_with(&workspace) {
        return Err(format!(
            "the file {shown} is in WORKSPACE, where tools and commands read it: it must be elsewhere"
        ));
    }
    if !can_be_hidden(&home) {
        return Err(format!(
            "the file {shown} is in {}, which cannot be hidden from commands: it must be in a folder of its own",
            home.display()
        ));
    }
    // A link in a folder of the system (/var/run) is none that a volume is swapped by.
    let mut folders: Vec<PathBuf> = on_the_way.into_iter().filter(|folder| can_be_hidden(folder)).collect();
    folders.push(home);
    folders.sort();
    // What is in a hidden one is hidden with it.
    folders.dedup_by(|inner, outer| inner.starts_with(&*outer));
    Ok(folders)
}

fn parts(path: &Path) -> VecDeque<PathBuf> {
    let parts = path.components();
    parts
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| PathBuf::from(part.as_os_str()))
        .collect()
}

fn can_be_hidden(folder: &Path) -> bool {
    !NEEDED.iter().any(|needed| folder == Path::new(needed))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_secret_is_read_through_links_and_without_its_newline() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        // As kubelet lays a Secret out.
        fs::create_dir(at("..2026_1")).unwrap();
        fs::write(at("..2026_1/KEY"), "first\n").unwrap();
        symlink("..2026_1", at("..data")).unwrap();
        symlink("..data/KEY", at("KEY")).unwrap();
        assert_eq!(read(&at("KEY")).unwrap(), "first");
        // And swaps it.
        fs::create_dir(at("..2026_2")).unwrap();
        fs::write(at("..2026_2/KEY"), "second\r\n\n").unwrap();
        symlink("..2026_2", at("..new")).unwrap();
        fs::rename(at("..new"), at("..data")).unwrap();
        assert_eq!(read(&at("KEY")).unwrap(), "second");
    }

    #[test]
    fn what_is_no_file_with_a_secret_is_refused_without_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (name, content) in [
            ("empty", &b""[..]),
            ("newline", b"\n"),
            ("binary", b"hunter2\xff"),
            ("long", &b"hunter2".repeat(10_000)),
        ] {
            fs::write(at(name), content).unwrap();
        }
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at("pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        for (name, expected) in [
            ("missing", "cannot be read: No such file"),
            ("empty", "is empty"),
            ("newline", "is empty"),
            ("binary", "no text in UTF-8"),
            ("long", "more than 64 KiB"),
            ("pipe", "is a pipe"),
            (".", "is a folder"),
        ] {
            let error = read(&at(name)).unwrap_err();
            assert!(
                error.contains(expected) && !error.contains("hunter2"),
                "{name}: {error}"
            );
        }
    }

    #[test]
    fn the_folders_of_a_secret_are_hidden_wherever_its_links_lead_and_one_that_cannot_be_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let at = |name: &str| root.join(name);
        for name in ["volume/..2026_1", "elsewhere", "workspace/inner"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        symlink("..2026_1", at("volume/..data")).unwrap();
        symlink("..data/KEY", at("volume/KEY")).unwrap();
        symlink("../elsewhere/KEY", at("volume/OTHER")).unwrap();
        symlink(at("volume"), at("elsewhere/link")).unwrap();
        symlink("../workspace/inner/KEY", at("volume/INSIDE")).unwrap();
        symlink("circle", at("volume/circle")).unwrap();
        let workspace = at("workspace");
        for (path, expected) in [
            ("volume/KEY", &["volume"][..]),
            ("volume/..data/KEY", &["volume"]),
            ("volume/OTHER", &["elsewhere", "volume"]),
            ("elsewhere/link/KEY", &["elsewhere", "volume"]),
            ("elsewhere/../volume/./KEY", &["volume"]),
        ] {
            let expected: Vec<PathBuf> = expected.iter().map(|name| at(name)).collect();
            assert_eq!(folders(&at(path), &workspace).unwrap(), expected, "{path}");
        }
        for (path, problem) in [
            (at("workspace/KEY"), "WORKSPACE"),
            (at("volume/INSIDE"), "WORKSPACE"),
            (at("volume/circle"), "links"),
            ("/etc/KEY".into(), "cannot be hidden"),
            ("/KEY".into(), "cannot be hidden"),
        ] {
            let error = folders(&path, &workspace).unwrap_err();
            assert!(error.contains(problem), "{}: {error}", path.display());
        }
    }
}
