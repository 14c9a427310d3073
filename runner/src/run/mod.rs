//! One task from its document to its one ending: read, prepare, run, tell, deliver.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use tokio_util::sync::CancellationToken;

use crate::agent::{Agent, Spent};
use crate::config::{Config, Identity};
use crate::events::callback::{Callback, CallbackConfig, DeliveryReport};
use crate::events::{Event, EventQueue, Summary, TaskErrorCode, millis};
use crate::failure::{Cancelled, Failure};
use crate::task::{AgentTask, Task};
use crate::workflow;

mod exit;
mod prepare;
mod settings;
mod stop;

pub use exit::Exit;
pub use prepare::plugin_dir;
pub use settings::check_settings;

use prepare::{Prepared, Refused};
use stop::Stop;

/// How long a cancelled task may take to put its things away before it is left behind.
const CANCEL_GRACE: Duration = Duration::from_secs(8);

/// How the task ended, before anybody was told.
enum Ending {
    Success,
    Failed(Failure),
    /// Nothing was run: the task, a plugin or the surroundings are at fault.
    Refused(Failure),
}

/// Runs the one task of an active runner, and answers how the process is to exit.
pub async fn active(config: Config) -> Exit {
    let started = Instant::now();
    let config = Arc::new(config);
    let events = EventQueue::new();
    let callback = match callback(&config.identity) {
        Ok(callback) => callback,
        Err(exit) => return exit,
    };
    let stop = match Stop::on_signals() {
        Ok(stop) => stop,
        Err(error) => {
            tracing::error!(critical = true, error = %error, "signals cannot be received");
            return Exit::Invalid;
        }
    };
    let delivery = tokio::spawn({
        let events = events.clone();
        async move { callback.deliver(&events).await }
    });

    let mut spent = None;
    let ending = AssertUnwindSafe(execute(&config, &events, &stop, &mut spent))
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
    let (event, exit) = terminal(ending, &stop, spent, started);
    events.push(event).await;
    let patience = stop.remaining(config.shutdown_grace).unwrap_or(config.flush_timeout);
    finish(delivery, &events, patience, exit).await
}

/// Tells the callback that nothing could be run, and answers how the process is to exit.
pub async fn report_refusal(identity: &Identity, failure: Failure, patience: Duration) -> Exit {
    let callback = match callback(identity) {
        Ok(callback) => callback,
        Err(exit) => return exit,
    };
    let events = EventQueue::new();
    let (event, exit) = terminal(Ending::Refused(failure), &Stop::never(), None, Instant::now());
    events.push(event).await;
    let delivery = tokio::spawn({
        let events = events.clone();
        async move { callback.deliver(&events).await }
    });
    finish(delivery, &events, patience, exit).await
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

/// Waits for the delivery; an ending that did not arrive outweighs how the task went.
async fn finish(
    delivery: tokio::task::JoinHandle<DeliveryReport>,
    events: &EventQueue,
    patience: Duration,
    exit: Exit,
) -> Exit {
    match tokio::time::timeout(patience, delivery).await {
        Ok(Ok(report)) if report.ending_delivered => {
            if report.lost > 0 {
                tracing::error!(lost_events = report.lost, "events were lost on the way to the callback");
            }
            exit
        }
        outcome => {
            let undelivered = events.len() + 1;
            let reason = match outcome {
                Ok(_) => "the callback did not take it",
                Err(_) => "there was no time left",
            };
            tracing::error!(
                critical = true,
                undelivered,
                reason,
                "the task's ending could not be delivered"
            );
            Exit::Undelivered
        }
    }
}

/// The one terminal event, and the exit code that goes with it.
fn terminal(ending: Ending, stop: &Stop, spent: Option<Spent>, started: Instant) -> (Event, Exit) {
    let summary = Summary {
        usage: spent.map(|spent| spent.usage_report()),
        cost_usd: spent
            .and_then(|spent| spent.cost_usd)
            .map(|cost| (cost * 1e6).round() / 1e6),
        turns: spent.map(|spent| spent.turns),
        duration_ms: millis(started.elapsed()),
        sandbox: crate::sandbox::LEVEL.as_str(),
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
    match stop.supervise(running, timeout, CANCEL_GRACE).await {
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
