//! Set-group-ID for folders, and for nothing else.
//!
//! A folder with that bit hands its group on to what is made in it: volumes of pods have it, and `chmod`, `cp -a`,
//! `tar` and `rsync` set it on every folder that they make there. On a program it would lend that group to whoever runs
//! it outside of the sandbox. A filter of system calls sees no difference. So each such call is left to the keeper,
//! which looks at what it is for and, when that is a folder, makes the call itself: never is a command's own call
//! allowed after a look, since what it names could be exchanged between the two.
//!
//! The keeper is of the same user as the commands, sees the same files, and has no privileges when it does this; and no
//! command can signal it, since it is not in their PID namespace.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags, openat};

use super::sys::{self, FCHMODAT2};

/// A page is read at a time: the next one may not be mapped.
const PAGE: u64 = 4096;
/// The longest path, its end included.
const MAX_PATH: usize = 4096;

/// The /proc in which the PIDs are those that the keeper is told. To be opened before commands' own covers it.
pub(super) fn open_proc() -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(CWD, "/proc", flags, Mode::empty())?)
}

/// Answers the next call that the filter has left to us.
///
/// # Errors
/// When there is none, and will be none any more.
pub(super) fn answer_next(listener: BorrowedFd<'_>, proc: BorrowedFd<'_>) -> io::Result<()> {
    let asked = match sys::next_notification(listener) {
        // Who made the call was killed, or has gone on with a signal.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => return Ok(()),
        result => result?,
    };
    let pid = asked.pid.cast_signed();
    let result = Call::of(&asked).and_then(|call| {
        let found = call.target(pid, proc)?;
        // Only now is it sure that the PID was still that of who asks.
        if !sys::still_waits(listener, asked.id) {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        change(&found, call.mode)
    });
    let result = result.map_err(|error| error.raw_os_error().unwrap_or(libc::EPERM));
    // Nobody waits for it any more, perhaps.
    let _ = sys::answer(listener, asked.id, result);
    Ok(())
}

fn change(found: &OwnedFd, mode: libc::mode_t) -> io::Result<()> {
    let kind = FileType::from_raw_mode(rustix::fs::fstat(found)?.st_mode);
    if kind != FileType::Directory {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    match sys::change_mode(found.as_fd(), mode) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(rustix::fs::chmodat(
            found,
            ".",
            Mode::from_raw_mode(mode),
            rustix::fs::AtFlags::empty(),
        )?),
        result => result,
    }
}

/// A call that changes a mode, whichever of them it is.
struct Call {
    /// Where its path begins, `AT_FDCWD` perhaps; the file itself when there is no path.
    descriptor: i32,
    /// Where its path is in its memory.
    path: Option<u64>,
    mode: libc::mode_t,
    flags: i32,
}

impl Call {
    fn of(asked: &libc::seccomp_notif) -> io::Result<Self> {
        let [first, second, third, fourth, ..] = asked.data.args;
        let (descriptor, path, mode, flags) = match i64::from(asked.data.nr) {
            #[cfg(target_arch = "x86_64")]
            libc::SYS_chmod => (libc::AT_FDCWD, Some(first), second, 0),
            libc::SYS_fchmod => (first as i32, None, second, 0),
            libc::SYS_fchmodat => (first as i32, Some(second), third, 0),
            FCHMODAT2 => (first as i32, Some(second), third, fourth as i32),
            _ => return Err(io::Error::from_raw_os_error(libc::ENOSYS)),
        };
        if flags & !(libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH) != 0 {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        Ok(Self {
            descriptor,
            path,
            mode: (mode as libc::mode_t) & 0o7777,
            flags,
        })
    }

    /// What the call is for, as its process sees it.
    fn target(&self, pid: i32, proc: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        let open =
            |name: String| Ok::<_, io::Error>(openat(proc, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?);
        let base = || match self.descriptor {
            libc::AT_FDCWD => open(format!("{pid}/cwd")),
            descriptor => open(format!("{pid}/fd/{descriptor}")).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => io::Error::from_raw_os_error(libc::EBADF),
                _ => error,
            }),
        };
        let Some(address) = self.path else {
            return base();
        };
        let path = read_path(pid, address)?;
        if path.is_empty() {
            return match self.flags & libc::AT_EMPTY_PATH {
                0 => Err(io::Error::from_raw_os_error(libc::ENOENT)),
                _ => base(),
            };
        }
        let mut flags = OFlags::PATH | OFlags::CLOEXEC;
        flags.set(OFlags::NOFOLLOW, self.flags & libc::AT_SYMLINK_NOFOLLOW != 0);
        if path.as_bytes().starts_with(b"/") {
            // Our root is the commands' own: no command can change its.
            return Ok(openat(CWD, &path, flags, Mode::empty())?);
        }
        Ok(openat(base()?, &path, flags, Mode::empty())?)
    }
}

/// The string at this address of a process.
fn read_path(pid: i32, address: u64) -> io::Result<CString> {
    let mut path = Vec::new();
    while path.len() < MAX_PATH {
        let at = address + path.len() as u64;
        let mut part = [0; PAGE as usize];
        let until_next_page = (PAGE - at % PAGE) as usize;
        let count = sys::read_memory(pid, at, &mut part[..until_next_page])?;
        if let Some(end) = part[..count].iter().position(|&byte| byte == 0) {
            path.extend_from_slice(&part[..end]);
            return CString::new(path).map_err(io::Error::other);
        }
        path.extend_from_slice(&part[..count]);
        if count < until_next_page {
            return Err(io::Error::from_raw_os_error(libc::EFAULT));
        }
    }
    Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG))
}
