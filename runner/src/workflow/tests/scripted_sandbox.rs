//! A sandbox whose commands do what a test has written down; nothing is started.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::events::recording::Recording;
use plue_sandbox::{CommandEvent, CommandSpec, Ending, ExitStatus, Level, RunningCommand, Sandbox, StartError, Stream};

/// What a command does next.
enum Step {
    Writes(Stream, Bytes),
    /// The task is cancelled; the command goes on.
    Cancel,
    /// The command goes on when its own token fires.
    UntilCancelled,
    /// The command goes on when so many events were told.
    UntilTold(usize),
    Exits(ExitStatus),
}

/// A command as it is written down. One without an ending is lost.
pub struct ScriptedCommand {
    fails: Option<StartError>,
    /// The task is cancelled while the sandbox starts it.
    cancels_start: bool,
    steps: Vec<Step>,
}

/// A command that has done nothing yet.
pub fn command() -> ScriptedCommand {
    ScriptedCommand {
        fails: None,
        cancels_start: false,
        steps: Vec::new(),
    }
}

/// A command that cannot be started.
pub fn fails_to_start(error: StartError) -> ScriptedCommand {
    ScriptedCommand {
        fails: Some(error),
        ..command()
    }
}

impl ScriptedCommand {
    fn then(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    pub fn out(self, bytes: impl AsRef<[u8]>) -> Self {
        self.then(Step::Writes(Stream::Stdout, Bytes::copy_from_slice(bytes.as_ref())))
    }

    pub fn err(self, bytes: impl AsRef<[u8]>) -> Self {
        self.then(Step::Writes(Stream::Stderr, Bytes::copy_from_slice(bytes.as_ref())))
    }

    pub fn cancels(self) -> Self {
        self.then(Step::Cancel)
    }

    pub fn cancels_start(self) -> Self {
        Self {
            cancels_start: true,
            ..self
        }
    }

    pub fn until_cancelled(self) -> Self {
        self.then(Step::UntilCancelled)
    }

    pub fn until_told(self, events: usize) -> Self {
        self.then(Step::UntilTold(events))
    }

    pub fn ends(self, code: i32, ending: Ending) -> Self {
        self.then(Step::Exits(ExitStatus {
            code,
            signal: None,
            ending,
        }))
    }

    pub fn exits(self, code: i32) -> Self {
        self.ends(code, Ending::Exited)
    }
}

/// The sandbox. A command that is not written down is a panic.
pub struct ScriptedSandbox {
    commands: Mutex<VecDeque<ScriptedCommand>>,
    started: Mutex<Vec<CommandSpec>>,
    cancel: CancellationToken,
    recording: Recording,
}

impl ScriptedSandbox {
    /// `cancel` is the task's own token, and `recording` has what it tells.
    pub fn new(commands: Vec<ScriptedCommand>, cancel: &CancellationToken, recording: &Recording) -> Self {
        Self {
            commands: Mutex::new(commands.into()),
            started: Mutex::default(),
            cancel: cancel.clone(),
            recording: recording.clone(),
        }
    }

    /// How many commands were not started.
    pub fn left(&self) -> usize {
        self.commands.lock().unwrap().len()
    }

    /// What was asked for.
    pub fn started(&self) -> Vec<CommandSpec> {
        self.started.lock().unwrap().clone()
    }
}

impl Sandbox for ScriptedSandbox {
    fn level(&self) -> Level {
        Level::Weak
    }

    fn start(&self, spec: CommandSpec, cancel: CancellationToken) -> BoxFuture<'_, Result<RunningCommand, StartError>> {
        self.started.lock().unwrap().push(spec);
        let command = self.commands.lock().unwrap().pop_front();
        let command = command.expect("a command was started that is not written down");
        if command.cancels_start {
            self.cancel.cancel();
        }
        if let Some(error) = command.fails {
            return std::future::ready(Err(error)).boxed();
        }
        // As little room as there can be, so that the order of the two sides is the least comfortable one.
        let (sender, events) = mpsc::channel(1);
        let (task, recording, own) = (self.cancel.clone(), self.recording.clone(), cancel.clone());
        tokio::spawn(async move {
            for step in command.steps {
                let event = match step {
                    Step::Writes(stream, bytes) => CommandEvent::Output(stream, bytes),
                    Step::Exits(status) => CommandEvent::Exited(status),
                    Step::Cancel => {
                        task.cancel();
                        continue;
                    }
                    Step::UntilCancelled => {
                        own.cancelled().await;
                        continue;
                    }
                    Step::UntilTold(events) => {
                        while recording.told() < events {
                            tokio::time::sleep(Duration::from_micros(100)).await;
                        }
                        continue;
                    }
                };
                if sender.send(event).await.is_err() {
                    return;
                }
            }
        });
        std::future::ready(Ok(RunningCommand { events, cancel })).boxed()
    }
}
