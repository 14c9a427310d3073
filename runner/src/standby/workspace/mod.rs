//! The folder that a standby runner empties before and after each task.
//!
//! Emptying the wrong folder is the worst that this program could do to somebody's machine. So a folder is taken only
//! when somebody made it for the purpose, as a mount of its own or by our marker in it, and never when anything that a
//! system or the runner needs is there.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, open, stat, statat};
use rustix::io::Errno;

mod attributes;
mod clear;
mod mounts;

use attributes::Attributes;

pub use clear::{Emptied, EmptyError, MARKER};

/// Folders that are never a workspace, whatever is mounted there.
const SYSTEM: [&str; 17] = [
    "/", "/bin", "/boot", "/dev", "/dev/shm", "/etc", "/home", "/opt", "/proc", "/root", "/run", "/sbin", "/sys",
    "/tmp", "/usr", "/var", "/var/tmp",
];
/// Nothing below these is one either: what is mounted there is the kernel's.
const KERNEL: [&str; 3] = ["/dev", "/proc", "/sys"];

/// Why a folder is not taken as the workspace of a standby runner.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    #[error(
        "the workspace {} cannot be opened as a folder: {error}; WORKSPACE has to name a folder that the runner may \
            read and write",
        path.display()
    )]
    Unreachable { path: PathBuf, error: io::Error },
    #[error(
        "the workspace {} {why}, and a standby runner deletes everything in its workspace before and after each task; \
         set WORKSPACE to a folder of its own",
        path.display()
    )]
    Forbidden { path: PathBuf, why: String },
    #[error(
        "the workspace {} is neither a mount point nor marked, and a standby runner deletes everything in its \
            workspace \
         before and after each task; mount a volume there or, when all that is in it may be deleted, create an empty \
         file named {MARKER} in it",
        path.display()
    )]
    Unmarked { path: PathBuf },
}

/// A folder that may be emptied. It is held by a descriptor: whatever is put at its path later is not touched.
#[derive(Debug)]
pub struct Workspace {
    path: PathBuf,
    folder: OwnedFd,
    condition: Attributes,
    marked: bool,
}

impl Workspace {
    /// Takes a folder as the workspace. It may hold nothing of `forbidden` (the runner's files, homes), and be none of
    /// it.
    ///
    /// # Errors
    /// When it is no folder, is one that must never be emptied, or nobody has said that it may be.
    pub fn claim(path: &Path, forbidden: &[PathBuf]) -> Result<Self, ClaimError> {
        let unreachable = |error: io::Error| ClaimError::Unreachable {
            path: path.to_owned(),
            error,
        };
        let real = fs::canonicalize(path).map_err(unreachable)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = open(&real, flags, Mode::empty()).map_err(|error| unreachable(error.into()))?;
        let identity = Identity::of(&folder).map_err(|error| unreachable(error.into()))?;
        if let Some(why) = objection(&real, identity, forbidden) {
            let path = path.to_owned();
            return Err(ClaimError::Forbidden { path, why });
        }
        let marked = is_marked(&folder).map_err(|error| unreachable(error.into()))?;
        if !marked && !mounts::is_mount_point(&folder, &real).map_err(|error| unreachable(error.into()))? {
            return Err(ClaimError::Unmarked { path: path.to_owned() });
        }
        let condition = Attributes::of(&folder).map_err(|error| unreachable(error.into()))?;
        Ok(Self {
            path: real,
            folder,
            condition,
            marked,
        })
    }

    /// Whether the folder is still where it was: one that was moved away can be emptied, and the next task would stand
    /// in another.
    ///
    /// # Errors
    /// When what is there now cannot be told.
    pub fn is_in_place(&self) -> io::Result<bool> {
        let now = stat(&self.path)?;
        let ours = fstat(&self.folder)?;
        Ok((now.st_dev, now.st_ino) == (ours.st_dev, ours.st_ino))
    }

    /// Removes everything in the folder. The folder stays, as it was when it was claimed, with the marker that it had.
    /// Blocks for as long as that takes.
    ///
    /// # Errors
    /// When something could not be removed; everything else is then.
    pub fn empty(&self) -> Result<Emptied, EmptyError> {
        clear::empty(self.folder.as_fd(), &self.path, &self.condition, self.marked)
    }
}

/// Whether our marker is in the folder: a file itself, no link to one.
fn is_marked(folder: impl AsFd) -> rustix::io::Result<bool> {
    match statat(folder, MARKER, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// One folder of this machine, under whatever name: a bind mount of a folder is that folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    fn of(folder: impl AsFd) -> rustix::io::Result<Self> {
        let stat = fstat(folder)?;
        Ok(Self {
            device: stat.st_dev,
            inode: stat.st_ino,
        })
    }

    fn at(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }
}

/// What speaks against emptying this folder. It goes on from "the workspace PATH".
fn objection(real: &Path, identity: Identity, forbidden: &[PathBuf]) -> Option<String> {
    let is = |path: &Path| real == path || Identity::at(path) == Some(identity);
    if let Some(system) = SYSTEM.iter().find(|system| is(Path::new(system))) {
        return Some(format!("is {system}, a folder of the system"));
    }
    let parent = real.parent().unwrap_or(real);
    let name = real.file_name().unwrap_or_default().as_encoded_bytes();
    if parent == Path::new("/home") {
        return Some("is somebody's home".into());
    }
    if parent == Path::new("/") && name.starts_with(b"lib") {
        return Some("is a folder of the system's libraries".into());
    }
    let of_kernel = |kernel: &&&str| real.starts_with(kernel) && !real.starts_with("/dev/shm");
    if let Some(kernel) = KERNEL.iter().find(of_kernel) {
        return Some(format!("is below {kernel}, which belongs to the kernel"));
    }
    let holds = |path: &&PathBuf| {
        let path = real_path(path);
        path.ancestors().any(is)
    };
    let held = forbidden.iter().find(holds)?;
    Some(if is(&real_path(held)) {
        format!("is {}, which must not be emptied", held.display())
    } else {
        format!("holds {}, which must not be deleted", held.display())
    })
}

/// A path without links, as far as there is something at it.
fn real_path(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let known = path
        .ancestors()
        .find_map(|ancestor| Some((ancestor, fs::canonicalize(ancestor).ok()?)));
    match known {
        Some((ancestor, real)) => real.join(path.strip_prefix(ancestor).unwrap_or(Path::new(""))),
        None => path,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::os::unix::fs::symlink;

    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn refusal(path: &Path, forbidden: &[PathBuf]) -> String {
        match Workspace::claim(path, forbidden) {
            Ok(_) => panic!("{} was taken as a workspace", path.display()),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_marked_folder_is_taken_and_one_that_nobody_has_marked_is_not() {
        let folder = folder();
        let said = refusal(folder.path(), &[]);
        assert!(
            said.contains("neither a mount point nor marked") && said.contains(MARKER),
            "{said}"
        );
        fs::create_dir(folder.path().join(MARKER)).unwrap();
        refusal(folder.path(), &[]);
        fs::remove_dir(folder.path().join(MARKER)).unwrap();
        symlink("/etc/passwd", folder.path().join(MARKER)).unwrap();
        refusal(folder.path(), &[]);
        fs::remove_file(folder.path().join(MARKER)).unwrap();
        fs::write(folder.path().join(MARKER), "").unwrap();
        let real = fs::canonicalize(folder.path()).unwrap();
        assert_eq!(Workspace::claim(folder.path(), &[]).unwrap().path, real);
    }

    #[test]
    fn a_folder_of_the_system_is_never_taken_whatever_is_mounted_there_or_whatever_link_leads_there() {
        let links = folder();
        for (number, system) in ["/", "/etc", "/usr", "/tmp", "/proc", "/sys", "/dev", "/proc/self"]
            .iter()
            .enumerate()
        {
            let said = refusal(Path::new(system), &[]);
            assert!(said.contains("deletes everything"), "{said}");
            let link = links.path().join(number.to_string());
            symlink(system, &link).unwrap();
            assert!(refusal(&link, &[]).contains("set WORKSPACE"), "{system} by a link");
        }
        // Not all of these are there everywhere, and the rule does not need them to be.
        let nobody = Identity { device: 0, inode: 0 };
        for system in [
            "/root",
            "/home",
            "/home/ann",
            "/lib64",
            "/lib",
            "/run",
            "/dev/pts",
            "/sys/fs/cgroup",
            "/opt",
        ] {
            assert!(objection(Path::new(system), nobody, &[]).is_some(), "{system}");
        }
        for fine in [
            "/workspace",
            "/home/ann/work",
            "/dev/shm/work",
            "/var/lib/plue",
            "/libation/x",
            "/tmp/work",
        ] {
            assert_eq!(objection(Path::new(fine), nobody, &[]), None, "{fine}");
        }
    }

    #[test]
    fn a_folder_that_is_forbidden_or_holds_something_that_is_is_not_taken() {
        let folder = folder();
        let work = folder.path().join("work");
        fs::create_dir_all(work.join("deep/plugins")).unwrap();
        fs::write(work.join(MARKER), "").unwrap();
        symlink(work.join("deep"), folder.path().join("by-link")).unwrap();
        let cases = [
            (work.clone(), "which must not be emptied"),
            (work.join("deep/plugins"), "which must not be deleted"),
            (work.join("not/there/yet"), "which must not be deleted"),
            (folder.path().join("by-link/plugins"), "which must not be deleted"),
        ];
        for (forbidden, expected) in cases {
            let said = refusal(&work, std::slice::from_ref(&forbidden));
            assert!(said.contains(expected), "{}: {said}", forbidden.display());
        }
        // What lies above it or beside it is no reason.
        Workspace::claim(&work, &[folder.path().to_owned(), folder.path().join("workshop")]).unwrap();
    }

    #[test]
    fn what_is_no_folder_is_an_error_that_says_so() {
        let folder = folder();
        fs::write(folder.path().join("file"), "").unwrap();
        for name in ["file", "missing"] {
            let said = refusal(&folder.path().join(name), &[]);
            assert!(said.contains("cannot be opened as a folder"), "{said}");
        }
    }

    #[test]
    fn a_mount_is_told_from_a_folder() {
        let folder = folder();
        let mounted = |path: &str| mounts::is_mount_point(fs::File::open(path).unwrap(), Path::new(path)).unwrap();
        assert!(mounted("/proc") && mounted("/"));
        assert!(!mounted(folder.path().to_str().unwrap()) && !mounted("/proc/self/task"));
    }
}
