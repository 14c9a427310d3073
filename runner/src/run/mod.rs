//! One task from its document to its one ending: read, prepare, run, tell, deliver.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use serde_json::value::RawValue;

use crate::agent::{self, Agent, TaskUsage};
use crate::config::{Config, Identity, TaskSource};
use crate::events::callback::Wishes;
use crate::events::{Event, EventQueue, EventSink, LogLevel, SpoolConfig, Summary, TaskErrorCode, TaskId, millis};
use crate::failure::{Cancelled, Failure};
use crate::task::{AgentTask, Document, Task, WorkflowTask};
use crate::telemetry::Telemetry;
use crate::workflow::{FLUSH_AFTER, Workflow};
use plue_sandbox::Level;

mod delivery;
mod exit;
mod kept;
mod no_commands;
mod prepare;
mod process;
mod settings;
mod stop;

pub use delivery::{Delivered, Delivery, Patience, Unanswered, repeat_ending};
pub use exit::Exit;
use kept::{Kept, NotKept};
pub use prepare::{Ready, Refused, plugin_dir, runners_own};
pub use process::Process;
pub use settings::check_settings;
pub use stop::{Signals, Stop, StopReason};

use prepare::Prepared;

/// How long a cancelled task may take to put its things away, once its commands have ended.
const PUTTING_AWAY: Duration = Duration::from_secs(3);

/// How long a cancelled task may take before it is left behind: its commands have their grace and, with a short
/// `SHUTDOWN_GRACE`, all of it at most half of that, so that time is left for the ending to arrive.
fn cancel_grace(config: &Config) -> Duration {
    (config.commands.grace + PUTTING_AWAY).min(config.shutdown_grace / 2)
}

/// How the task ended, before anybody was told.
enum Ending {
    /// What the task came to, when it was an agent's.
    Success(Option<Box<RawValue>>),
    Failed(Failure),
    /// Nothing was run: the task, a plugin or the environment are at fault.
    Refused(Failure),
}

/// Runs the one task of an active runner, and answers how the process is to exit.
pub async fn active(config: Arc<Config>, identity: &Identity, task: &TaskSource, process: &Process) -> Exit {
    let stop = process.signals.stop();
    let document = prepare::read_document(task.clone());
    let Some(folder) = &config.state_dir else {
        return run_task(&config, identity, document, None, &stop, process).await;
    };
    let document = tokio::select! {
        document = document => document,
        // As for a task that is not kept: its ending says so.
        () = stop.token().cancelled() => {
            let document = std::future::pending();
            return run_task(&config, identity, document, None, &stop, process).await;
        }
    };
    let digest = document.as_ref().map(Document::digest).unwrap_or_default();
    match Kept::open(folder, &identity.task_id.to_string(), digest) {
        Ok(kept) => run_task(&config, identity, async { document }, Some(kept), &stop, process).await,
        Err(NotKept::Refused(failure)) => report_refusal(identity, failure, config.sandbox, process).await,
        Err(NotKept::HadByAnother(error)) => {
            tracing::error!(critical = true, error = %error, "the task is not run, and the API server hears nothing");
            Exit::Invalid
        }
    }
}

/// Runs the task, goes on with it, or only tells its ending, as what is kept of it says.
async fn run_task(
    config: &Config,
    identity: &Identity,
    document: impl Future<Output = Result<Document, Refused>>,
    mut kept: Option<Kept>,
    stop: &Stop,
    process: &Process,
) -> Exit {
    let ended = kept.as_ref().and_then(Kept::ended);
    if let (Some((exit, true)), Some(kept)) = (ended, &kept) {
        tracing::info!("an earlier process of this runner has ended the task, and its ending has arrived");
        kept.remove();
        return exit;
    }
    let events = match &mut kept {
        Some(kept) => kept.queue(config.spool.clone()),
        None => EventQueue::new(config.spool.clone()),
    };
    let wishes = Wishes {
        batches: config.batches,
        alive: config.extra_events,
    };
    let delivery = match start_delivery(identity, wishes, &events, stop, process, kept.as_ref()) {
        Ok(delivery) => delivery,
        Err(exit) => return exit,
    };
    if let Some((exit, _)) = ended {
        tracing::warn!("an earlier process of this runner was killed while it told how the task had ended");
        return finish(delivery, stop, Patience::of(config), exit, kept.as_ref()).await;
    }
    let sink = EventSink::queue(&events, process.redactor);
    if let Some(note) = kept.as_ref().and_then(Kept::begins_anew) {
        sink.push(note);
    }
    let work = Work {
        config,
        task_id: &identity.task_id,
        events: &sink,
        telemetry: &process.telemetry,
        stop,
        kept: kept.as_ref(),
    };
    let (ending, exit) = work.perform(document, Ready::default()).await;
    if let Some(kept) = &kept {
        kept.ends(exit);
    }
    sink.push(ending);
    finish(delivery, stop, Patience::of(config), exit, kept.as_ref()).await
}

/// Tells the callback that nothing could be run, and answers how the process is to exit.
pub async fn report_refusal(identity: &Identity, failure: Failure, sandbox: Level, process: &Process) -> Exit {
    let stop = process.signals.stop();
    let events = EventQueue::new(SpoolConfig::default());
    let delivery = match start_delivery(identity, Wishes::default(), &events, &stop, process, None) {
        Ok(delivery) => delivery,
        Err(exit) => return exit,
    };
    let (ending, exit) = terminal(Ending::Refused(failure), &stop, None, Instant::now(), sandbox);
    EventSink::queue(&events, process.redactor).push(ending);
    finish(delivery, &stop, Patience::WITHOUT_CONFIGURATION, exit, None).await
}

fn start_delivery(
    identity: &Identity,
    wishes: Wishes,
    events: &EventQueue,
    stop: &Stop,
    process: &Process,
    kept: Option<&Kept>,
) -> Result<Delivery, Exit> {
    let (progress, unanswered) = (kept.map(Kept::progress), kept.and_then(Kept::unanswered));
    Delivery::start(identity, wishes, events, stop, &process.telemetry, progress, unanswered).map_err(|error| {
        tracing::error!(critical = true, error = %error, "events cannot be sent");
        Exit::Invalid
    })
}

/// Waits for the delivery; what did not arrive outweighs how the task went: whoever watches does not know all of it.
async fn finish(delivery: Delivery, stop: &Stop, patience: Patience, exit: Exit, kept: Option<&Kept>) -> Exit {
    let delivered = delivery.finish(stop, patience).await;
    // Without its ending, a process that is started again tells it.
    if let Some(kept) = kept.filter(|_| delivered.ending) {
        kept.remove();
    }
    if delivered.all() {
        return exit;
    }
    // After a signal its own code says more: whoever sent it knows that it did not wait.
    if stop.must_exit_now() {
        stop.reason().map_or(Exit::Undelivered, StopReason::exit)
    } else {
        Exit::Undelivered
    }
}

/// One task, and what it is run with.
#[derive(Clone, Copy)]
pub struct Work<'a> {
    pub config: &'a Config,
    pub task_id: &'a TaskId,
    pub events: &'a EventSink,
    pub telemetry: &'a Telemetry,
    pub stop: &'a Stop,
    /// What is kept of it.
    kept: Option<&'a Kept>,
}

impl<'a> Work<'a> {
    /// A task of which nothing is kept.
    pub fn new(
        config: &'a Config,
        task_id: &'a TaskId,
        events: &'a EventSink,
        telemetry: &'a Telemetry,
        stop: &'a Stop,
    ) -> Self {
        Self {
            config,
            task_id,
            events,
            telemetry,
            stop,
            kept: None,
        }
    }
}

impl Work<'_> {
    /// Runs the task, whatever happens in it, to the event that ends it; and says how a process exits that ran nothing
    /// else.
    pub async fn perform(
        self,
        document: impl Future<Output = Result<Document, Refused>>,
        ready: Ready,
    ) -> (Event, Exit) {
        let started = Instant::now();
        let started = self
            .kept
            .and_then(|kept| started.checked_sub(kept.age()))
            .unwrap_or(started);
        let mut spent = None;
        let request_id = self.config.api.request_id.as_deref();
        let span = self.telemetry.task_span(&self.task_id.to_string(), request_id);
        let ending = AssertUnwindSafe(span.within(self.execute(document, ready, &mut spent)))
            .catch_unwind()
            .await;
        let ending = ending.unwrap_or_else(|_| {
            // The panic hook has logged where.
            let message = "the runner has a fault: the task was ended by a panic; its log says where".into();
            Ending::Failed(Failure {
                code: TaskErrorCode::Internal,
                message,
            })
        });
        let (event, exit) = terminal(ending, self.stop, spent, started, self.config.sandbox);
        span.end(match &event {
            Event::Error { code, .. } => Some(code.as_str()),
            _ => None,
        });
        (event, exit)
    }

    async fn execute(
        self,
        document: impl Future<Output = Result<Document, Refused>>,
        ready: Ready,
        spent: &mut Option<TaskUsage>,
    ) -> Ending {
        let preparing = async { prepare::prepare(self.config, self.telemetry, document.await?, ready).await };
        let prepared = tokio::select! {
            prepared = preparing => prepared,
            // A task that never comes over standard input must not keep the runner from ending.
            () = self.stop.token().cancelled() => return Ending::Failed(Cancelled.into()),
        };
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(Refused(failure)) => return Ending::Refused(failure),
        };
        let timeout = match &prepared.task {
            Task::Agent(task) => task.timeout,
            Task::Workflow(task) => task.timeout,
        };
        let timeout = timeout.or(self.config.task_timeout);
        let deadline = timeout.map(|timeout| match self.kept {
            Some(kept) => (kept.deadline(timeout), timeout),
            None => (tokio::time::Instant::now() + timeout, timeout),
        });
        let running = async {
            match &prepared.task {
                Task::Agent(task) => {
                    let spent = spent.insert(TaskUsage::new());
                    self.run_agent(task, &prepared, spent, deadline).await.map(Some)
                }
                Task::Workflow(task) => self.run_workflow(task, &prepared).await.map(|()| None),
            }
        };
        let end_commands = prepared.sandbox.shut_down();
        let grace = cancel_grace(self.config);
        let result = self.stop.supervise(running, deadline, grace, end_commands).await;
        // Whoever hears of the task's end finds nothing of it left.
        prepared.sandbox.shut_down().await;
        match result {
            Ok(result) => Ending::Success(result),
            Err(failure) => Ending::Failed(failure),
        }
    }

    async fn run_workflow(self, task: &WorkflowTask, prepared: &Prepared) -> Result<(), Failure> {
        let workflow = Workflow {
            task,
            sandbox: prepared.sandbox.as_ref(),
            events: self.events,
            telemetry: self.telemetry,
            cancel: self.stop.token(),
            flush_after: FLUSH_AFTER,
            memory: &self.kept.map(Kept::workflow).unwrap_or_default(),
        };
        workflow.run().await
    }

    async fn run_agent(
        self,
        task: &AgentTask,
        prepared: &Prepared,
        spent: &mut TaskUsage,
        deadline: Option<(tokio::time::Instant, Duration)>,
    ) -> Result<Box<RawValue>, Failure> {
        let Some(parts) = &prepared.agent else {
            return Err(Failure {
                code: TaskErrorCode::Internal,
                message: "the agent was not prepared".into(),
            });
        };
        if let Some(message) = &parts.replaced {
            self.events.push(Event::Log {
                level: LogLevel::Info,
                message: message.clone(),
                step_index: None,
                partial: false,
            });
        }
        let memory: agent::Memory = self.kept.map(Kept::agent).unwrap_or_default();
        let agent = Agent {
            task,
            model_name: &parts.model_name,
            model: &parts.model,
            tools: parts.tools.as_ref(),
            events: self.events,
            telemetry: self.telemetry,
            extra_events: self.config.extra_events,
            cancel: self.stop.token(),
            deadline,
            memory: &memory,
        };
        let result = agent.run(spent).await;
        if !memory.forgets() {
            return result;
        }
        let why = "what was kept of it does not fit the tools, the model or the variables that it has now";
        tracing::warn!(
            why,
            "what an earlier process of this task has left is not gone on with (STATE_DIR)"
        );
        self.events.push(kept::note(format!(
            "the runner was restarted, and the task begins anew: {why}"
        )));
        agent.run(spent).await
    }
}

/// The ending of a task of which nothing is known but why it failed.
pub fn failed(failure: Failure, started: Instant, sandbox: Level) -> Event {
    error(failure, summary(None, started, sandbox))
}

fn error(failure: Failure, summary: Summary) -> Event {
    let Failure { code, message } = failure;
    tracing::error!(code = code.as_str(), error = message, "the task failed");
    Event::Error { message, code, summary }
}

fn summary(spent: Option<TaskUsage>, started: Instant, sandbox: Level) -> Summary {
    Summary {
        usage: spent.map(|spent| spent.usage_report()),
        cost_usd: spent
            .and_then(|spent| spent.cost_usd)
            .map(|cost| (cost * 1e6).round() / 1e6),
        turns: spent.map(|spent| spent.turns),
        duration_ms: millis(started.elapsed()),
        sandbox: sandbox.as_str(),
    }
}

/// The one terminal event, and the exit code that goes with it.
fn terminal(ending: Ending, stop: &Stop, spent: Option<TaskUsage>, started: Instant, sandbox: Level) -> (Event, Exit) {
    let summary = summary(spent, started, sandbox);
    let (failure, exit) = match ending {
        Ending::Success(result) => {
            tracing::info!(duration_ms = summary.duration_ms, "the task succeeded");
            // The API server takes no null.
            let result = result.filter(|result| result.get() != "null");
            return (Event::Done { result, summary }, Exit::Success);
        }
        Ending::Refused(failure) => (failure, Exit::Invalid),
        Ending::Failed(failure) if failure.code == TaskErrorCode::Cancelled => match stop.reason() {
            Some(reason) => (reason.failure(), reason.exit()),
            None => (failure, Exit::Failed),
        },
        Ending::Failed(failure) => (failure, Exit::Failed),
    };
    (error(failure, summary), exit)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_ending_like_any_other() {
        let variables = [
            ("TASK_ID", "7"),
            ("CALLBACK_URL", "http://127.0.0.1:1/x"),
            ("ANTHROPIC_API_KEY", "k"),
        ];
        let lookup = |name: &str| {
            variables
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| (*value).to_owned())
        };
        let config = Config::read(&lookup).unwrap();
        let queue = EventQueue::new(SpoolConfig::default());
        let work = Work {
            config: &config,
            task_id: &TaskId::Number(7),
            events: &EventSink::queue(&queue, Box::leak(Box::default())),
            telemetry: &Telemetry::default(),
            stop: &Signals::listen().unwrap().stop(),
            kept: None,
        };
        let document = async { panic!("as a fault of ours would") };
        let (ending, exit) = work.perform(document, Ready::default()).await;
        assert!(matches!(
            ending,
            Event::Error {
                code: TaskErrorCode::Internal,
                ..
            }
        ));
        assert_eq!(exit, Exit::Failed);
    }
}
