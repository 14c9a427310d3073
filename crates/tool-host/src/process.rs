//! The host's side of `plue:tool/process`: one command in the sandbox, its output bounded, its live output shown.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use wasmtime::component::Resource;

use super::bindings::process::{self, Command, Event, StartError, Stream as WitStream};
use super::resources::{Output, RunningProcess};
use super::state::CallState;
use plue_sandbox::{self, CommandEvent, CommandSpec};

/// What of a request can be refused before the sandbox sees it.
fn check(command: &Command) -> Result<(), StartError> {
    let problem = match command.argv.first() {
        None => "the command is empty",
        Some(program) if program.is_empty() => "the program's name is empty",
        _ if command.argv.iter().any(|argument| argument.contains('\0')) => "an argument holds a NUL byte",
        _ if command.working_directory.contains('\0') => "the working directory holds a NUL byte",
        _ if command.timeout_ms == 0 => "the time limit is zero",
        _ => return Ok(()),
    };
    Err(StartError::Invalid(problem.to_owned()))
}

impl process::Host for CallState {
    async fn start(&mut self, command: Command) -> wasmtime::Result<Result<Resource<RunningProcess>, StartError>> {
        let Some(sandbox) = self.grants.sandbox.clone() else {
            return Ok(Err(StartError::Denied("commands cannot be started here".to_owned())));
        };
        if let Err(refused) = check(&command) {
            return Ok(Err(refused));
        }
        let directory = if command.working_directory.is_empty() {
            "."
        } else {
            &command.working_directory
        };
        let spec = CommandSpec {
            working_directory: PathBuf::from(directory),
            argv: command.argv,
            env: BTreeMap::new(),
            timeout: Duration::from_millis(command.timeout_ms),
        };
        let started = match sandbox.start(spec, self.grants.cancel.child_token()).await {
            Ok(started) => started,
            Err(error) => {
                return Ok(Err(match error {
                    plue_sandbox::StartError::Invalid(message) => StartError::Invalid(message),
                    plue_sandbox::StartError::NotFound(message) => StartError::NotFound(message),
                    plue_sandbox::StartError::Denied(message) => StartError::Denied(message),
                    plue_sandbox::StartError::Failed(message) => StartError::Failed(message),
                }));
            }
        };
        let (head, tail) = (self.limits.command_head, self.limits.command_tail);
        let running = RunningProcess {
            events: started.events,
            cancel: started.cancel,
            stdout: Output::new(WitStream::Stdout, head, tail),
            stderr: Output::new(WitStream::Stderr, head, tail),
            ready: VecDeque::new(),
            ended: None,
        };
        Ok(Ok(self.table.push(running)?))
    }
}

impl process::HostRunningCommand for CallState {
    async fn next(&mut self, command: Resource<RunningProcess>) -> wasmtime::Result<Event> {
        loop {
            let running = self.table.get_mut(&command)?;
            if let Some(event) = running.ready.pop_front() {
                return Ok(event);
            }
            if let Some(status) = running.ended {
                return Ok(Event::Exited(status));
            }
            let (event, text) = match running.events.recv().await {
                Some(CommandEvent::Output(stream, bytes)) => {
                    let output = running.output(stream);
                    let text = output.live.push(&bytes);
                    (output.take(bytes), text)
                }
                Some(CommandEvent::Note(note)) => {
                    self.note(&note);
                    continue;
                }
                Some(CommandEvent::Exited(status)) => {
                    let text = running.stdout.live.finish() + &running.stderr.live.finish();
                    running.finish(status);
                    (None, text)
                }
                None => {
                    return Err(wasmtime::Error::msg(
                        "the sandbox lost the command without saying how it ended",
                    ));
                }
            };
            if !text.is_empty() && self.take_live_output(text.len()) {
                (self.grants.live)(&text);
            }
            if let Some(event) = event {
                return Ok(event);
            }
        }
    }

    fn kill(&mut self, command: Resource<RunningProcess>) -> wasmtime::Result<()> {
        self.table.get(&command)?.cancel.cancel();
        Ok(())
    }

    fn drop(&mut self, command: Resource<RunningProcess>) -> wasmtime::Result<()> {
        let running = self.table.delete(command)?;
        running.cancel.cancel();
        Ok(())
    }
}
