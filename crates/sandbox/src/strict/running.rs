//! The runner's side of one command: the socket to its attendant, and the pipes of its output.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::pipe::PipeFlags;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::plan::Plan;
use super::wire::{self, CANCEL, End, Reply, Request};
use super::{identity, user};
use crate::output::{self, Outputs, QUEUED_CHUNKS};
use crate::request::{self, ENVIRONMENT};
use crate::{CommandEvent, CommandSpec, Ending, ExitStatus, Note, RunningCommand, StartError};

/// How much longer than its command an attendant may take. It counts on the same clock, and kills without asking.
const OVERTIME: Duration = Duration::from_secs(30);
/// How many attendants are kept for the next commands. There is one command at a time, unless a plugin starts more.
const MAX_IDLE: usize = 2;

/// An attendant that waits for a command: our end of the socket to it.
pub(super) struct Attendant {
    pub(super) control: UnixStream,
}

/// Attendants that have done with one command and wait for the next.
pub(super) type Idle = Arc<Mutex<Vec<Attendant>>>;

/// A command that was checked, in the bytes that its attendant gets.
pub(super) struct PreparedCommand {
    program: String,
    /// Where it is to run, as it was asked for.
    directory: PathBuf,
    message: Vec<u8>,
    /// After this time it has ended, or its attendant hangs.
    max_duration: Duration,
    /// The user of commands, when the runner is root.
    user: u32,
}

/// Why a command was not started.
pub(super) enum Refusal {
    /// What is wrong with the command.
    Start(StartError),
    /// The attendant was killed, and had not begun; another may be asked.
    NoAttendant,
}

impl PreparedCommand {
    /// In the sandbox that was made by this plan.
    pub(super) fn new(spec: CommandSpec, directory: PathBuf, plan: &Plan) -> Result<Self, StartError> {
        let mut env: BTreeMap<String, String> = ENVIRONMENT
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect();
        env.extend(identity::ENVIRONMENT.map(|(name, value)| (name.to_owned(), value.to_owned())));
        env.extend(plan.env.clone());
        env.extend(spec.env);
        let program = spec.argv.first().cloned().unwrap_or_default();
        let asked = spec.working_directory;
        let request = Request {
            argv: spec.argv,
            directory,
            env,
            timeout_ms: u64::try_from(spec.timeout.as_millis()).unwrap_or(u64::MAX).max(1),
        };
        let message = wire::encode(&request).map_err(|error| request::start_error(&program, &error))?;
        Ok(Self {
            program,
            directory: asked,
            message,
            max_duration: spec.timeout.saturating_add(plan.grace).saturating_add(OVERTIME),
            user: plan.user,
        })
    }

    /// Has an attendant start the command.
    pub(super) async fn give_to(&self, attendant: Attendant) -> Result<Started, Refusal> {
        let mut control = attendant.control;
        let failed = |error: io::Error| Refusal::Start(request::start_error(&self.program, &error));
        let (stdout, their_stdout) =
            rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
        let (stderr, their_stderr) =
            rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
        let descriptors = [their_stdout.as_fd(), their_stderr.as_fd()];
        for pipe in descriptors {
            user::hand_pipe_over(pipe, self.user).map_err(failed)?;
        }
        // Before anything is written: what is there already when they are looked at first has no order any more.
        let outputs = Outputs::new(stdout, stderr).map_err(failed)?;
        let mut has_begun = false;
        let asked = async {
            let send = || wire::send_descriptors(control.as_fd(), &self.message, &descriptors);
            let sent = control.async_io(Interest::WRITABLE, send).await?;
            control.write_all(&self.message[sent..]).await?;
            loop {
                match wire::receive_message::<Reply>(&mut control).await? {
                    Some(Reply::Starting) => has_begun = true,
                    reply => return Ok(reply),
                }
            }
        };
        let reply: io::Result<Option<Reply>> = asked.await;
        let hung_up = match &reply {
            Ok(reply) => matches!(reply, Some(Reply::Exited(_) | Reply::Starting) | None),
            Err(error) => matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset),
        };
        match reply {
            _ if hung_up && !has_begun => Err(Refusal::NoAttendant),
            Ok(Some(Reply::NotStarted(code))) => Err(failed(io::Error::from_raw_os_error(code))),
            Ok(Some(Reply::NoDirectory(code))) => {
                let error = io::Error::from_raw_os_error(code);
                Err(Refusal::Start(request::directory_error(&self.directory, &error)))
            }
            Err(error) if !hung_up => Err(failed(error)),
            // One whose attendant was killed as it started it may have run: it is not started a second time. Its output
            // is in the pipes, and who waits for its end finds that there is nobody to tell of it.
            Ok(_) | Err(_) => Ok(Started { control, outputs }),
        }
    }
}

/// A command that runs: our ends of its sockets and pipes.
pub(super) struct Started {
    control: UnixStream,
    outputs: Outputs,
}

impl Started {
    /// Passes on the command's output until its end, and puts its attendant back to the idle ones.
    pub(super) fn forward_until_exit(
        self,
        prepared: PreparedCommand,
        cancel: CancellationToken,
        stopped: CancellationToken,
        idle: Idle,
    ) -> RunningCommand {
        let (sender, events) = mpsc::channel(QUEUED_CHUNKS);
        // The task ends by itself: with the command, or when the receiver (the `RunningCommand`) is gone.
        tokio::spawn(forward_until_exit(
            self,
            prepared,
            sender,
            cancel.clone(),
            stopped,
            idle,
        ));
        RunningCommand { events, cancel }
    }
}

/// Passes a command's output on until nothing of it is left, and says how it ended.
async fn forward_until_exit(
    started: Started,
    prepared: PreparedCommand,
    events: mpsc::Sender<CommandEvent>,
    cancel: CancellationToken,
    stopped: CancellationToken,
    idle: Idle,
) {
    let Started { mut control, outputs } = started;
    let PreparedCommand {
        program, max_duration, ..
    } = prepared;
    let mut output = std::pin::pin!(outputs.forward(&events));
    // Whether a pipe is still open; a command may close both and go on.
    let mut open = true;
    let mut told_to_cancel = false;
    let reply = {
        let (mut replies, mut requests) = control.split();
        let mut ended = std::pin::pin!(timeout(max_duration, wire::receive_message::<Reply>(&mut replies)));
        let mut unwanted = std::pin::pin!(async {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = events.closed() => {}
            }
        });
        loop {
            tokio::select! {
                reply = &mut ended => break reply,
                () = &mut output, if open => open = false,
                () = &mut unwanted, if !told_to_cancel => {
                    told_to_cancel = true;
                    // An attendant that does not listen any more has something to say.
                    let _ = requests.write_all(&[CANCEL]).await;
                }
            }
        }
    };
    let mut notes = Vec::new();
    let status = match reply {
        Ok(Ok(Some(Reply::Exited(end)))) => {
            // One that was told to cancel might take that for the start of its next command.
            let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
            if !told_to_cancel && idle.len() < MAX_IDLE {
                idle.push(Attendant { control });
            }
            let End {
                code,
                signal,
                ending,
                left,
                names,
                sought_network,
                tmp_full,
            } = end;
            notes.extend((left > 0).then_some(Note::Left { count: left, names }));
            notes.extend(sought_network.then_some(Note::SoughtNetwork));
            notes.extend(tmp_full.then_some(Note::TmpFull));
            ExitStatus { code, signal, ending }
        }
        _ if stopped.is_cancelled() || cancel.is_cancelled() => ExitStatus::CANCELLED,
        Ok(_) => {
            tracing::warn!(
                program,
                "the attendant of a command was killed or stopped, by the command itself for all we know; everything \
                 of the command was ended with it"
            );
            ExitStatus::KILLED
        }
        Err(_) => {
            tracing::error!(program, "the attendant of a command does not answer");
            ExitStatus {
                ending: Ending::TimedOut,
                ..ExitStatus::KILLED
            }
        }
    };
    if open {
        output::drain(output, &events).await;
    }
    for note in notes {
        let _ = events.send(CommandEvent::Note(note)).await;
    }
    let _ = events.send(CommandEvent::Exited(status)).await;
}
