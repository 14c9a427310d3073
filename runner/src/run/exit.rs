//! How the process exits.

use std::process::ExitCode;

/// The exit codes (protocol, §6).
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
    /// Every one, in the order of the documents.
    pub const ALL: [Exit; 6] = [
        Exit::Success,
        Exit::Failed,
        Exit::Invalid,
        Exit::Undelivered,
        Exit::Interrupted,
        Exit::Terminated,
    ];

    /// What it means, for the table in `docs/reference/codes.md`.
    pub fn meaning(self) -> &'static str {
        match self {
            Exit::Success => "the task succeeded; standby: the runner was drained, or `STANDBY_MAX_TASKS` are done",
            Exit::Failed => "the task ran and failed; standby: what a task left could not be removed",
            Exit::Invalid => {
                "the configuration or the task was invalid, or a layer of the sandbox is missing; nothing was run"
            }
            Exit::Undelivered => "the task's ending could not be delivered; standby: that of any task",
            Exit::Interrupted => "cancelled by SIGINT",
            Exit::Terminated => "cancelled by SIGTERM",
        }
    }

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
