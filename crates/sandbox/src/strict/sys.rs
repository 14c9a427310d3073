//! The system calls of the sandbox that no safe interface has, each wrapped once.
//!
//! All others are rustix's, called where they are needed. On Linux it makes the system call itself: no lock and no
//! allocation of its own (but for a path of more than 256 bytes), so that it is safe after a fork; and what changes
//! a thread changes the calling one, which is the only one in the sandbox's processes.
#![allow(unsafe_code)]

use std::ffi::{CString, c_int};
use std::io;
use std::mem::{MaybeUninit, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::time::Duration;

use rustix::mount::{MountAttrFlags, OpenTreeFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::thread::UnshareFlags;

/// -1 stands for the error in errno.
fn check<N: From<i8> + PartialEq>(result: N) -> io::Result<N> {
    if result == N::from(-1) {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// Moves this process into new namespaces.
pub(super) fn unshare(namespaces: UnshareFlags) -> io::Result<()> {
    // SAFETY: what is unsafe is a descriptor table of one thread's own (`UnshareFlags::FILES`), and there is one
    // thread.
    Ok(unsafe { rustix::thread::unshare_unsafe(namespaces) }?)
}

/// `mount_setattr(2)` on a path or, with an empty one, on a descriptor.
fn mount_setattr(at: RawFd, path: &Path, flags: c_int, attributes: &libc::mount_attr) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path is NUL-terminated, and the structure is as long as is said.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            at,
            path.as_ptr(),
            flags,
            ptr::from_ref(attributes),
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

/// Sets these attributes on a mount and, with `recursive`, on all below it (Linux 5.12).
pub(super) fn set_attributes(target: &Path, attributes: MountAttrFlags, recursive: bool) -> io::Result<()> {
    let wanted = libc::mount_attr {
        attr_set: attributes.bits().into(),
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let flags = if recursive { libc::AT_RECURSIVE } else { 0 };
    mount_setattr(libc::AT_FDCWD, target, flags, &wanted)
}

/// A detached copy of the mount at this path and of those below it, in which files belong to others as that user
/// namespace says.
pub(super) fn id_mapped_copy(path: &Path, user_namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = rustix::mount::open_tree(rustix::fs::CWD, path, flags)?;
    let mapped = libc::mount_attr {
        attr_set: MountAttrFlags::MOUNT_ATTR_IDMAP.bits().into(),
        attr_clr: 0,
        propagation: 0,
        userns_fd: user_namespace.as_raw_fd() as u64,
    };
    let flags = libc::AT_EMPTY_PATH | libc::AT_RECURSIVE;
    mount_setattr(tree.as_raw_fd(), Path::new(""), flags, &mapped)?;
    Ok(tree)
}

/// Which side of a fork this is.
pub(super) enum Fork {
    /// That of the process that forked, with the PID of its child.
    Parent(i32),
    /// That of the new process.
    Child,
}

/// `fork(2)`, for a process with one thread: the child may go on as it likes.
pub(super) fn fork() -> io::Result<Fork> {
    // SAFETY: the sandbox's processes have one thread, so no lock is held by another in the child.
    match check(unsafe { libc::fork() })? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid)),
    }
}

/// Ends this process at once, without running what the runtime would at its end.
pub(super) fn exit(code: c_int) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) }
}

/// Switches the loopback interface on.
pub(super) fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: the socket is ours, and the request is a whole structure with a NUL-terminated name.
    unsafe {
        let mut request: libc::ifreq = zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request)).map(drop)
    }
}

/// Keeps SIGCHLD pending until [`wait_for_input`] looks, and lets it interrupt that. SIGPIPE, which Rust's runtime
/// ignores, is made ordinary again, since commands inherit it.
pub(super) fn hold_child_signals() -> io::Result<()> {
    extern "C" fn nothing(_: c_int) {}
    // SAFETY: the handler does nothing, so that it may run at any time; both structures are whole.
    unsafe {
        let mut action: libc::sigaction = zeroed();
        action.sa_sigaction = nothing as extern "C" fn(c_int) as usize;
        check(libc::sigaction(libc::SIGCHLD, &raw const action, ptr::null_mut()))?;
        if libc::signal(libc::SIGPIPE, libc::SIG_DFL) == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
        let mut held: libc::sigset_t = zeroed();
        libc::sigemptyset(&raw mut held);
        libc::sigaddset(&raw mut held, libc::SIGCHLD);
        check(libc::sigprocmask(libc::SIG_SETMASK, &raw const held, ptr::null_mut()))
    }
    .map(drop)
}

/// Waits until the descriptor can be read, a child changes, or the time is over. Whether it can be read.
///
/// `ppoll(2)` with a signal mask, which rustix's `poll` has not: a child that ends just before the call is not missed.
pub(super) fn wait_for_input(descriptor: BorrowedFd<'_>, max: Option<Duration>) -> io::Result<bool> {
    let mut poll = libc::pollfd {
        fd: descriptor.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let max = max.map(|max| libc::timespec {
        tv_sec: max.as_secs().min(1 << 30) as libc::time_t,
        tv_nsec: max.subsec_nanos().into(),
    });
    let timeout = max.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: one pollfd, a timeout that is null or whole, and an empty set of signals.
    let result = unsafe {
        let mut none: libc::sigset_t = zeroed();
        libc::sigemptyset(&raw mut none);
        check(libc::ppoll(&raw mut poll, 1, timeout, &raw const none))
    };
    match result {
        Ok(ready) => Ok(ready > 0),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
        Err(error) => Err(error),
    }
}

/// Starts a program (looked for on our PATH when its name has no slash) as the leader of a session, with nothing but
/// these descriptors as its standard input, output and error. Gives its PID.
///
/// `posix_spawn` shares our memory with the child until it executes: nothing is copied, and an error comes back.
///
/// # Errors
/// Whatever fails, in the child too: no program runs then, and nothing of what was prepared for it is left.
pub(super) fn spawn(argv: &[CString], env: &[CString], descriptors: [BorrowedFd<'_>; 3]) -> io::Result<i32> {
    let pointers = |strings: &[CString]| -> Vec<*mut libc::c_char> {
        let strings = strings.iter().map(|text| text.as_ptr().cast_mut());
        strings.chain([ptr::null_mut()]).collect()
    };
    let (arguments, variables) = (pointers(argv), pointers(env));
    // These functions answer the error, and leave errno alone.
    let check = |code: c_int| match code {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    };
    let mut pid = 0;
    let mut actions = MaybeUninit::uninit();
    let mut attributes = MaybeUninit::uninit();
    let (actions, attributes) = (actions.as_mut_ptr(), attributes.as_mut_ptr());
    // SAFETY: actions and attributes are initialized before they are used, and once they are, they are destroyed once,
    // whatever fails between; the lists of pointers end with null, and their strings outlive the call.
    unsafe {
        check(libc::posix_spawn_file_actions_init(actions))?;
        let spawned = check(libc::posix_spawnattr_init(attributes)).and_then(|()| {
            let mut spawn = || {
                let mut signals: libc::sigset_t = zeroed();
                libc::sigemptyset(&raw mut signals);
                check(libc::posix_spawnattr_setsigmask(attributes, &raw const signals))?;
                let flags = libc::POSIX_SPAWN_SETSID as c_int | libc::POSIX_SPAWN_SETSIGMASK;
                check(libc::posix_spawnattr_setflags(attributes, flags as libc::c_short))?;
                for (number, descriptor) in (0..).zip(descriptors) {
                    let added = libc::posix_spawn_file_actions_adddup2(actions, descriptor.as_raw_fd(), number);
                    check(added)?;
                }
                check(libc::posix_spawnp(
                    &raw mut pid,
                    arguments[0],
                    actions,
                    attributes,
                    arguments.as_ptr(),
                    variables.as_ptr(),
                ))
            };
            let spawned = spawn();
            libc::posix_spawnattr_destroy(attributes);
            spawned
        });
        libc::posix_spawn_file_actions_destroy(actions);
        spawned?;
    }
    Ok(pid)
}

/// Takes over a descriptor that the runner has put at this number when it started us.
pub(super) fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the descriptor is looked at before it is taken, and it is taken once, at the start.
    unsafe {
        rustix::io::fcntl_setfd(BorrowedFd::borrow_raw(number), rustix::io::FdFlags::CLOEXEC)?;
        Ok(OwnedFd::from_raw_fd(number))
    }
}

/// Closes every descriptor from this number on: whoever started the runner may have left it some. (gVisor takes no
/// larger number as the last.)
pub(super) fn close_from(first: RawFd) -> io::Result<()> {
    // SAFETY: takes no pointer. Nothing here owns a descriptor yet but those below the number.
    match check(unsafe { libc::syscall(libc::SYS_close_range, first, i32::MAX, 0) }) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => close_each_from(first),
        result => result.map(drop),
    }
}

/// The same before Linux 5.9.
fn close_each_from(first: RawFd) -> io::Result<()> {
    let entries = std::fs::read_dir("/proc/self/fd")?;
    let open: Vec<RawFd> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|number| *number >= first)
        .collect();
    for number in open {
        // SAFETY: as there; the one that the list was read by is closed already, and closing it again is an error only.
        unsafe { libc::close(number) };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_program_gets_these_descriptors_and_one_that_cannot_be_started_is_an_error() {
        let nothing = File::open("/dev/null").unwrap();
        let [(mut stdout, their_stdout), (mut stderr, their_stderr)] = [(); 2].map(|()| io::pipe().unwrap());
        let start = |argv: &[&str]| {
            let argv: Vec<CString> = argv.iter().map(|text| CString::new(*text).unwrap()).collect();
            let descriptors = [nothing.as_fd(), their_stdout.as_fd(), their_stderr.as_fd()];
            spawn(&argv, &[c"WORD=said".to_owned()], descriptors)
        };
        let missing = start(&["/nowhere/plue"]).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        // Its exit code is not ours to tell: the weak sandbox's tests reap every zombie of this process.
        start(&["/bin/sh", "-c", "cat; echo $WORD; echo $WORD again >&2"]).unwrap();
        drop((their_stdout, their_stderr));
        let mut said = String::new();
        stdout.read_to_string(&mut said).unwrap();
        stderr.read_to_string(&mut said).unwrap();
        assert_eq!(said, "said\nsaid again\n");
    }
}
