//! One task from its document to its one ending: read, prepare, run, tell, deliver.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::agent::{Agent, Spent};
use crate::config::{Config, Identity};
use crate::events::callback::{Callback, CallbackConfig, DeliveryReport};
use crate::events::{Event, EventQueue, Summary, TaskErrorCode, millis};
use crate::failure::{Cancelled, Failure};
use crate::sandbox::Level;
use crate::task::{AgentTask, Task};
use crate::telemetry;
use crate::workflow;

mod exit;
mod prepare;
mod settings;
mod stop;

pub use exit::Exit;
pub use prepare::plugin_dir;
pub use settings::check_settings;

use prepare::{Prepared, Refused};
pub use stop::Stop;

/// The longest that a cancelled task may take to put its things away before it is left behind; with a short
/// `SHUTDOWN_GRACE` it is a third of that, so that time is left for the ending to arrive.
const CANCEL_GRACE: Duration = Duration::from_secs(8);
/// How long the delivery may still take when there is no time left.
const LAST_ATTEMPT: Duration = Duration::from_millis(500);

/// How the task ended, before anybody was told.
enum Ending {
    Success,
    Failed(Failure),
    /// Nothing was run: the task, a plugin or the surroundings are at fault.
    Refused(Failure),
}

/// Runs the one task of an active runner, and answers how the process is to exit.
pub async fn active(config: Config, stop: Stop) -> Exit {
    let started = Instant::now();
    let config = Arc::new(config);
    let events = EventQueue::new();
    let callback = match callback(&config.identity) {
        Ok(callback) => callback,
        Err(exit) => return exit,
    };
    let delivery = start_delivery(callback, &events, &stop);
    let mut spent = None;
    let span = telemetry::task_span(
        &config.identity.task_id.to_string(),
        config.identity.request_id.as_deref(),
    );
    let ending = AssertUnwindSafe(span.within(execute(&config, &events, &stop, &mut spent)))
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
    let (event, exit) = terminal(ending, &stop, spent, started, config.sandbox);
    span.end(match &event {
        Event::Error { code, .. } => Some(code.as_str()),
        _ => None,
    });
    events.push(event).await;
    finish(delivery, &events, &stop, Patience::of(&config), exit).await
}

/// Tells the callback that nothing could be run, and answers how the process is to exit.
pub async fn report_refusal(identity: &Identity, failure: Failure, sandbox: Level, stop: Stop) -> Exit {
    let callback = match callback(identity) {
        Ok(callback) => callback,
        Err(exit) => return exit,
    };
    let events = EventQueue::new();
    let (event, exit) = terminal(Ending::Refused(failure), &stop, None, Instant::now(), sandbox);
    events.push(event).await;
    let delivery = start_delivery(callback, &events, &stop);
    finish(delivery, &events, &stop, Patience::WITHOUT_CONFIGURATION, exit).await
}

fn callback(identity: &Identity) -> Result<Callback, Exit> {
    let config = CallbackConfig {
        task_id: identity.task_id.clone(),
        url: identity.callback_url.clone(),
        token: identity.callback_token.clone(),
        request_id: identity.request_id.clone(),
        retry_base: identity.callback_retry_base,
    };
    Callback::new(config).map_err(|error| {
        tracing::error!(critical = true, error = %error, "events cannot be sent");
        Exit::Invalid
    })
}

fn start_delivery(callback: Callback, events: &EventQueue, stop: &Stop) -> JoinHandle<DeliveryReport> {
    let (events, cancel) = (events.clone(), stop.by_server());
    tokio::spawn(async move { callback.deliver(&events, &cancel).await })
}

/// How long the ending of a task may take to arrive.
#[derive(Clone, Copy)]
struct Patience {
    /// Without a signal.
    flush: Duration,
    /// After one.
    grace: Duration,
}

impl Patience {
    /// Nobody has said how long a refusal is worth waiting for.
    const WITHOUT_CONFIGURATION: Patience = Patience {
        flush: Duration::from_secs(60),
        grace: Duration::from_secs(5),
    };

    fn of(config: &Config) -> Self {
        Self {
            flush: config.flush_timeout,
            grace: config.shutdown_grace,
        }
    }
}

/// Waits for the delivery; an ending that did not arrive outweighs how the task went.
async fn finish(
    mut delivery: JoinHandle<DeliveryReport>,
    events: &EventQueue,
    stop: &Stop,
    patience: Patience,
    exit: Exit,
) -> Exit {
    let report = tokio::select! {
        report = &mut delivery => report.ok(),
        () = tokio::time::sleep(patience.flush) => None,
        () = stop.patience_is_over(patience.grace) => {
            // Whoever is in a hurry still gets the one attempt that is on its way.
            tokio::time::timeout(LAST_ATTEMPT, &mut delivery).await.ok().and_then(Result::ok)
        }
    };
    match report {
        Some(report) if report.ending_delivered => {
            if report.lost > 0 {
                tracing::error!(lost_events = report.lost, "events were lost on the way to the callback");
            }
            exit
        }
        report => {
            let undelivered = events.len() + 1;
            let reason = match report {
                Some(_) => "the callback did not take it",
                None => "there was no time left",
            };
            tracing::error!(
                critical = true,
                undelivered,
                reason,
                "the task's ending could not be delivered"
            );
            // After a signal its own code says more: whoever sent it knows that it did not wait.
            if stop.is_hurried() {
                stop.reason().map_or(Exit::Undelivered, |reason| reason.exit())
            } else {
                Exit::Undelivered
            }
        }
    }
}

/// The one terminal event, and the exit code that goes with it.
fn terminal(ending: Ending, stop: &Stop, spent: Option<Spent>, started: Instant, sandbox: Level) -> (Event, Exit) {
    let summary = Summary {
        usage: spent.map(|spent| spent.usage_report()),
        cost_usd: spent
            .and_then(|spent| spent.cost_usd)
            .map(|cost| (cost * 1e6).round() / 1e6),
        turns: spent.map(|spent| spent.turns),
        duration_ms: millis(started.elapsed()),
        sandbox: sandbox.as_str(),
        lost_events: None,
    };
    let (failure, exit) = match ending {
        Ending::Success => {
            tracing::info!(duration_ms = summary.duration_ms, "the task succeeded");
            return (Event::Done { summary }, Exit::Success);
        }
        Ending::Refused(failure) => (failure, Exit::Invalid),
        Ending::Failed(failure) if failure.code == TaskErrorCode::Cancelled => match stop.reason() {
            Some(reason) => (reason.failure(), reason.exit()),
            None => (failure, Exit::Failed),
        },
        Ending::Failed(failure) => (failure, Exit::Failed),
    };
    let Failure { code, message } = failure;
    tracing::error!(code = code.as_str(), error = message, "the task failed");
    (Event::Error { message, code, summary }, exit)
}

async fn execute(config: &Arc<Config>, events: &EventQueue, stop: &Stop, spent: &mut Option<Spent>) -> Ending {
    let prepared = tokio::select! {
        prepared = prepare::prepare(config) => prepared,
        // A task that never comes over standard input must not keep the runner from ending.
        () = stop.token().cancelled() => return Ending::Failed(Cancelled.into()),
    };
    let prepared = match prepared {
        Ok(prepared) => prepared,
        Err(Refused(failure)) => return Ending::Refused(failure),
    };
    let timeout = match &prepared.task {
        Task::Agent(task) => task.timeout,
        Task::Workflow(task) => task.timeout,
    };
    let running = async {
        match &prepared.task {
            Task::Agent(task) => {
                let spent = spent.insert(Spent::new());
                run_agent(config, task, &prepared, events, stop.token(), spent).await
            }
            Task::Workflow(task) => workflow::run(task, prepared.sandbox.as_ref(), events, stop.token()).await,
        }
    };
    let grace = CANCEL_GRACE.min(config.shutdown_grace / 3);
    let end_commands = prepared.sandbox.shut_down();
    let result = stop.supervise(running, timeout, grace, end_commands).await;
    // Whoever hears of the task's end finds nothing of it left.
    prepared.sandbox.shut_down().await;
    match result {
        Ok(()) => Ending::Success,
        Err(failure) => Ending::Failed(failure),
    }
}

async fn run_agent(
    config: &Config,
    task: &AgentTask,
    prepared: &Prepared,
    events: &EventQueue,
    cancel: &CancellationToken,
    spent: &mut Spent,
) -> Result<(), Failure> {
    let Some(parts) = &prepared.agent else {
        return Err(Failure {
            code: TaskErrorCode::Internal,
            message: "the agent was not prepared".into(),
        });
    };
    let agent = Agent {
        task,
        model_name: &parts.model_name,
        model: &parts.model,
        tools: parts.tools.as_ref(),
        events,
        extra_events: config.extra_events,
        cancel,
    };
    agent.run(spent).await
}
