//! The folder and the files of one task in it: ours alone, and locked by the one runner that has the task.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use crate::spool_dir::{is_at, open_or_make};

/// How the names of all such files begin.
const PREFIX: &str = "plue-runner-task-";

/// How often the lock is tried to be had, and the time between two tries: a runner that was killed a moment ago may
/// not be gone yet.
const TRIES: u32 = 100;
const NEXT_TRY: Duration = Duration::from_millis(20);

/// Why there is nowhere to keep anything.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Whoever else could write there could have the runner do what it likes.
    #[error("{0}")]
    Folder(String),
    #[error("another runner has this task now: it has locked {0}")]
    Locked(PathBuf),
}

/// The files of one task.
#[derive(Debug)]
pub struct Files {
    folder: PathBuf,
    /// How the names of this task's files begin: its id may be any text.
    stem: String,
    /// Locked for as long as we live.
    _lock: File,
    /// Whether they can still be written to.
    usable: AtomicBool,
}

impl Files {
    /// Locks the files of a task. The folder is made when it is not there.
    ///
    /// # Errors
    /// When the folder is not ours alone, or another runner has the task.
    pub fn open(folder: &Path, task_id: &str) -> Result<Self, OpenError> {
        check_folder(folder).map_err(OpenError::Folder)?;
        let digest = Sha256::digest(task_id.as_bytes());
        let name: String = digest.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
        let stem = format!("{PREFIX}{name}");
        let lock = lock(&folder.join(format!("{stem}.lock")))?;
        Ok(Self {
            folder: folder.to_owned(),
            stem,
            _lock: lock,
            usable: AtomicBool::new(true),
        })
    }

    /// One of them.
    pub fn path(&self, kind: &str) -> PathBuf {
        self.folder.join(format!("{}.{kind}", self.stem))
    }

    /// Whether they can still be written to.
    pub fn are_usable(&self) -> bool {
        self.usable.load(Ordering::Relaxed)
    }

    /// Something could not be written. What is there would tell a later runner less than has happened, so all of it
    /// goes: that runner begins anew, as one without the files.
    pub fn give_up(&self, error: &io::Error) {
        if self.usable.swap(false, Ordering::Relaxed) {
            tracing::warn!(
                error = %error,
                folder = %self.folder.display(),
                "what the task has done cannot be kept any more: should the runner be killed now, the task begins anew \
                    (STATE_DIR)"
            );
            // The lock stays ours: there is still one runner that has the task.
            self.remove_kept();
        }
    }

    /// Removes what was kept: nobody needs it any more.
    pub fn remove_all(&self) {
        self.usable.store(false, Ordering::Relaxed);
        self.remove(&["journal", "events", "new", "lock"]);
    }

    /// Removes what was kept, for what is kept from now on.
    pub fn remove_kept(&self) {
        self.remove(&["journal", "events", "new"]);
    }

    fn remove(&self, kinds: &[&str]) {
        for kind in kinds {
            let _ = fs::remove_file(self.path(kind));
        }
        let _ = sync_folder(&self.folder);
    }
}

/// Has the names in a folder reach the disk.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// What is in the folder may hold all that a model has read, and is believed when it is read again: it has to be ours
/// alone. It is made when it is not there.
///
/// # Errors
/// When it is not, or cannot be used.
pub fn check_folder(folder: &Path) -> Result<(), String> {
    let cannot = |error: io::Error| format!("the folder {} cannot be used: {error}", folder.display());
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(cannot(error)),
        Ok(()) | Err(_) => {}
    }
    let about = fs::symlink_metadata(folder).map_err(cannot)?;
    if !about.is_dir() {
        return Err(format!("{} is no folder", folder.display()));
    }
    let us = rustix::process::geteuid().as_raw();
    if about.uid() != us {
        return Err(format!(
            "the folder {} belongs to user {}, and the runner is user {us}: name one in it that the runner can make",
            folder.display(),
            about.uid()
        ));
    }
    if about.mode() & 0o022 != 0 {
        return Err(format!(
            "others can write to the folder {} (mode {:03o}): take that from them, or name a folder in it that the \
             runner can make",
            folder.display(),
            about.mode() & 0o777
        ));
    }
    Ok(())
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let cannot = |error: io::Error| OpenError::Folder(format!("the file {} cannot be used: {error}", path.display()));
    for last in (0..TRIES).map(|tried| tried + 1 == TRIES) {
        let file = open_or_make(path).map_err(cannot)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if last => return Err(OpenError::Locked(path.to_owned())),
            Err(Errno::WOULDBLOCK) => std::thread::sleep(NEXT_TRY),
            Err(error) => return Err(cannot(error.into())),
            // One that ends may have removed the file between our opening and our locking it.
            Ok(()) if is_at(&file, path) => return Ok(file),
            Ok(()) => {}
        }
    }
    Err(OpenError::Locked(path.to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_folder_that_others_may_write_to_is_refused_and_one_that_is_missing_is_made() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("state");
        let files = Files::open(&folder, "task-7").unwrap();
        assert_eq!(folder.metadata().unwrap().mode() & 0o777, 0o700);
        assert_eq!(files.path("lock").metadata().unwrap().mode() & 0o777, 0o600);
        files.remove_all();
        assert_eq!(folder.read_dir().unwrap().count(), 0);
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        let error = Files::open(&folder, "task-7").unwrap_err().to_string();
        assert!(error.contains("777") && error.contains("others can write"), "{error}");
        let missing = outer.path().join("a/b");
        assert!(Files::open(&missing, "task-7").is_err());
        let link = outer.path().join("link");
        std::os::unix::fs::symlink(outer.path(), &link).unwrap();
        assert!(Files::open(&link, "task-7").is_err());
    }

    #[test]
    fn a_task_is_had_by_one_runner_and_another_task_by_another() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::open(folder.path(), "../7").unwrap();
        assert!(matches!(Files::open(folder.path(), "../7"), Err(OpenError::Locked(_))));
        let other = Files::open(folder.path(), "8").unwrap();
        assert_ne!(files.path("journal"), other.path("journal"));
        drop(files);
        Files::open(folder.path(), "../7").unwrap();
    }
}
