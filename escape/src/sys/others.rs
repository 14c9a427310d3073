//! What can be done to another process.

use std::io;
use std::os::fd::AsRawFd;

use super::{call, checked, close};

pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    call(libc::SYS_kill, [pid as isize as usize, signal as usize, 0, 0, 0, 0]).map(drop)
}

pub fn tgkill(pid: i32, signal: i32) -> io::Result<()> {
    let pid = pid as usize;
    call(libc::SYS_tgkill, [pid, pid, signal as usize, 0, 0, 0]).map(drop)
}

/// With a sender that is made up.
pub fn sigqueue(pid: i32, signal: i32) -> io::Result<()> {
    // siginfo_t: the signal, no error, SI_QUEUE, and a process and a user that are nobody's.
    let mut info = [0_i32; 32];
    info[0] = signal;
    info[2] = -1;
    info[4] = 1;
    let address = info.as_ptr() as usize;
    call(
        libc::SYS_rt_sigqueueinfo,
        [pid as usize, signal as usize, address, 0, 0, 0],
    )
    .map(drop)
}

fn pidfd(pid: i32) -> io::Result<i64> {
    call(libc::SYS_pidfd_open, [pid as usize, 0, 0, 0, 0, 0])
}

pub fn pidfd_signal(pid: i32, signal: i32) -> io::Result<()> {
    let fd = pidfd(pid)?;
    let result = call(libc::SYS_pidfd_send_signal, [fd as usize, signal as usize, 0, 0, 0, 0]);
    close(fd);
    result.map(drop)
}

pub fn pidfd_getfd(pid: i32, fd: usize) -> io::Result<()> {
    let process = pidfd(pid)?;
    let result = call(libc::SYS_pidfd_getfd, [process as usize, fd, 0, 0, 0, 0]).map(close);
    close(process);
    result
}

/// Makes a pipe's events signals for another process.
pub fn signal_by_descriptor(pid: i32, signal: i32) -> io::Result<()> {
    let (reader, writer) = io::pipe()?;
    // SAFETY: the descriptor is open for as long as the calls go on.
    unsafe {
        let fd = reader.as_raw_fd();
        checked(libc::fcntl(fd, libc::F_SETOWN, pid))?;
        // F_SETSIG.
        checked(libc::fcntl(fd, 10, signal))?;
        checked(libc::fcntl(fd, libc::F_SETFL, libc::O_ASYNC | libc::O_NONBLOCK))?;
    }
    io::Write::write_all(&mut &writer, b"x")
}

/// Traces without stopping; the end of this process ends it.
pub fn ptrace_seize(pid: i32) -> io::Result<()> {
    call(
        libc::SYS_ptrace,
        [libc::PTRACE_SEIZE as usize, pid as usize, 0, 0, 0, 0],
    )
    .map(drop)
}

pub fn process_vm_readv(pid: i32, from: u64, into: &mut [u8]) -> io::Result<usize> {
    let local = [into.as_mut_ptr() as usize, into.len()];
    let remote = [from as usize, into.len()];
    let (local, remote) = (local.as_ptr() as usize, remote.as_ptr() as usize);
    let got = call(libc::SYS_process_vm_readv, [pid as usize, local, 1, remote, 1, 0])?;
    Ok(got as usize)
}

/// Writes a zero into another process. A wrong address is an error only for who may write at all.
pub fn process_vm_writev(pid: i32, at: u64) -> io::Result<()> {
    let byte = [0_u8];
    let local = [byte.as_ptr() as usize, 1];
    let remote = [at as usize, 1];
    let (local, remote) = (local.as_ptr() as usize, remote.as_ptr() as usize);
    match call(libc::SYS_process_vm_writev, [pid as usize, local, 1, remote, 1, 0]) {
        Err(error) if error.raw_os_error() != Some(libc::EFAULT) => Err(error),
        _ => Ok(()),
    }
}

/// Takes core dumps from another process.
pub fn lower_core_limit(pid: i32) -> io::Result<()> {
    let limit = [0_u64, 0];
    let core = libc::RLIMIT_CORE as usize;
    call(
        libc::SYS_prlimit64,
        [pid as usize, core, limit.as_ptr() as usize, 0, 0, 0],
    )
    .map(drop)
}

/// Gives another process the lowest priority.
pub fn be_nice(pid: i32) -> io::Result<()> {
    call(libc::SYS_setpriority, [0, pid as usize, 19, 0, 0, 0]).map(drop)
}

/// Opens a file in a way that all that is started from now on inherits the descriptor.
pub fn leave_open(path: &std::path::Path) -> io::Result<std::fs::File> {
    let file = std::fs::File::open(path)?;
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty())?;
    Ok(file)
}

/// Allows another process no descriptor more than it has. It may go on to wait for one of them.
pub fn forbid_descriptors(pid: i32) -> io::Result<()> {
    let limit = [1_u64, 1];
    let files = libc::RLIMIT_NOFILE as usize;
    call(
        libc::SYS_prlimit64,
        [pid as usize, files, limit.as_ptr() as usize, 0, 0, 0],
    )
    .map(drop)
}

/// Lets another process run only when nobody else wants to (SCHED_IDLE).
pub fn make_idle(pid: i32) -> io::Result<()> {
    let priority = 0_i32;
    let idle = libc::SCHED_IDLE as usize;
    call(
        libc::SYS_sched_setscheduler,
        [pid as usize, idle, &raw const priority as usize, 0, 0, 0],
    )
    .map(drop)
}

/// Lets another process run on the first processor alone.
pub fn bind_to_a_processor(pid: i32) -> io::Result<()> {
    let mut processors = [0_u64; 16];
    call(
        libc::SYS_sched_getaffinity,
        [
            pid as usize,
            size_of_val(&processors),
            processors.as_mut_ptr() as usize,
            0,
            0,
            0,
        ],
    )?;
    let first = processors.iter().position(|word| *word != 0).unwrap_or(0);
    let lowest = processors[first] & processors[first].wrapping_neg();
    processors = [0; 16];
    processors[first] = lowest;
    call(
        libc::SYS_sched_setaffinity,
        [
            pid as usize,
            size_of_val(&processors),
            processors.as_ptr() as usize,
            0,
            0,
            0,
        ],
    )
    .map(drop)
}
