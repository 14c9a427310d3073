//! Runs the steps of a workflow in order. The first that does not succeed ends it.

use std::collections::BTreeMap;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use crate::events::{Event, EventSink, LogLevel, StepState, TaskErrorCode, millis};
use crate::failure::{Cancelled, Failure};
use crate::task::{Step, StepKind, WorkflowTask};
use crate::telemetry;
use plue_sandbox::{CommandEvent, CommandSpec, Ending, Sandbox, Stream};

mod lines;

use lines::{FLUSH_AFTER, Line, LineSplitter};

/// How one step ended.
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
}

/// Runs a workflow to its end, or to the first step that does not succeed.
///
/// # Errors
/// The step that failed, and why; or that the task was cancelled.
pub async fn run(
    task: &WorkflowTask,
    sandbox: &dyn Sandbox,
    events: &EventSink,
    cancel: &CancellationToken,
) -> Result<(), Failure> {
    let mut env = BTreeMap::new();
    for (index, step) in task.steps.iter().enumerate() {
        if cancel.is_cancelled() {
            return Err(Cancelled.into());
        }
        events.push(Event::StepStart {
            step_name: step.name.clone(),
            step_index: index,
        });
        let started = Instant::now();
        let span = telemetry::step_span(index, &step.name);
        let outcome = span
            .within(run_step(index, step, &mut env, sandbox, events, cancel))
            .await;
        let failed = outcome.state != StepState::Success;
        span.exit_code(outcome.exit_code);
        if failed {
            span.fail(outcome.code.as_str());
        }
        drop(span);
        let message = outcome
            .reason
            .clone()
            .map(|reason| format!("step {index} ({}): {reason}", step.name));
        events.push(Event::StepEnd {
            step_name: step.name.clone(),
            step_index: index,
            step_state: outcome.state,
            output: outcome.reason,
            exit_code: outcome.exit_code,
            duration_ms: millis(started.elapsed()),
        });
        if failed {
            let message = message.unwrap_or_default();
            tracing::warn!(step_index = index, message, "a step failed");
            return Err(Failure {
                code: outcome.code,
                message,
            });
        }
    }
    Ok(())
}

async fn run_step(
    index: usize,
    step: &Step,
    env: &mut BTreeMap<String, String>,
    sandbox: &dyn Sandbox,
    events: &EventSink,
    cancel: &CancellationToken,
) -> Outcome {
    match &step.kind {
        StepKind::Env(variables) => {
            env.extend(variables.clone());
            Outcome::SUCCESS
        }
        StepKind::Checkout => {
            let message = "The workspace holds the repository already; nothing is checked out.".into();
            events.push(Event::Log {
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
            run_command(index, spec, sandbox, events, cancel).await
        }
    }
}

async fn run_command(
    index: usize,
    spec: CommandSpec,
    sandbox: &dyn Sandbox,
    events: &EventSink,
    cancel: &CancellationToken,
) -> Outcome {
    let limit = spec.timeout;
    let mut command = match sandbox.start(spec, cancel.child_token()).await {
        Ok(command) => command,
        Err(error) => {
            let code = if cancel.is_cancelled() {
                TaskErrorCode::Cancelled
            } else {
                TaskErrorCode::StepFailed
            };
            return Outcome::ended(StepState::Error, error.to_string(), None, code);
        }
    };
    let mut stdout = LineSplitter::new();
    let mut stderr = LineSplitter::new();
    // Before the bytes are lines: a secret may go over several.
    let redactor = plue_redaction::current();
    let mut plain_stdout = redactor.stream();
    let mut plain_stderr = redactor.stream();
    let mut flush_at = None;
    let status = loop {
        if stdout.is_empty() && stderr.is_empty() {
            flush_at = None;
        }
        let flush_deadline = *flush_at.get_or_insert_with(|| tokio::time::Instant::now() + FLUSH_AFTER);
        let event = tokio::select! {
            event = command.events.recv() => event,
            // A line that is not finished is shown after a while: it may be a prompt or a progress bar.
            () = tokio::time::sleep_until(flush_deadline), if !stdout.is_empty() || !stderr.is_empty() => {
                send(index, LogLevel::Stdout, stdout.flush(), events);
                send(index, LogLevel::Stderr, stderr.flush(), events);
                flush_at = None;
                continue;
            }
        };
        match event {
            Some(CommandEvent::Output(Stream::Stdout, bytes)) => {
                send(index, LogLevel::Stdout, stdout.push(&plain_stdout.push(&bytes)), events);
            }
            Some(CommandEvent::Output(Stream::Stderr, bytes)) => {
                send(index, LogLevel::Stderr, stderr.push(&plain_stderr.push(&bytes)), events);
            }
            Some(CommandEvent::Exited(status)) => break status,
            None => {
                let reason = "the sandbox lost the command".into();
                return Outcome::ended(StepState::Error, reason, None, TaskErrorCode::Sandbox);
            }
        }
    };
    send(index, LogLevel::Stdout, stdout.push(&plain_stdout.finish()), events);
    send(index, LogLevel::Stderr, stderr.push(&plain_stderr.finish()), events);
    send(index, LogLevel::Stdout, stdout.finish(), events);
    send(index, LogLevel::Stderr, stderr.finish(), events);
    let code = status.code;
    let ended = |state, reason: String, task_code| Outcome::ended(state, reason, Some(code), task_code);
    match status.ending {
        Ending::Exited if code == 0 => Outcome {
            exit_code: Some(0),
            ..Outcome::SUCCESS
        },
        Ending::Exited => ended(
            StepState::Failure,
            format!("the command ended with exit code {code}"),
            TaskErrorCode::StepFailed,
        ),
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

fn send(index: usize, level: LogLevel, lines: impl IntoIterator<Item = Line>, events: &EventSink) {
    events.push_all(lines.into_iter().map(|Line { text, partial }| Event::Log {
        level,
        message: text,
        step_index: Some(index),
        partial,
    }));
}
