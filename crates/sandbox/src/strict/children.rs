//! The children of a process of the sandbox: looked for, waited for, and killed.

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

/// A child that has exited, and was reaped.
pub(super) struct Exited {
    /// Its PID, which may be anybody's from now on.
    pub(super) pid: i32,
    /// The exit code, or 128 and the signal.
    pub(super) code: i32,
    /// The signal.
    pub(super) signal: Option<i32>,
}

/// What there is to know of our children.
pub(super) enum Children {
    /// This one was a zombie, and is no more.
    Exited(Exited),
    /// A signal has stopped this one.
    Stopped(i32),
    /// Some are left, and none of them has exited.
    Running,
    /// There is none.
    None,
}

/// Reaps one child that has exited, without waiting for any.
pub(super) fn reap() -> Children {
    look(WaitOptions::NOHANG)
}

/// The same, and looks for one that was stopped.
pub(super) fn reap_or_stopped() -> Children {
    look(WaitOptions::NOHANG | WaitOptions::UNTRACED)
}

fn look(options: WaitOptions) -> Children {
    match rustix::process::wait(options) {
        Ok(None) => Children::Running,
        Ok(Some((pid, status))) if status.stopped() => Children::Stopped(pid.as_raw_nonzero().get()),
        Ok(Some((pid, status))) => Children::Exited(Exited {
            pid: pid.as_raw_nonzero().get(),
            code: exit_code(status),
            signal: status.terminating_signal(),
        }),
        Err(_) => Children::None,
    }
}

/// Waits until this child exits, and reaps it; its exit code, or -1 when it is no child of ours.
pub(super) fn wait(pid: i32) -> i32 {
    loop {
        match rustix::process::waitpid(Pid::from_raw(pid), WaitOptions::empty()) {
            Ok(Some((_, status))) => return exit_code(status),
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return -1,
        }
    }
}

fn exit_code(status: WaitStatus) -> i32 {
    let killed = status.terminating_signal().map(|signal| 128 + signal);
    killed.or(status.exit_status()).unwrap_or(-1)
}

/// Sends a signal. A process that is gone already is no error.
pub(super) fn kill(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Sends a signal to all processes that we may send one, but for ourselves and the init of the PID namespace.
pub(super) fn kill_all(signal: Signal) {
    // kill(2) takes -1 for all of them, where -2 would be the group of process 2. There is no group of process 1 that
    // could be meant.
    let _ = rustix::process::kill_process_group(Pid::INIT, signal);
}
