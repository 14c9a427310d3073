//! What commands keep in the kernel for each other by System V's and POSIX's names. It belongs to no process, so that
//! it is counted here, and would outlive its command, so that it is removed here.

use std::ffi::CString;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Dir, unlinkat};

use super::sys::ipc::{self, Kind};

/// What the kernel takes for a semaphore, besides those that wait for it.
const SEMAPHORE: u64 = 128;
/// For a message, besides its text.
const MESSAGE: u64 = 64;
/// For a set of semaphores or a queue, besides what is in it.
const OBJECT: u64 = 512;

/// What semaphores and messages take of the kernel's memory, in bytes. Shared memory is in the pod's count, and POSIX
/// queues have a limit of the kernel's own.
pub(super) fn used() -> u64 {
    let semaphores = ipc::semaphores();
    let messages = ipc::messages();
    semaphores.objects * OBJECT
        + semaphores.parts * SEMAPHORE
        + messages.objects * OBJECT
        + messages.parts * MESSAGE
        + messages.bytes
}

/// Whether there is none of it.
pub(super) fn is_empty(queues: Option<&OwnedFd>) -> bool {
    KINDS.into_iter().all(ipc::is_empty) && queues.is_none_or(|folder| names(folder).is_empty())
}

/// Removes all of it.
pub(super) fn remove(queues: Option<&OwnedFd>, is_gvisor: bool) {
    KINDS.into_iter().for_each(ipc::remove_all);
    if is_gvisor {
        // It does not list message queues.
        ipc::remove_by_number(Kind::Messages);
    }
    if let Some(folder) = queues {
        for name in names(folder) {
            let _ = unlinkat(folder, name, AtFlags::empty());
        }
    }
}

const KINDS: [Kind; 3] = [Kind::SharedMemory, Kind::Semaphores, Kind::Messages];

/// The POSIX queues, by their names.
fn names(folder: &OwnedFd) -> Vec<CString> {
    let entries = Dir::read_from(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_owned());
    names.filter(|name| !matches!(name.to_bytes(), b"." | b"..")).collect()
}
