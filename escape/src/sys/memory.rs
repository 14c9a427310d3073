//! Memory, and the limits of a process.

use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::Duration;

use super::{call, checked};

/// A file that is memory and has no name.
pub fn memfd() -> io::Result<File> {
    let fd = call(
        libc::SYS_memfd_create,
        [c"plue-escape".as_ptr() as usize, 0, 0, 0, 0, 0],
    )?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) }.into())
}

/// Fills a shared mapping without a file. It goes with the process.
pub fn fill_shared(length: usize) -> io::Result<()> {
    // SAFETY: a new mapping of this length, which is written once.
    unsafe {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        let memory = libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0);
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        memory.cast::<u8>().write_bytes(7, length);
    }
    Ok(())
}

/// Fills a System V segment and holds it. It is marked to go with its last user before anything is put into it.
pub fn fill_system_v(length: usize, time: Duration) -> io::Result<()> {
    // SAFETY: a new segment of this length, attached where the kernel likes, and written once.
    unsafe {
        let segment = libc::shmget(libc::IPC_PRIVATE, length, libc::IPC_CREAT | 0o600);
        checked(segment)?;
        let memory = libc::shmat(segment, std::ptr::null(), 0);
        let attached = if memory as isize == -1 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        };
        libc::shmctl(segment, libc::IPC_RMID, std::ptr::null_mut());
        attached?;
        memory.cast::<u8>().write_bytes(7, length);
        std::thread::sleep(time);
        checked(libc::shmdt(memory))
    }
}

fn limits(resource: i32, new: Option<[u64; 2]>) -> io::Result<[u64; 2]> {
    let mut old = [0_u64; 2];
    let new = new.as_ref().map_or(0, |new| new.as_ptr() as usize);
    call(
        libc::SYS_prlimit64,
        [0, resource as usize, new, old.as_mut_ptr() as usize, 0, 0],
    )?;
    Ok(old)
}

/// Takes as much of something as the process may have.
pub fn raise_limit(resource: i32) -> io::Result<()> {
    let [_, most] = limits(resource, None)?;
    limits(resource, Some([most, most])).map(drop)
}

/// Takes more open files than the process may have.
pub fn raise_hard_limit() -> io::Result<()> {
    let files = libc::RLIMIT_NOFILE as i32;
    let [soft, most] = limits(files, None)?;
    limits(files, Some([soft, most.saturating_add(1)])).map(drop)
}

pub fn allow_core_dumps() -> io::Result<()> {
    let core = libc::RLIMIT_CORE as i32;
    match limits(core, None)? {
        // One byte is no core, and says to the kernel that no program is to be handed one.
        [_, 0 | 1] => limits(core, Some([u64::MAX, u64::MAX])).map(drop),
        [_, most] => limits(core, Some([most, most])).map(drop),
    }
}

/// A file that becomes too large is an error then, and not the end.
pub fn ignore_file_size_signal() {
    // SAFETY: SIG_IGN runs no code of ours.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

pub fn ignore_term() {
    // SAFETY: SIG_IGN runs no code of ours.
    unsafe {
        libc::signal(libc::SIGTERM, libc::SIG_IGN);
    }
}
