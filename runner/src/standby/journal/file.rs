//! The file itself: ours alone, and locked by the one runner that lives.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::page::read_page;
use crate::spool_dir::{careful, is_at, open_or_make};

/// How the names of all such files begin.
pub(super) const PREFIX: &str = "plue-runner-standby-";

/// How often the file is tried to be had, and the time between two tries.
const TRIES: u32 = 50;
const NEXT_TRY: Duration = Duration::from_millis(20);

/// What there is of the file.
pub(super) enum Taken {
    /// It is locked.
    Ours(File),
    /// The same, and new: in the one that was there anybody could have written.
    Replaced(File),
    OfALivingRunner,
}

/// Opens and locks the file.
pub(super) fn take(path: &Path) -> io::Result<Taken> {
    let mut replaced = false;
    // One that was killed a moment ago may not be gone yet, and one that ends may remove the file between our opening
    // and our locking it.
    for last in (0..TRIES).map(|tried| tried + 1 == TRIES) {
        let file = open_or_make(path)?;
        if !is_ours(&file)? {
            return Err(io::Error::other("it is no file of this user's"));
        }
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if last => return Ok(Taken::OfALivingRunner),
            Err(Errno::WOULDBLOCK) => std::thread::sleep(NEXT_TRY),
            // Where nothing can be locked, a name of one's own has to do.
            Err(_) | Ok(()) if !is_at(&file, path) => {}
            Err(_) | Ok(()) if file.metadata()?.mode() & 0o022 != 0 => {
                fs::remove_file(path)?;
                replaced = true;
            }
            Err(_) | Ok(()) if replaced => return Ok(Taken::Replaced(file)),
            Err(_) | Ok(()) => return Ok(Taken::Ours(file)),
        }
    }
    Err(io::Error::other("another process replaces it all the time"))
}

/// The folder may be one that everybody writes to: what another user has put there may name any URL.
pub(super) fn is_ours(file: &File) -> io::Result<bool> {
    let about = file.metadata()?;
    let us = rustix::process::geteuid().as_raw();
    Ok(about.is_file() && about.uid() == us && about.nlink() == 1)
}

/// Says which files of other runners are in the folder. What they say is for those alone.
pub(super) fn name_others(folder: &Path, own: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path == own || !name.to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let opened = OpenOptions::new().read(true).custom_flags(careful()).open(&path);
        let Ok(file) = opened else { continue };
        // One that lives says for itself what it does.
        if !is_ours(&file).unwrap_or_default() || flock(&file, FlockOperation::NonBlockingLockShared).is_err() {
            continue;
        }
        let whose = match read_page(&file) {
            Ok(Some(page)) => page.pod_name,
            Ok(None) | Err(_) => "unknown".to_owned(),
        };
        tracing::info!(
            file = %path.display(),
            pod_name = whose,
            "the file of another runner is ignored: it had another POD_NAME, or another REGISTER_URL"
        );
    }
}
