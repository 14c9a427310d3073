//! How the process exits.

use std::process::ExitCode;

/// The exit codes of the protocol (§1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The task succeeded.
    Success,
    /// The task ran and failed.
    Failed,
    /// The configuration or the task was invalid; nothing was run.
    Invalid,
    /// The task's result could not be delivered.
    Undelivered,
    /// Cancelled by SIGINT.
    Interrupted,
    /// Cancelled by SIGTERM.
    Terminated,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Exit::Success => 0,
            Exit::Failed => 1,
            Exit::Invalid => 2,
            Exit::Undelivered => 3,
            Exit::Interrupted => 130,
            Exit::Terminated => 143,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}
