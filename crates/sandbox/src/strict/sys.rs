//! The system calls of the sandbox that no safe interface offers, each wrapped once.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use libc::{c_int, c_uint, c_ulong, pid_t};

/// -1 is the error in errno.
fn check(result: c_int) -> io::Result<c_int> {
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

fn check_long(result: libc::c_long) -> io::Result<libc::c_long> {
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// A path as the kernel takes it.
pub(super) fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

pub(super) fn unshare(flags: c_int) -> io::Result<()> {
    // SAFETY: takes no pointer. Callers have one thread, so nobody else's view changes behind their back.
    check(unsafe { libc::unshare(flags) }).map(drop)
}

/// `mount(2)`; what is not needed is `None`.
pub(super) fn mount(
    source: Option<&Path>,
    target: &Path,
    kind: Option<&CStr>,
    flags: c_ulong,
    data: Option<&CStr>,
) -> io::Result<()> {
    let source = source.map(c_path).transpose()?;
    let target = c_path(target)?;
    let pointer = |text: Option<&CStr>| text.map_or(ptr::null(), CStr::as_ptr);
    // SAFETY: every pointer is null or a NUL-terminated string that lives until the call is over.
    check(unsafe {
        libc::mount(
            pointer(source.as_deref()),
            target.as_ptr(),
            pointer(kind),
            flags,
            pointer(data).cast(),
        )
    })
    .map(drop)
}

/// `umount2(2)` with MNT_DETACH.
pub(super) fn detach(target: &Path) -> io::Result<()> {
    let target = c_path(target)?;
    // SAFETY: the string lives until the call is over.
    check(unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) }).map(drop)
}

/// Makes the current folder the root; the old root lies over it until it is detached.
pub(super) fn pivot_to_current_folder() -> io::Result<()> {
    let here = c".";
    // SAFETY: both pointers are the same static string.
    check_long(unsafe { libc::syscall(libc::SYS_pivot_root, here.as_ptr(), here.as_ptr()) }).map(drop)
}

/// `mount_setattr(2)` on a path or, with an empty one, on a descriptor.
fn mount_setattr(at: RawFd, path: &CStr, flags: c_int, attributes: &libc::mount_attr) -> io::Result<()> {
    // SAFETY: the path is NUL-terminated, and the structure is as long as is said.
    check_long(unsafe {
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
pub(super) fn set_attributes(target: &Path, attributes: u64, recursive: bool) -> io::Result<()> {
    let wanted = libc::mount_attr {
        attr_set: attributes,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let flags = if recursive { libc::AT_RECURSIVE } else { 0 };
    mount_setattr(libc::AT_FDCWD, &c_path(target)?, flags, &wanted)
}

/// A detached copy of the mount at this path and of those below it, in which files belong to others as that user namespace says.
pub(super) fn id_mapped_copy(path: &Path, user_namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_RECURSIVE as c_uint;
    // SAFETY: the string lives until the call is over; the result is a descriptor of our own.
    let tree = unsafe {
        let tree = check_long(libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags))?;
        OwnedFd::from_raw_fd(tree as RawFd)
    };
    let mapped = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: user_namespace.as_raw_fd() as u64,
    };
    mount_setattr(tree.as_raw_fd(), c"", libc::AT_EMPTY_PATH | libc::AT_RECURSIVE, &mapped)?;
    Ok(tree)
}

/// Attaches a detached mount.
pub(super) fn attach(tree: BorrowedFd<'_>, target: &Path) -> io::Result<()> {
    let target = c_path(target)?;
    // SAFETY: both strings live until the call is over.
    check_long(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// Which side of a fork this is.
pub(super) enum Fork {
    Parent(pid_t),
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

/// `prctl(2)` with numbers only.
pub(super) fn prctl(option: c_int, argument: c_ulong) -> io::Result<c_int> {
    // SAFETY: callers pass options whose argument is a number; unused arguments must be 0.
    check(unsafe { libc::prctl(option, argument, 0 as c_ulong, 0 as c_ulong, 0 as c_ulong) })
}

/// Becomes this user and group for good, without any other group.
pub(super) fn become_user(uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: no pointer is read, as the list has no entries. The raw calls change this thread, the only one.
    unsafe {
        check_long(libc::syscall(libc::SYS_setgroups, 0, ptr::null::<libc::gid_t>()))?;
        check_long(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        check_long(libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
    }
    Ok(())
}

/// Gives up every capability of this thread.
pub(super) fn drop_capabilities() -> io::Result<()> {
    /// `_LINUX_CAPABILITY_VERSION_3`: two words of 32 bits for each set.
    const VERSION: u32 = 0x2008_0522;
    let header: [u32; 2] = [VERSION, 0];
    let sets = [0_u32; 6];
    // SAFETY: header and sets are as large as version 3 asks for.
    check_long(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) }).map(drop)
}

/// `setrlimit(2)`, soft and hard alike.
pub(super) fn limit(resource: libc::__rlimit_resource_t, most: u64) -> io::Result<()> {
    let mut now = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls get a structure of their own.
    unsafe {
        check(libc::getrlimit(resource, &raw mut now))?;
        let most = most.min(now.rlim_max);
        let wanted = libc::rlimit {
            rlim_cur: most,
            rlim_max: most,
        };
        check(libc::setrlimit(resource, &raw const wanted))
    }
    .map(drop)
}

pub(super) fn set_host_name(name: &str) -> io::Result<()> {
    // SAFETY: the pointer and the length belong to one string.
    check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }).map(drop)
}

/// Switches the loopback interface on.
pub(super) fn loopback_up() -> io::Result<()> {
    // SAFETY: the socket is ours, and the request is a whole structure with a NUL-terminated name.
    unsafe {
        let socket = check(libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0))?;
        let socket = OwnedFd::from_raw_fd(socket);
        let mut request: libc::ifreq = std::mem::zeroed();
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
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(c_int) as usize;
        check(libc::sigaction(libc::SIGCHLD, &raw const action, ptr::null_mut()))?;
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        let mut held: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut held);
        libc::sigaddset(&raw mut held, libc::SIGCHLD);
        check(libc::sigprocmask(libc::SIG_SETMASK, &raw const held, ptr::null_mut()))
    }
    .map(drop)
}

/// Waits until the descriptor can be read, a child changes, or the time is over. Whether it can be read.
pub(super) fn wait_for_input(descriptor: BorrowedFd<'_>, most: Option<std::time::Duration>) -> io::Result<bool> {
    let mut poll = libc::pollfd {
        fd: descriptor.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let most = most.map(|most| libc::timespec {
        tv_sec: most.as_secs().min(1 << 30) as libc::time_t,
        tv_nsec: most.subsec_nanos().into(),
    });
    let timeout = most.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: one pollfd, a timeout that is null or whole, and an empty set of signals.
    let result = unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        check(libc::ppoll(&raw mut poll, 1, timeout, &raw const none))
    };
    match result {
        Ok(ready) => Ok(ready > 0),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the other side of a socket is gone, without waiting.
pub(super) fn has_hung_up(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let mut poll = libc::pollfd {
        fd: socket.as_raw_fd(),
        events: 0,
        revents: 0,
    };
    // SAFETY: one pollfd of our own.
    check(unsafe { libc::poll(&raw mut poll, 1, 0) })?;
    Ok(poll.revents & (libc::POLLHUP | libc::POLLERR) != 0)
}

/// Starts a program (looked for on our PATH when its name has no slash) as the leader of a session, with nothing but
/// these descriptors as its standard input, output and error.
///
/// `posix_spawn` shares our memory with the child until it executes: nothing is copied, and an error comes back.
pub(super) fn spawn(
    argv: &[CString],
    env: &[CString],
    stdin: BorrowedFd<'_>,
    stdout: BorrowedFd<'_>,
    stderr: BorrowedFd<'_>,
) -> io::Result<pid_t> {
    let pointers = |strings: &[CString]| -> Vec<*mut libc::c_char> {
        let strings = strings.iter().map(|text| text.as_ptr().cast_mut());
        strings.chain([ptr::null_mut()]).collect()
    };
    let (arguments, variables) = (pointers(argv), pointers(env));
    let fail = |code: c_int| match code {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    };
    let mut pid = 0;
    // SAFETY: actions and attributes are initialized before they are used and destroyed once; the lists of pointers end
    // with null and their strings outlive the call.
    unsafe {
        let mut actions: libc::posix_spawn_file_actions_t = std::mem::zeroed();
        let mut attributes: libc::posix_spawnattr_t = std::mem::zeroed();
        fail(libc::posix_spawn_file_actions_init(&raw mut actions))?;
        fail(libc::posix_spawnattr_init(&raw mut attributes))?;
        let mut signals: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut signals);
        libc::posix_spawnattr_setsigmask(&raw mut attributes, &raw const signals);
        let flags = libc::POSIX_SPAWN_SETSID as c_int | libc::POSIX_SPAWN_SETSIGMASK;
        libc::posix_spawnattr_setflags(&raw mut attributes, flags as libc::c_short);
        for (number, descriptor) in [stdin, stdout, stderr].iter().enumerate() {
            libc::posix_spawn_file_actions_adddup2(&raw mut actions, descriptor.as_raw_fd(), number as c_int);
        }
        let code = libc::posix_spawnp(
            &raw mut pid,
            arguments[0],
            &raw const actions,
            &raw const attributes,
            arguments.as_ptr(),
            variables.as_ptr(),
        );
        libc::posix_spawn_file_actions_destroy(&raw mut actions);
        libc::posix_spawnattr_destroy(&raw mut attributes);
        fail(code)?;
    }
    Ok(pid)
}

/// A child that has ended.
pub(super) struct Ended {
    pub(super) pid: pid_t,
    /// The exit code, or 128 and the signal.
    pub(super) code: i32,
}

/// What there is to know of our children.
pub(super) enum Children {
    Ended(Ended),
    /// A signal has stopped this one.
    Stopped(pid_t),
    /// Some are left, and none of them has ended.
    Running,
    None,
}

/// Looks for a child that has ended, without waiting.
pub(super) fn reap() -> Children {
    look_for_child(libc::WNOHANG)
}

/// The same, and for one that was stopped.
pub(super) fn reap_or_stopped() -> Children {
    look_for_child(libc::WNOHANG | libc::WUNTRACED)
}

fn look_for_child(options: c_int) -> Children {
    let mut status = 0;
    // SAFETY: the status is a number of our own.
    match unsafe { libc::waitpid(-1, &raw mut status, options) } {
        0 => Children::Running,
        -1 => Children::None,
        pid if libc::WIFSTOPPED(status) => Children::Stopped(pid),
        pid => Children::Ended(Ended {
            pid,
            code: exit_code(status),
        }),
    }
}

/// Waits for this child; its exit code.
pub(super) fn wait(pid: pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: the status is a number of our own.
    while unsafe { libc::waitpid(pid, &raw mut status, 0) } == -1 {
        if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return -1;
        }
    }
    exit_code(status)
}

fn exit_code(status: c_int) -> i32 {
    if libc::WIFSIGNALED(status) {
        128 + libc::WTERMSIG(status)
    } else {
        libc::WEXITSTATUS(status)
    }
}

/// Sends a signal. A process that is gone already is no error.
pub(super) fn kill(pid: pid_t, signal: c_int) {
    // SAFETY: takes no pointer.
    unsafe { libc::kill(pid, signal) };
}

/// Takes over a descriptor that the runner has put at this number when it started us.
pub(super) fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the descriptor is looked at before it is taken, and it is taken once, at the start.
    unsafe {
        check(libc::fcntl(number, libc::F_GETFD))?;
        check(libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC))?;
        Ok(OwnedFd::from_raw_fd(number))
    }
}

/// Closes every descriptor from this number on: whoever started the runner may have left it some. (gVisor takes no larger
/// number as the last.)
pub(super) fn close_from(first: RawFd) -> io::Result<()> {
    // SAFETY: takes no pointer. Nothing here owns a descriptor yet but those below the number.
    match check_long(unsafe { libc::syscall(libc::SYS_close_range, first, i32::MAX, 0) }) {
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

/// A pair of connected sockets that keep the borders of messages.
pub(super) fn socket_pair(kind: c_int) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut pair = [0; 2];
    // SAFETY: the array has room for both; each becomes one owned descriptor.
    unsafe {
        check(libc::socketpair(
            libc::AF_UNIX,
            kind | libc::SOCK_CLOEXEC,
            0,
            pair.as_mut_ptr(),
        ))?;
        Ok((OwnedFd::from_raw_fd(pair[0]), OwnedFd::from_raw_fd(pair[1])))
    }
}
