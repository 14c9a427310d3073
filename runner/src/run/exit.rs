//! How the process exits.

use std::process::ExitCode;

macro_rules! exits {
    ($($(#[doc = $about:literal])* $exit:ident = $code:literal, $meaning:literal;)*) => {
        /// The exit codes (protocol, §6).
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Exit {
            $($(#[doc = $about])* $exit,)*
        }

        impl Exit {
            /// Every one, in the order of the documents.
            pub const ALL: &[Exit] = &[$(Exit::$exit,)*];

            /// What it means, for the table in `docs/reference/codes.md`.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Exit::$exit => $meaning,)*
                }
            }

            /// The number.
            pub fn code(self) -> u8 {
                match self {
                    $(Exit::$exit => $code,)*
                }
            }
        }
    };
}

exits! {
    /// The task succeeded.
    Success = 0, "the task succeeded; standby: the runner was drained, or `STANDBY_MAX_TASKS` are done";
    /// The task ran and failed.
    Failed = 1, "the task ran and failed; standby: what a task left could not be removed";
    /// The configuration or the task was invalid; nothing was run.
    Invalid = 2, "the configuration or the task was invalid, or a layer of the sandbox is missing; nothing was run";
    /// The server does not have all of the task's events.
    Undelivered = 3, "an event was lost: the task's ending, or one before it (cut log lines are none of them); \
        standby: of any task";
    /// Cancelled by SIGINT.
    Interrupted = 130, "cancelled by SIGINT";
    /// Cancelled by SIGTERM.
    Terminated = 143, "cancelled by SIGTERM";
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}
