//! Runs the steps of a workflow in order. The first that does not succeed ends it.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::events::{Event, EventSink, LogLevel, StepState, TaskErrorCode, millis};
use crate::failure::{Cancelled, Failure};
use crate::task::{Step, StepKind, WorkflowTask};
use crate::telemetry::Telemetry;
use plue_sandbox::{CommandEvent, CommandSpec, Ending, ExitStatus, Note, Sandbox, Stream};

pub(crate) mod lines;
mod memory;
mod output;
#[cfg(test)]
mod tests;

pub use lines::FLUSH_AFTER;
pub use memory::Memory;
use memory::{KILLED, KnownStep};
use output::Output;

/// How one step ended.
#[derive(Debug)]
struct Outcome {
    state: StepState,
    /// Why, when it did not succeed.
    reason: Option<String>,
    exit_code: Option<i32>,
    code: TaskErrorCode,
}

impl Outcome {
    const SUCCESS: Outcome = Outcome {
        state: StepState::Success,
        reason: None,
        exit_code: None,
        code: TaskErrorCode::StepFailed,
    };

    fn ended(state: StepState, reason: String, exit_code: Option<i32>, code: TaskErrorCode) -> Self {
        Outcome {
            state,
            reason: Some(reason),
            exit_code,
            code,
        }
    }

    /// How a command ended that might run so long.
    fn of_command(status: ExitStatus, limit: Duration) -> Self {
        let code = status.code;
        let ended = |state, reason: String, task_code| Outcome::ended(state, reason, Some(code), task_code);
        let by_itself = || match (status.signal_name(), status.signal) {
            (Some(name), Some(_)) => format!("the command was killed by {name} (exit code {code})"),
            (Some(name), None) => format!("the command ended with exit code {code}, as of a program killed by {name}"),
            (None, _) => format!("the command ended with exit code {code}"),
        };
        match status.ending {
            Ending::Exited if code == 0 => Outcome {
                exit_code: Some(0),
                ..Outcome::SUCCESS
            },
            Ending::Exited => ended(StepState::Failure, by_itself(), TaskErrorCode::StepFailed),
            Ending::TimedOut => {
                let reason = format!("the step ran longer than its {} s and was ended", limit.as_secs());
                ended(StepState::Failure, reason, TaskErrorCode::Timeout)
            }
            Ending::Cancelled => ended(
                StepState::Error,
                "the step was cancelled".into(),
                TaskErrorCode::Cancelled,
            ),
            Ending::Memory => ended(
                StepState::Failure,
                "the command used more memory than a command may (COMMAND_MEMORY)".into(),
                TaskErrorCode::StepFailed,
            ),
            Ending::Processes => ended(
                StepState::Failure,
                "the command had more processes than a command may (COMMAND_PROCESSES)".into(),
                TaskErrorCode::StepFailed,
            ),
        }
    }
}

/// One workflow on its way.
pub struct Workflow<'a> {
    pub task: &'a WorkflowTask,
    pub sandbox: &'a dyn Sandbox,
    pub events: &'a EventSink,
    pub telemetry: &'a Telemetry,
    pub cancel: &'a CancellationToken,
    /// How long a line without an end is kept back: [`FLUSH_AFTER`], where nobody tests it.
    pub flush_after: Duration,
    /// What is kept for a process that goes on with the task, and what an earlier one has kept.
    pub memory: &'a Memory,
}

impl Workflow<'_> {
    /// Runs it to its end, or to the first step that does not succeed.
    ///
    /// # Errors
    /// The step that failed, and why; or that the task was cancelled.
    pub async fn run(&self) -> Result<(), Failure> {
        let mut env = BTreeMap::new();
        let mut goes_on = self.memory.is_resumed();
        for (index, step) in self.task.steps.iter().enumerate() {
            if let Some(known) = self.memory.step(index) {
                self.go_through(index, step, known, &mut env)?;
                continue;
            }
            if std::mem::take(&mut goes_on) {
                self.goes_on(index);
            }
            if self.cancel.is_cancelled() {
                return Err(Cancelled.into());
            }
            self.memory.begins(index);
            self.events.push(Event::StepStart {
                step_name: step.name.clone(),
                step_index: index,
            });
            let started = Instant::now();
            let span = self.telemetry.step_span(index, &step.name);
            let outcome = span.within(self.run_step(index, step, &mut env)).await;
            span.exit_code(outcome.exit_code);
            if outcome.state != StepState::Success {
                span.fail(outcome.code.as_str());
            }
            drop(span);
            let duration_ms = millis(started.elapsed());
            self.memory.ends(index, &outcome, duration_ms);
            self.end_step(index, step, outcome, duration_ms, true)?;
        }
        Ok(())
    }

    /// Tells how a step has ended, unless that was told; one that did not succeed ends the task.
    fn end_step(
        &self,
        index: usize,
        step: &Step,
        outcome: Outcome,
        duration_ms: u64,
        untold: bool,
    ) -> Result<(), Failure> {
        let failed = outcome.state != StepState::Success;
        let message = outcome
            .reason
            .clone()
            .map(|reason| format!("step {index} ({}): {reason}", step.name));
        if untold {
            self.events.push(Event::StepEnd {
                step_name: step.name.clone(),
                step_index: index,
                step_state: outcome.state,
                output: outcome.reason,
                exit_code: outcome.exit_code,
                duration_ms,
            });
        }
        if failed {
            let message = message.unwrap_or_default();
            tracing::warn!(step_index = index, message, "a step failed");
            return Err(Failure {
                code: outcome.code,
                message,
            });
        }
        Ok(())
    }

    /// Goes through a step again that an earlier process of this runner has begun. Nothing is run: what it has ended is
    /// not made twice, and what it was killed in ends the task. Which variables it set counts for the steps after it.
    fn go_through(
        &self,
        index: usize,
        step: &Step,
        known: KnownStep,
        env: &mut BTreeMap<String, String>,
    ) -> Result<(), Failure> {
        let untold = self.memory.is_open(index);
        let (outcome, duration_ms) = match (known, &step.kind) {
            (KnownStep::Ended(outcome, duration_ms), _) => (outcome, duration_ms),
            // Nothing is run for these.
            (KnownStep::Begun, StepKind::Env(_) | StepKind::Checkout) => (Outcome::SUCCESS, 0),
            (KnownStep::Begun, StepKind::Run { .. }) => {
                let killed = Outcome::ended(StepState::Error, KILLED.into(), None, TaskErrorCode::StepFailed);
                self.goes_on(index);
                (killed, 0)
            }
        };
        if let StepKind::Env(variables) = &step.kind {
            env.extend(variables.clone());
        }
        self.end_step(index, step, outcome, duration_ms, untold)
    }

    /// Says that the runner was restarted, when it comes to this step.
    fn goes_on(&self, index: usize) {
        tracing::warn!(
            step_index = index,
            "the task goes on: an earlier process of this runner was killed"
        );
        self.events.push(Event::Log {
            level: LogLevel::Info,
            message: format!("the runner was restarted; the task goes on with step {index}"),
            step_index: None,
            partial: false,
        });
    }

    async fn run_step(&self, index: usize, step: &Step, env: &mut BTreeMap<String, String>) -> Outcome {
        match &step.kind {
            StepKind::Env(variables) => {
                env.extend(variables.clone());
                Outcome::SUCCESS
            }
            StepKind::Checkout => {
                let message = "The workspace holds the repository already; nothing is checked out.".into();
                self.events.push(Event::Log {
                    level: LogLevel::Info,
                    message,
                    step_index: Some(index),
                    partial: false,
                });
                Outcome::SUCCESS
            }
            StepKind::Run {
                script,
                env: own,
                working_directory,
                timeout,
            } => {
                let mut env = env.clone();
                env.extend(own.clone());
                let spec = CommandSpec {
                    argv: ["/bin/sh", "-e", "-c", script].map(str::to_owned).to_vec(),
                    working_directory: working_directory.into(),
                    env,
                    timeout: *timeout,
                };
                self.run_command(index, spec).await
            }
        }
    }

    async fn run_command(&self, index: usize, spec: CommandSpec) -> Outcome {
        let limit = spec.timeout;
        let mut command = match self.sandbox.start(spec, self.cancel.child_token()).await {
            Ok(command) => command,
            Err(error) => {
                let code = if self.cancel.is_cancelled() {
                    TaskErrorCode::Cancelled
                } else {
                    TaskErrorCode::StepFailed
                };
                return Outcome::ended(StepState::Error, error.to_string(), None, code);
            }
        };
        let (status, notes) = self.pass_on(index, &mut command.events).await;
        for note in notes.iter().filter(|note| matches!(note, Note::Left { .. })) {
            self.events.push(Event::Log {
                level: LogLevel::Info,
                message: note.to_string(),
                step_index: Some(index),
                partial: false,
            });
        }
        match status {
            Some(status) => {
                let mut outcome = Outcome::of_command(status, limit);
                if status.ending == Ending::Memory && notes.contains(&Note::TmpFull) {
                    outcome.reason = Some("the command was ended".to_owned());
                }
                if let Some(reason) = &mut outcome.reason {
                    for hint in notes.iter().filter(|note| !matches!(note, Note::Left { .. })) {
                        reason.push_str("; ");
                        reason.push_str(&hint.to_string());
                    }
                }
                outcome
            }
            None => {
                let reason = "the sandbox lost the command".into();
                Outcome::ended(StepState::Error, reason, None, TaskErrorCode::Sandbox)
            }
        }
    }

    /// Tells what a command writes, as it writes it, until it has ended; how, and what there is to know besides. No
    /// status: nobody knows how.
    async fn pass_on(
        &self,
        index: usize,
        output: &mut mpsc::Receiver<CommandEvent>,
    ) -> (Option<ExitStatus>, Vec<Note>) {
        let mut stdout = Output::new(index, LogLevel::Stdout, self.events);
        let mut stderr = Output::new(index, LogLevel::Stderr, self.events);
        let mut notes = Vec::new();
        // How much was taken since a line fell due.
        let mut looked_at = 0;
        let status = loop {
            let waits_since = [stdout.waits_since(), stderr.waits_since()].into_iter().flatten().min();
            let flush_at = waits_since.map(|since| since + self.flush_after);
            // In a flood something is always there; what was when the line fell due was looked at by then.
            let is_behind = looked_at > output.max_capacity();
            let event = tokio::select! {
                // What is there already comes first: where the runner itself was held up, the end of the line may be.
                biased;
                event = output.recv(), if !is_behind => event,
                // A line that is not finished is shown after a while: it may be a prompt or a progress bar.
                () = sleep_until(flush_at.unwrap_or_else(Instant::now)), if flush_at.is_some() || is_behind => {
                    stdout.flush_after(self.flush_after);
                    stderr.flush_after(self.flush_after);
                    looked_at = 0;
                    continue;
                }
            };
            match event {
                Some(CommandEvent::Output(Stream::Stdout, bytes)) => stdout.push(&bytes),
                Some(CommandEvent::Output(Stream::Stderr, bytes)) => stderr.push(&bytes),
                Some(CommandEvent::Note(note)) => notes.push(note),
                Some(CommandEvent::Exited(status)) => break Some(status),
                None => break None,
            }
            let is_due = flush_at.is_some_and(|at| at <= Instant::now());
            looked_at = if is_due { looked_at + 1 } else { 0 };
        };
        stdout.finish();
        stderr.finish();
        (status, notes)
    }
}
