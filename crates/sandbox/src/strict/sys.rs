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

/// `fchmodat2(2)`: the same on every architecture; the library knows it on some.
pub(super) const FCHMODAT2: libc::c_long = 452;

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

/// Two sockets, each of which hears the other.
pub(super) fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// Takes a session keyring of our own, with nothing in it. Kernels that have no keys have no such keyring either.
pub(super) fn leave_session_keys() {
    /// `KEYCTL_JOIN_SESSION_KEYRING`.
    const JOIN: libc::c_long = 1;
    // SAFETY: without a name, which is a null pointer.
    unsafe { libc::syscall(libc::SYS_keyctl, JOIN, ptr::null::<libc::c_char>()) };
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

/// Filters this process by a program, some of whose answers are for who holds the descriptor that this gives (Linux
/// 5.0).
pub(super) fn filter_with_listener(program: &[seccompiler::sock_filter]) -> io::Result<OwnedFd> {
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog {
        len: length,
        // The two structures are the kernel's one.
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: the program is as long as is said, and the kernel copies it. The descriptor is a new one.
    unsafe {
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        let descriptor = check(libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        ))?;
        Ok(OwnedFd::from_raw_fd(descriptor as RawFd))
    }
}

/// The requests of a filter's listener.
mod ioctl {
    use rustix::ioctl::opcode;

    pub(super) const RECEIVE: libc::c_ulong = opcode::read_write::<libc::seccomp_notif>(b'!', 0) as _;
    pub(super) const ANSWER: libc::c_ulong = opcode::read_write::<libc::seccomp_notif_resp>(b'!', 1) as _;
    pub(super) const STILL_WAITS: libc::c_ulong = opcode::write::<u64>(b'!', 2) as _;
}

/// The next call that the filter leaves to us.
pub(super) fn next_notification(listener: BorrowedFd<'_>) -> io::Result<libc::seccomp_notif> {
    // SAFETY: all zeros is a valid notification, and the kernel asks for one; it fills one.
    unsafe {
        let mut notification: libc::seccomp_notif = zeroed();
        check(libc::ioctl(listener.as_raw_fd(), ioctl::RECEIVE, &raw mut notification))?;
        Ok(notification)
    }
}

/// Whether who made that call still waits for the answer, so that its PID is still its own.
pub(super) fn still_waits(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: the number is read, and not kept.
    unsafe { libc::ioctl(listener.as_raw_fd(), ioctl::STILL_WAITS, &raw const id) == 0 }
}

/// Answers a call: it succeeded, or failed with this error.
pub(super) fn answer(listener: BorrowedFd<'_>, id: u64, result: Result<(), c_int>) -> io::Result<()> {
    let response = libc::seccomp_notif_resp {
        id,
        val: 0,
        error: result.err().map_or(0, |code| -code),
        flags: 0,
    };
    // SAFETY: a whole structure, which the kernel copies.
    check(unsafe { libc::ioctl(listener.as_raw_fd(), ioctl::ANSWER, &raw const response) }).map(drop)
}

/// Reads from the memory of another process, at most so much; what is not mapped ends it.
pub(super) fn read_memory(pid: i32, address: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let local = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let remote = libc::iovec {
        iov_base: address as *mut libc::c_void,
        iov_len: buffer.len(),
    };
    // SAFETY: the buffer is as long as is said; the other address is one of the other process, which the kernel checks.
    let count = check(unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) })?;
    Ok(count as usize)
}

/// `fchmodat2(2)` on a descriptor that may be of the kind `O_PATH` (Linux 6.6).
pub(super) fn change_mode(file: BorrowedFd<'_>, mode: libc::mode_t) -> io::Result<()> {
    // SAFETY: the path is an empty string.
    check(unsafe { libc::syscall(FCHMODAT2, file.as_raw_fd(), c"".as_ptr(), mode, libc::AT_EMPTY_PATH) }).map(drop)
}

/// Whether the descriptor has something to be read, and not only an end.
pub(super) fn has_input(descriptor: BorrowedFd<'_>) -> io::Result<bool> {
    let mut looked = [rustix::event::PollFd::new(&descriptor, rustix::event::PollFlags::IN)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut looked, Some(&now))?;
    let found = looked[0].revents();
    if found.contains(rustix::event::PollFlags::IN) {
        return Ok(true);
    }
    match found.is_empty() {
        true => Ok(false),
        false => Err(io::ErrorKind::BrokenPipe.into()),
    }
}

/// Starts a program (looked for on our PATH when its name has no slash) as the leader of a session, with nothing but
/// these descriptors: its standard input, output and error, and any after them under the number that goes with it.
/// Gives its PID.
///
/// `posix_spawn` shares our memory with the child until it executes: nothing is copied, and an error comes back.
///
/// # Errors
/// Whatever fails, in the child too: no program runs then, and nothing of what was prepared for it is left.
pub(super) fn spawn(argv: &[CString], env: &[CString], descriptors: &[(c_int, BorrowedFd<'_>)]) -> io::Result<i32> {
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
                for (number, descriptor) in descriptors {
                    let added = libc::posix_spawn_file_actions_adddup2(actions, descriptor.as_raw_fd(), *number);
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

/// The objects of System V in our IPC namespace.
pub(super) mod ipc {
    use std::ffi::c_int;

    /// The kinds that there are.
    #[derive(Clone, Copy)]
    pub(in super::super) enum Kind {
        SharedMemory,
        Semaphores,
        Messages,
    }

    /// How much of a kind there is.
    #[derive(Default)]
    pub(in super::super) struct Count {
        pub(in super::super) objects: u64,
        /// Semaphores, or messages.
        pub(in super::super) parts: u64,
        pub(in super::super) bytes: u64,
    }

    const IPC_INFO: c_int = 3;
    const MSG_STAT: c_int = 11;
    const MSG_INFO: c_int = 12;
    const SHM_STAT: c_int = 13;
    const SHM_INFO: c_int = 14;
    const SEM_STAT: c_int = 18;
    const SEM_INFO: c_int = 19;
    /// Longer than each structure that the kernel fills.
    type Buffer = [u64; 32];

    /// An order to the kernel about one kind, or one object of it.
    fn control(kind: Kind, number: c_int, order: c_int, buffer: &mut Buffer) -> c_int {
        let buffer = buffer.as_mut_ptr();
        // SAFETY: the buffer is longer than what any of these orders writes.
        unsafe {
            match kind {
                Kind::SharedMemory => libc::shmctl(number, order, buffer.cast()),
                Kind::Semaphores => libc::semctl(number, 0, order, buffer),
                Kind::Messages => libc::msgctl(number, order, buffer.cast()),
            }
        }
    }

    /// The numbers, of 32 bits each, that the kernel tells of a kind; zeros when it tells none.
    fn told(kind: Kind, order: c_int) -> [u64; 10] {
        let mut buffer = [0; 32];
        if control(kind, 0, order, &mut buffer) < 0 {
            return [0; 10];
        }
        let word = |index: usize| {
            let bytes = buffer[index / 2].to_ne_bytes();
            let half = if index.is_multiple_of(2) {
                [0, 1, 2, 3]
            } else {
                [4, 5, 6, 7]
            };
            u64::from(u32::from_ne_bytes(half.map(|at| bytes[at])))
        };
        std::array::from_fn(word)
    }

    /// `struct seminfo` has the sets in its eighth field, and the semaphores in its last.
    pub(in super::super) fn semaphores() -> Count {
        let told = told(Kind::Semaphores, SEM_INFO);
        Count {
            objects: told[7],
            parts: told[9],
            bytes: 0,
        }
    }

    /// `struct msginfo` begins with the queues and the messages, and has the bytes of all in its seventh field.
    pub(in super::super) fn messages() -> Count {
        let told = told(Kind::Messages, MSG_INFO);
        Count {
            objects: told[0],
            parts: told[1],
            bytes: told[6],
        }
    }

    /// Whether there is no object of a kind.
    pub(in super::super) fn is_empty(kind: Kind) -> bool {
        match kind {
            // `struct shm_info` begins with the segments.
            Kind::SharedMemory => told(kind, SHM_INFO)[0] == 0,
            Kind::Semaphores => semaphores().objects == 0,
            Kind::Messages => messages().objects == 0,
        }
    }

    /// Removes every object of a kind, in a kernel that lists none of them: its numbers count up from zero, and a new
    /// object says how far they are.
    pub(in super::super) fn remove_by_number(kind: Kind) {
        let mode = libc::IPC_CREAT | 0o600;
        // SAFETY: takes numbers only.
        let newest = unsafe {
            match kind {
                Kind::SharedMemory => libc::shmget(libc::IPC_PRIVATE, 4096, mode),
                Kind::Semaphores => libc::semget(libc::IPC_PRIVATE, 1, mode),
                Kind::Messages => libc::msgget(libc::IPC_PRIVATE, mode),
            }
        };
        let mut buffer = [0; 32];
        for id in 0..=newest {
            control(kind, id, libc::IPC_RMID, &mut buffer);
        }
    }

    /// Removes every object of a kind.
    pub(in super::super) fn remove_all(kind: Kind) {
        let mut buffer = [0; 32];
        let last = control(kind, 0, IPC_INFO, &mut buffer);
        let look = match kind {
            Kind::SharedMemory => SHM_STAT,
            Kind::Semaphores => SEM_STAT,
            Kind::Messages => MSG_STAT,
        };
        for place in 0..=last {
            let id = control(kind, place, look, &mut buffer);
            if id >= 0 {
                control(kind, id, libc::IPC_RMID, &mut buffer);
            }
        }
    }
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
            let descriptors = [
                (0, nothing.as_fd()),
                (1, their_stdout.as_fd()),
                (2, their_stderr.as_fd()),
            ];
            spawn(&argv, &[c"WORD=said".to_owned()], &descriptors)
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
