//! Getting a thread out of a system call. A component that opens a FIFO nobody writes blocks its thread in the kernel,
//! where neither the epoch nor a dropped future reaches; a signal whose handler does nothing makes the call fail with
//! EINTR, the component runs on, and its deadline ends it.

use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::thread::{Pid, gettid};

/// Ignored by default, and used by nothing else in this process: the Go runtime uses it for the same purpose.
const SIGNAL: libc::c_int = libc::SIGURG;

/// A thread that runs a call, as long as it does.
#[derive(Default)]
pub(crate) struct Interruptible {
    thread: Mutex<Option<Pid>>,
}

/// The current thread can be interrupted until this is dropped.
pub(crate) struct Entered<'a>(&'a Interruptible);

impl Interruptible {
    /// Called by the thread itself.
    pub(crate) fn enter(&self) -> Entered<'_> {
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(gettid());
        Entered(self)
    }

    /// Interrupts the system call that the thread is in. One that is about to begin is missed: ask again.
    pub(crate) fn interrupt(&self) {
        // The lock is held while the signal is sent, so that the thread cannot have gone on to something else.
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = *thread
            && handler_is_set()
        {
            let process = rustix::process::getpid().as_raw_nonzero().get();
            // SAFETY: tgkill takes three integers; the handler of the signal does nothing.
            #[allow(unsafe_code)]
            unsafe {
                libc::syscall(libc::SYS_tgkill, process, thread.as_raw_nonzero().get(), SIGNAL);
            }
        }
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        *self.0.thread.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

extern "C" fn do_nothing(_signal: libc::c_int) {}

/// Sets the handler, once. Without SA_RESTART: the kernel must not begin the call again.
fn handler_is_set() -> bool {
    static SET: OnceLock<bool> = OnceLock::new();
    *SET.get_or_init(|| {
        // SAFETY: an all-zero sigaction is a valid value (no flags, an empty mask), the handler is a function that
        // lives as long as the program and touches nothing, and the old action is not asked for.
        #[allow(unsafe_code)]
        let result = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = do_nothing as *const () as libc::sighandler_t;
            libc::sigaction(SIGNAL, &action, std::ptr::null_mut())
        };
        result == 0
    })
}
