#![doc = include_str!("../README.md")]
#![deny(missing_docs)]

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub mod mutation;
mod output;
pub mod proc;
mod remove_folder;
mod request;
pub use request::MAX_STRING;
pub mod strict;
pub mod weak;
mod with_all;

/// How far commands are confined. Said in every terminal event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// Namespaces of their own, the image read-only, no privileges, no network, bounded memory and processes.
    #[default]
    Strict,
    /// Clean environment, own session, bounded time; no isolation of files, processes or network.
    Weak,
}

impl Level {
    /// The word used in events.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Strict => "strict",
            Level::Weak => "weak",
        }
    }
}

/// One command to run.
#[derive(Clone, Debug)]
pub struct CommandSpec {
    /// The program and its arguments; the program is an absolute path or a name on the sandbox's PATH.
    pub argv: Vec<String>,
    /// Where it runs, relative to the workspace; absolute paths under the workspace are taken too.
    pub working_directory: PathBuf,
    /// What the task adds to the clean environment.
    pub env: BTreeMap<String, String>,
    /// How long it may run before everything that it started is ended. More than zero.
    pub timeout: Duration,
}

/// Which of a command's two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Its standard output.
    Stdout,
    /// Its standard error.
    Stderr,
}

/// Why a command is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// By itself, or by a signal that we did not send.
    Exited,
    /// Longer than its time limit.
    TimedOut,
    /// Its cancellation token fired.
    Cancelled,
    /// Over the memory that a command may use.
    Memory,
    /// Over the processes that a command may have.
    Processes,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitStatus {
    /// The exit code, or 128 + n when signal n ended it.
    pub code: i32,
    /// The signal that ended the program itself.
    pub signal: Option<i32>,
    /// Why it is over.
    pub ending: Ending,
}

/// What is to be known of a command besides its output and its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// So many processes that it had started still ran at its end, and were ended.
    Left {
        /// How many.
        count: u64,
        /// The names of the first of them, each once.
        names: Vec<String>,
    },
    /// It has tried to reach a network that is not there.
    SoughtNetwork,
    /// Its temporary folders have no room left.
    TmpFull,
}

impl ExitStatus {
    /// Of a command that was cancelled, and of whose end nothing more is known.
    const CANCELLED: Self = Self {
        ending: Ending::Cancelled,
        ..Self::KILLED
    };
    /// Of a command that was ended with the process that kept it.
    const KILLED: Self = Self {
        code: 137,
        signal: Some(libc::SIGKILL),
        ending: Ending::Exited,
    };

    /// One that ended by itself with this code.
    pub fn exited(code: i32) -> Self {
        Self {
            code,
            signal: None,
            ending: Ending::Exited,
        }
    }

    /// The name of the signal that ended a program, `SIGKILL` for instance: the one that was started or, by the code
    /// that a shell then gives, the last that it ran.
    pub fn signal_name(self) -> Option<&'static str> {
        /// Programs give codes of their own that are above 128, and few of these.
        const BY_CODE: [i32; 9] = [
            libc::SIGILL,
            libc::SIGABRT,
            libc::SIGBUS,
            libc::SIGFPE,
            libc::SIGKILL,
            libc::SIGSEGV,
            libc::SIGPIPE,
            libc::SIGTERM,
            libc::SIGXFSZ,
        ];
        let by_code = Some(self.code - 128).filter(|signal| BY_CODE.contains(signal));
        signal_name(self.signal.or(by_code)?)
    }
}

fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGUSR1 => "SIGUSR1",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGUSR2 => "SIGUSR2",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGALRM => "SIGALRM",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGXFSZ => "SIGXFSZ",
        libc::SIGSYS => "SIGSYS",
        _ => return None,
    })
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::Left { count, names } => {
                let (processes, were) = if *count == 1 {
                    ("process", "was")
                } else {
                    ("processes", "were")
                };
                write!(f, "{count} {processes} that the command left running {were} ended: ")?;
                f.write_str(&names.join(", "))?;
                let more = if *count > names.len() as u64 { " and more" } else { "" };
                f.write_str(if names.is_empty() { "their names are gone" } else { more })
            }
            Note::SoughtNetwork => f.write_str(
                "the sandbox has no network: what a command would fetch has to be there before, unless the operator \
                 opens the pod's network with COMMAND_NETWORK=pod",
            ),
            Note::TmpFull => f.write_str(
                "/tmp, where HOME is too, has as much in it as a task's commands may keep there (COMMAND_TMP_SIZE)",
            ),
        }
    }
}

/// What happens while a command runs. `Exited` comes exactly once, last.
#[derive(Clone, Debug)]
pub enum CommandEvent {
    /// It has written this, one byte at least. The pieces are as the pipe gave them, and may cut a character.
    Output(Stream, Bytes),
    /// What is to be known besides. After the output, if at all.
    Note(Note),
    /// It is over, and nothing that it started is left.
    Exited(ExitStatus),
}

/// Why a command could not be started. The messages speak of the workspace only.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StartError {
    /// The command itself is wrong: empty, with a NUL character, too long, or without time.
    #[error("{0}")]
    Invalid(String),
    /// The program, or the folder to run in, does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The program may not be executed, or the folder is outside of the workspace or closed.
    #[error("{0}")]
    Denied(String),
    /// All else: the sandbox is shut down or lost, the system is out of processes, or it was cancelled first.
    #[error("{0}")]
    Failed(String),
}

/// A command that was started. Dropping it ends everything that it started.
pub struct RunningCommand {
    /// What happens, until [`CommandEvent::Exited`]. Bounded: a reader that is slow slows the command, nothing is lost.
    pub events: mpsc::Receiver<CommandEvent>,
    /// Ends the command: SIGTERM, the sandbox's grace, SIGKILL.
    pub cancel: CancellationToken,
}

impl RunningCommand {
    /// One that was cancelled while it was being started.
    fn cancelled(cancel: CancellationToken) -> Self {
        let (sender, events) = mpsc::channel(1);
        // The channel has room for it, and its other end is here.
        let _ = sender.try_send(CommandEvent::Exited(ExitStatus::CANCELLED));
        Self { events, cancel }
    }
}

/// The one way to start a command.
pub trait Sandbox: Send + Sync {
    /// How far commands are confined here.
    fn level(&self) -> Level;

    /// How long a command that is to end may still take: between SIGTERM and SIGKILL.
    fn grace(&self) -> Duration {
        Duration::ZERO
    }

    /// Starts a command. It is over when `Exited` was received; it is ended when `cancel` (or a token it is a child
    /// of) fires, when its time is over, or when the [`RunningCommand`] is dropped.
    ///
    /// # Errors
    /// When it was not started; no event comes then.
    fn start(&self, spec: CommandSpec, cancel: CancellationToken) -> BoxFuture<'_, Result<RunningCommand, StartError>>;

    /// Ends every command that still runs, at once, and waits until nothing of them is left. For the end of a task, or
    /// of the runner, that could not wait for its commands.
    fn shut_down(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}
