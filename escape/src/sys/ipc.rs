//! What System V and POSIX keep in the kernel for whoever knows its name: it belongs to no process, and goes with none.

use std::ffi::CString;
use std::io;

use super::{call, checked, close};

/// A set of one semaphore under this key, or the number of the one that is there.
pub fn semaphore(key: i32, make: bool) -> io::Result<i32> {
    let flags = if make { libc::IPC_CREAT | 0o600 } else { 0 };
    // SAFETY: takes numbers only.
    let id = unsafe { libc::semget(key, 1, flags) };
    checked(id).map(|()| id)
}

/// A set of so many semaphores that has no name.
pub fn semaphores(count: i32) -> io::Result<i32> {
    // SAFETY: takes numbers only.
    let id = unsafe { libc::semget(libc::IPC_PRIVATE, count, libc::IPC_CREAT | 0o600) };
    checked(id).map(|()| id)
}

pub fn remove_semaphore(id: i32) {
    // SAFETY: takes numbers only.
    unsafe {
        libc::semctl(id, 0, libc::IPC_RMID);
    }
}

/// A message queue under this key, or the number of the one that is there. A key of 0 makes one that has no name.
pub fn queue(key: i32, make: bool) -> io::Result<i32> {
    let flags = if make { libc::IPC_CREAT | 0o600 } else { 0 };
    // SAFETY: takes numbers only.
    let id = unsafe { libc::msgget(key, flags) };
    checked(id).map(|()| id)
}

pub fn remove_queue(id: i32) {
    // SAFETY: without a buffer, which this order does not look at.
    unsafe {
        libc::msgctl(id, libc::IPC_RMID, std::ptr::null_mut());
    }
}

/// Puts a message of this many bytes, at most 8192, into a queue, without waiting for room.
pub fn send(queue: i32, length: usize) -> io::Result<()> {
    // struct msgbuf: a type above zero, and the text.
    let message = [7_i64; 1 + 8192 / 8];
    let length = length.min(8192);
    // SAFETY: the message is longer than what is sent of it.
    checked(unsafe { libc::msgsnd(queue, message.as_ptr().cast(), length, libc::IPC_NOWAIT) })
}

/// Sends so many descriptors that nobody takes.
pub fn descriptors_in_flight(count: usize) -> io::Result<()> {
    use rustix::net::{AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType};
    use std::os::fd::AsFd;
    /// As many as one message may take.
    const IN_A_MESSAGE: usize = 253;
    let sent = std::fs::File::open("/dev/null")?;
    let sent = [sent.as_fd(); IN_A_MESSAGE];
    let mut sockets = Vec::new();
    for _ in 0..count.div_ceil(IN_A_MESSAGE) {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(IN_A_MESSAGE))];
        let mut message = SendAncillaryBuffer::new(&mut space);
        message.push(SendAncillaryMessage::ScmRights(&sent));
        rustix::net::sendmsg(&ours, &[io::IoSlice::new(b"x")], &mut message, SendFlags::NOSIGNAL)?;
        sockets.push((ours, theirs));
    }
    Ok(())
}

/// Sends ourselves so many signals that are held back.
pub fn queue_signals(count: usize) -> io::Result<()> {
    // SAFETY: the set lives through the call, and the signal is held back, so that no handler runs.
    unsafe {
        let mut held: libc::sigset_t = std::mem::zeroed();
        let signal = libc::SIGRTMIN();
        libc::sigaddset(&raw mut held, signal);
        checked(libc::sigprocmask(
            libc::SIG_BLOCK,
            &raw const held,
            std::ptr::null_mut(),
        ))?;
        let nothing = libc::sigval {
            sival_ptr: std::ptr::null_mut(),
        };
        for _ in 0..count {
            checked(libc::sigqueue(libc::getpid(), signal, nothing))?;
        }
    }
    Ok(())
}

/// A POSIX queue of this name, without the `/` in front.
pub fn posix_queue(name: &str, make: bool) -> io::Result<()> {
    let name = CString::new(name)?;
    let flags = if make {
        libc::O_RDWR | libc::O_CREAT
    } else {
        libc::O_RDWR
    };
    call(
        libc::SYS_mq_open,
        [name.as_ptr() as usize, flags as usize, 0o600, 0, 0, 0],
    )
    .map(close)
}

pub fn remove_posix_queue(name: &str) -> io::Result<()> {
    let name = CString::new(name)?;
    call(libc::SYS_mq_unlink, [name.as_ptr() as usize, 0, 0, 0, 0, 0]).map(drop)
}
