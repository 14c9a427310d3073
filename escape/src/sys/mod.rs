//! The raw system calls of the attacks, in one place: what no safe interface offers, because nobody should need it.
#![allow(unsafe_code)]

use std::io;

mod ipc;
mod kernel;
mod memory;
mod namespaces;
mod others;
mod uncounted;

pub use ipc::*;
pub use kernel::*;
pub use memory::*;
pub use namespaces::*;
pub use others::*;
pub use uncounted::*;

/// Paths are relative to the current folder.
const HERE: usize = libc::AT_FDCWD as isize as usize;

/// Asks the kernel for a call by its number. Every argument is a number or an address that the caller keeps alive.
pub fn call(number: i64, arguments: [usize; 6]) -> io::Result<i64> {
    // SAFETY: the kernel checks the arguments; callers pass addresses of memory that lives longer than the call, and of
    // the size that the call writes.
    let result = unsafe {
        libc::syscall(
            number,
            arguments[0],
            arguments[1],
            arguments[2],
            arguments[3],
            arguments[4],
            arguments[5],
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Becomes the parent of what descendants leave behind.
pub fn become_subreaper() -> io::Result<()> {
    call(libc::SYS_prctl, [libc::PR_SET_CHILD_SUBREAPER as usize, 1, 0, 0, 0, 0]).map(|_| ())
}

/// Blocks every signal and tells each that comes, with its sender, for ever. Tells `None` first, when it is ready.
pub fn report_signals(mut tell: impl FnMut(Option<(i32, i32)>)) -> io::Result<()> {
    // SAFETY: all zeros is a valid sigset_t and siginfo_t, and both live through the calls that fill them.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        // It ends with the harness, whatever happens to that.
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        tell(None);
        loop {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let signal = libc::sigwaitinfo(&raw const all, &raw mut info);
            if signal > 0 {
                tell(Some((signal, info.si_pid())));
            }
        }
    }
}

/// Opens a folder with openat2(2).
pub fn openat2(path: &std::ffi::CStr) -> io::Result<()> {
    // struct open_how: flags, mode, resolve.
    let how = [libc::O_PATH as u64, 0, 0];
    let at = libc::AT_FDCWD as isize as usize;
    let fd = call(
        libc::SYS_openat2,
        [
            at,
            path.as_ptr() as usize,
            how.as_ptr() as usize,
            size_of_val(&how),
            0,
            0,
        ],
    )?;
    close(fd);
    Ok(())
}

/// Closes what a call gave.
pub fn close(fd: i64) {
    let _ = call(libc::SYS_close, [fd as usize, 0, 0, 0, 0, 0]);
}

fn path_of(path: &std::path::Path) -> io::Result<std::ffi::CString> {
    std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).map_err(io::Error::other)
}

/// truncate(2): by path, without a descriptor.
pub fn truncate(path: &std::path::Path, length: i64) -> io::Result<()> {
    let path = path_of(path)?;
    call(
        libc::SYS_truncate,
        [path.as_ptr() as usize, length as usize, 0, 0, 0, 0],
    )
    .map(|_| ())
}

/// utimensat(2), to now: whoever may write may do that.
pub fn touch(path: &std::path::Path) -> io::Result<()> {
    let path = path_of(path)?;
    call(libc::SYS_utimensat, [HERE, path.as_ptr() as usize, 0, 0, 0, 0]).map(|_| ())
}

/// name_to_handle_at(2) and open_by_handle_at(2): opens a file without walking to it.
pub fn open_by_handle(path: &std::path::Path) -> io::Result<()> {
    let path = path_of(path)?;
    let at = libc::AT_FDCWD as isize as usize;
    // struct file_handle: the size that follows, a type, and the handle.
    let mut handle = [0_u32; 34];
    handle[0] = 128;
    let mut mount = 0_i32;
    call(
        libc::SYS_name_to_handle_at,
        [
            at,
            path.as_ptr() as usize,
            handle.as_mut_ptr() as usize,
            &raw mut mount as usize,
            0,
            0,
        ],
    )?;
    let root = std::fs::File::open("/")?;
    let root = std::os::fd::AsRawFd::as_raw_fd(&root) as usize;
    let fd = call(
        libc::SYS_open_by_handle_at,
        [root, handle.as_ptr() as usize, libc::O_RDONLY as usize, 0, 0, 0],
    )?;
    close(fd);
    Ok(())
}

/// Maps a file shared and writes its first byte.
pub fn map_and_write(file: &std::fs::File) -> io::Result<()> {
    let fd = std::os::fd::AsRawFd::as_raw_fd(file);
    // SAFETY: a fresh mapping of one page of a file that is longer than a byte; nothing else refers to it.
    unsafe {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let page = libc::mmap(std::ptr::null_mut(), 4096, protection, libc::MAP_SHARED, fd, 0);
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        page.cast::<u8>().write_volatile(b'!');
        libc::munmap(page, 4096);
    }
    Ok(())
}

/// Where these bytes are first. The standard library's way is slow in a build without optimisation, and outputs are
/// long.
pub fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    // SAFETY: both slices are given with their lengths, and the result is inside of the first or null.
    let found = unsafe { libc::memmem(bytes.as_ptr().cast(), bytes.len(), wanted.as_ptr().cast(), wanted.len()) };
    (!found.is_null()).then(|| found as usize - bytes.as_ptr() as usize)
}

fn checked(result: i32) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Runs something in a child, whose exit code is its error.
pub fn in_child(run: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    // SAFETY: the attack program has one thread, so that its child may do what it likes; the child ends by _exit.
    unsafe {
        match libc::fork() {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                let code = run().err().map_or(0, |error| error.raw_os_error().unwrap_or(libc::EIO));
                libc::_exit(code)
            }
            child => ended(child),
        }
    }
}

/// Waits for a child of [`in_child`]. One that a signal has ended is `Interrupted`.
fn ended(child: i32) -> io::Result<()> {
    let mut status = 0;
    // SAFETY: the status outlives the call.
    checked(unsafe { libc::waitpid(child, &raw mut status, 0) })?;
    match (libc::WIFEXITED(status), libc::WEXITSTATUS(status)) {
        (true, 0) => Ok(()),
        (true, code) => Err(io::Error::from_raw_os_error(code)),
        (false, _) => Err(io::Error::new(
            io::ErrorKind::Interrupted,
            format!("ended by signal {}", libc::WTERMSIG(status)),
        )),
    }
}

/// Runs something in so many children at once, and waits for all of them.
pub fn in_children(count: usize, run: impl Fn() -> io::Result<()>) -> io::Result<()> {
    let mut children = Vec::new();
    let mut result = Ok(());
    for _ in 0..count {
        // SAFETY: as in `in_child`.
        match unsafe { libc::fork() } {
            -1 => {
                result = Err(io::Error::last_os_error());
                break;
            }
            0 => {
                let code = run().err().map_or(0, |error| error.raw_os_error().unwrap_or(libc::EIO));
                // SAFETY: ends the child without what its parent has registered.
                unsafe { libc::_exit(code) }
            }
            child => children.push(child),
        }
    }
    for child in children {
        result = result.and(ended(child));
    }
    result
}

/// A process in a session of its own whose parent has ended.
pub fn daemon(run: impl FnOnce()) -> io::Result<()> {
    in_child(|| {
        // SAFETY: as in `in_child`; setsid(2) takes nothing.
        unsafe {
            libc::setsid();
            match libc::fork() {
                -1 => Err(io::Error::last_os_error()),
                0 => {
                    run();
                    libc::_exit(0)
                }
                _ => Ok(()),
            }
        }
    })
}

/// fchmodat2(2), which is newer than most filters.
pub fn fchmodat2(path: &std::path::Path, mode: u32) -> io::Result<()> {
    let path = path_of(path)?;
    // The number is the same on every architecture.
    call(452, [HERE, path.as_ptr() as usize, mode as usize, 0, 0, 0]).map(|_| ())
}

/// Exchanges two names all the time, in a process of its own, while something is done.
pub fn while_exchanging(one: &std::path::Path, other: &std::path::Path, run: impl FnOnce()) -> io::Result<()> {
    let (one, other) = (path_of(one)?, path_of(other)?);
    let exchange = || {
        let (one, other) = (one.as_ptr() as usize, other.as_ptr() as usize);
        let flags = libc::RENAME_EXCHANGE as usize;
        call(libc::SYS_renameat2, [HERE, one, HERE, other, flags, 0]).map(drop)
    };
    exchange()?;
    // SAFETY: as in `in_child`: the child does nothing but this, until it is ended.
    let child = match unsafe { libc::fork() } {
        -1 => return Err(io::Error::last_os_error()),
        0 => loop {
            let _ = exchange();
        },
        child => child,
    };
    run();
    kill(child, libc::SIGKILL)?;
    let _ = ended(child);
    Ok(())
}

/// Creates a file with openat2(2), whose mode lies in memory, where no filter looks.
pub fn create_by_openat2(path: &std::path::Path, mode: u64) -> io::Result<()> {
    let path = path_of(path)?;
    let how = [(libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL) as u64, mode, 0];
    let (path, how) = (path.as_ptr() as usize, how.as_ptr() as usize);
    call(libc::SYS_openat2, [HERE, path, how, 24, 0, 0]).map(close)
}

/// Makes an ordinary file by mknodat(2).
pub fn make_file_by_mknod(path: &std::path::Path, mode: u32) -> io::Result<()> {
    let path = path_of(path)?;
    let mode = (libc::S_IFREG | mode) as usize;
    call(libc::SYS_mknodat, [HERE, path.as_ptr() as usize, mode, 0, 0, 0]).map(|_| ())
}
