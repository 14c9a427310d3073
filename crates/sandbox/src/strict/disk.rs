//! Where the temporary files of commands lie when the runner's own lie on a disk: in a folder there, which goes with
//! the sandbox. In memory they would take from what commands may use of it.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, flock, open, openat, statat};
use rustix::process::{Gid, Uid};

use crate::mutation::Protection;
use crate::remove_folder::remove_folder;

/// How such folders are called.
const PREFIX: &str = "plue-commands-";
/// What is in one, by its name here.
pub(super) const FOLDERS: [(&str, &str); 2] = [("tmp", "/tmp"), ("var-tmp", "/var/tmp")];
/// File systems that are memory.
const IN_MEMORY: [i64; 2] = [libc::TMPFS_MAGIC, 0x8584_58f6];
/// How many names are looked at when it is counted what lies in one.
const MAX_NAMES: usize = 200_000;

/// The folder of one sandbox.
pub(super) struct Disk {
    folder: PathBuf,
    /// Locked for as long as it is used: it is stale otherwise, and the next runner removes it.
    _lock: OwnedFd,
}

impl Disk {
    /// Makes one, for this user when the runner is root. `None`: the runner's temporary files are in memory, or it has
    /// nowhere to put any.
    pub(super) fn make(user: u32) -> Option<Self> {
        let base = std::env::temp_dir();
        let kind = rustix::fs::statfs(&base).ok()?.f_type;
        if IN_MEMORY.contains(&kind) {
            return None;
        }
        remove_stale(&base);
        match Self::make_in(&base, user) {
            Ok(disk) => Some(disk),
            Err(error) => {
                let base = base.display();
                tracing::warn!(%error, %base, "no folder for commands' temporary files: they are kept in memory");
                None
            }
        }
    }

    fn make_in(base: &Path, user: u32) -> io::Result<Self> {
        let private = fs::Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(private)
            .tempdir_in(base)?;
        let lock = lock(folder.path())?;
        for (name, _) in FOLDERS {
            let place = folder.path().join(name);
            fs::create_dir(&place)?;
            fs::set_permissions(&place, fs::Permissions::from_mode(0o1777))?;
        }
        if rustix::process::geteuid().is_root() && !Protection::Privileges.is_off() {
            rustix::fs::chown(folder.path(), Some(Uid::from_raw(user)), Some(Gid::from_raw(user)))?;
        }
        // Commands may have made folders in it that are closed: it is not removed as simply as that.
        Ok(Self {
            folder: folder.keep(),
            _lock: lock,
        })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = remove_folder(&self.folder) {
            let folder = self.folder.display();
            tracing::warn!(%error, %folder, "the temporary files of commands could not be removed");
        }
    }
}

fn lock(folder: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = open(folder, flags, Mode::empty())?;
    flock(&folder, FlockOperation::NonBlockingLockExclusive)?;
    Ok(folder)
}

/// Removes what runners have left that were killed. One that was only just made may not be locked yet.
fn remove_stale(base: &Path) {
    /// From the making of a folder to its lock.
    const JUST_NOW: std::time::Duration = std::time::Duration::from_secs(60);
    let own = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_ours = name.to_str().is_some_and(|name| name.starts_with(PREFIX));
        let is_stale = |found: &fs::Metadata| {
            let is_old = found.modified().ok().and_then(|time| time.elapsed().ok());
            found.is_dir() && (own == 0 || found.uid() == own) && is_old.is_some_and(|age| age > JUST_NOW)
        };
        if is_ours
            && entry.metadata().is_ok_and(|found| is_stale(&found))
            && let Ok(_lock) = lock(&entry.path())
        {
            let _ = remove_folder(&entry.path());
        }
    }
}

/// What lies in the folders, as the sandbox's own processes count it.
pub(super) struct Used {
    folders: Vec<OwnedFd>,
}

impl Used {
    /// Opens the folders for that. What is mounted at the places of commands does not lie in them.
    pub(super) fn open(disk: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folders = FOLDERS.map(|(name, _)| open(disk.join(name), flags, Mode::empty()));
        Ok(Self {
            folders: folders.into_iter().collect::<Result<_, _>>()?,
        })
    }

    /// What is free on the disk, in bytes.
    pub(super) fn free(&self) -> Option<u64> {
        let found = rustix::fs::fstatvfs(self.folders.first()?).ok()?;
        Some(found.f_bavail.saturating_mul(found.f_frsize))
    }

    /// What the files take, in bytes. Slow, and no more than honest commands need: what has no name any more does not
    /// count, nor what lies too deep.
    pub(super) fn count(&self) -> u64 {
        let mut names = MAX_NAMES;
        self.folders
            .iter()
            .map(|folder| count(folder.as_fd(), &mut names))
            .sum()
    }
}

fn count(root: BorrowedFd<'_>, names: &mut usize) -> u64 {
    let mut total = 0;
    let mut open_folders = vec![PathBuf::from(".")];
    while let Some(folder) = open_folders.pop() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(opened) = openat(root, &folder, flags, Mode::empty()) else {
            continue;
        };
        for entry in Dir::read_from(&opened).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            *names = names.saturating_sub(1);
            if *names == 0 {
                return total;
            }
            let Ok(found) = statat(&opened, name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            // In units of 512 bytes, whatever the file system's own are.
            total += u64::try_from(found.st_blocks).unwrap_or(0) * 512;
            if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
                open_folders.push(folder.join(OsStr::from_bytes(name.to_bytes())));
            }
        }
    }
    total
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_folder_goes_with_its_sandbox_whatever_commands_have_made_of_it_and_is_counted() {
        let base = tempfile::tempdir().unwrap();
        let disk = Disk::make_in(base.path(), 60_000).unwrap();
        let used = Used::open(disk.folder()).unwrap();
        let before = used.count();
        let deep = disk.folder().join("tmp/a/b");
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("file"), vec![7; 1 << 20]).unwrap();
        std::os::unix::fs::symlink("/usr", deep.join("link")).unwrap();
        let counted = used.count() - before;
        assert!((1 << 20..2 << 20).contains(&counted), "{counted}");
        assert!(used.free().unwrap() > 0);
        fs::set_permissions(&deep, fs::Permissions::from_mode(0o500)).unwrap();
        assert!(lock(disk.folder()).is_err(), "it is in use");
        drop(disk);
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_runner_left_is_removed_and_what_another_uses_is_not() {
        let base = tempfile::tempdir().unwrap();
        let used = Disk::make_in(base.path(), 60_000).unwrap();
        // As of one that was killed: nobody holds its lock.
        let (left, other) = (base.path().join(format!("{PREFIX}left")), base.path().join("other"));
        fs::create_dir_all(left.join("tmp/x")).unwrap();
        fs::create_dir(&other).unwrap();
        let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
        for folder in [used.folder(), &left, &other] {
            fs::File::open(folder).unwrap().set_modified(long_ago).unwrap();
        }
        remove_stale(base.path());
        assert!(used.folder().exists() && other.exists() && !left.exists());
    }
}
