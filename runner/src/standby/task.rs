//! One task of a standby runner: from the worker's words to events that arrive, and to one ending, whatever becomes of
//! the worker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::assignment::Assignment;
use super::channel::{SupervisorMessage, TaskOrder, WorkerMessage};
use super::kept::Kept;
use super::orphans;
use super::process::{WorkerProcess, describe};
use crate::api_client::ApiError;
use crate::config::{Config, Identity, StandbyConfig};
use crate::events::callback::{Progress, Wishes};
use crate::events::{EventQueue, EventSink, TaskErrorCode, TaskId};
use crate::failure::Failure;
use crate::run::{self, Delivered, Delivery, Patience, Process, Stop, StopReason};
use crate::telemetry::CarriedTrace;

/// How long a worker that was told of a second signal may take.
const HURRY: Duration = Duration::from_secs(2);
/// How long a worker may take to end after it has said everything.
const LAST_STEPS: Duration = Duration::from_secs(3);

/// Runs a task, and sees to it that its ending arrives, also when there is no worker for it.
///
/// # Errors
/// When nobody can be told of anything: there can be no HTTP client for the callback. Nothing was run.
pub(super) async fn run(
    config: &Config,
    standby: &StandbyConfig,
    worker: Option<WorkerProcess>,
    assignment: Assignment,
    progress: Arc<dyn Progress>,
    process: &Process,
    stop: &Stop,
) -> Result<Delivered, ApiError> {
    let started = Instant::now();
    let silence = standby.silence();
    let identity = Identity {
        task_id: TaskId::Number(assignment.id),
        api: standby.api_of(&assignment.callback_url, &config.api),
        callback_url: assignment.callback_url,
    };
    let kept = Kept::begin(config.state_dir.as_deref(), standby, assignment.id);
    let (events, progress) = match &kept {
        Some(kept) => (kept.queue(config.spool.clone()), kept.beside(progress)),
        None => (EventQueue::new(config.spool.clone()), progress),
    };
    let delivery = Delivery::start(
        &identity,
        Wishes {
            batches: config.batches,
            // There is a heartbeat.
            alive: false,
        },
        &events,
        stop,
        &process.telemetry,
        Some(progress),
        None,
    )?;
    let trace = process.telemetry.carry();
    let failure = match (assignment.document, worker) {
        (Ok(document), Some(worker)) => {
            let order = TaskOrder {
                id: assignment.id,
                kind: assignment.kind,
                document,
                secrets: process.redactor.secrets(),
            };
            supervise(config, silence, worker, order, &events, &trace, stop).await
        }
        (Ok(_), None) => Some(match stop.reason() {
            Some(reason) => reason.failure(),
            None => Failure {
                code: TaskErrorCode::WorkerLost,
                message:
                    "the worker ended before the task came, and no other can be started: the runner's log says why"
                        .into(),
            },
        }),
        (Err(message), worker) => {
            // Nothing has run in it; it is not worth keeping.
            if let Some(worker) = worker {
                let _ = worker.end().await;
            }
            let code = TaskErrorCode::InvalidTask;
            Some(Failure { code, message })
        }
    };
    if let Some(failure) = failure {
        EventSink::queue(&events, process.redactor).push(run::failed(failure, started, config.sandbox));
    }
    let delivered = delivery.finish(stop, Patience::of(config)).await;
    // Whether or not the ending has arrived: without it the server gives the task to another runner.
    if let Some(kept) = kept {
        kept.remove();
    }
    Ok(delivered)
}

/// Passes on one word; whether the task ends with it.
fn pass_on(word: WorkerMessage, events: &EventQueue, trace: &CarriedTrace) -> bool {
    match word {
        WorkerMessage::Events(records) => {
            let ends = records.iter().any(|record| record.kind.is_terminal());
            events.push(records);
            ends
        }
        WorkerMessage::Trace(traceparent) => {
            trace.set(traceparent);
            false
        }
        WorkerMessage::Ready | WorkerMessage::Unusable(_) | WorkerMessage::Alive => false,
    }
}

/// Passes on what the worker says until it has ended. Why the task failed, when the worker did not say how it ended.
async fn supervise(
    config: &Config,
    silence: Duration,
    mut worker: WorkerProcess,
    order: TaskOrder,
    events: &EventQueue,
    trace: &CarriedTrace,
    stop: &Stop,
) -> Option<Failure> {
    // A worker that hangs takes no order either.
    let order = SupervisorMessage::Task(order);
    let mut lost = tokio::select! {
        () = worker.send(&order) => None,
        () = tokio::time::sleep(silence) => Some("it took no task".to_owned()),
        () = stop.patience_is_over(config.shutdown_grace / 3) => Some("it took no task before it was told to \
            stop".to_owned()),
    };
    let mut ended = false;
    let (mut was_told, mut saw_second) = (false, false);
    let far = tokio::time::Instant::now() + Duration::from_secs(86_400 * 365);
    let mut silent_at = tokio::time::Instant::now() + silence;
    let mut kill_at = far;
    while lost.is_none() {
        tokio::select! {
            word = worker.hear() => match word {
                Some(word) => {
                    silent_at = tokio::time::Instant::now() + silence;
                    ended |= pass_on(word, events, trace);
                    if ended {
                        break;
                    }
                }
                None => break,
            },
            () = stop.token().cancelled(), if !was_told => {
                was_told = true;
                kill_at = tokio::time::Instant::now() + config.shutdown_grace * 2 / 3;
                worker.send(&SupervisorMessage::Stop(stop.reason().unwrap_or(StopReason::Terminate))).await;
            }
            () = stop.second_signal(), if was_told && !saw_second => {
                saw_second = true;
                kill_at = tokio::time::Instant::now() + HURRY;
                worker.send(&SupervisorMessage::Stop(StopReason::Terminate)).await;
            }
            () = tokio::time::sleep_until(silent_at) => {
                lost = Some(format!("it hung: it has said nothing for {} s, and was ended", silence.as_secs()));
            }
            () = tokio::time::sleep_until(kill_at) => {
                lost = Some("it did not end in time after it was told to stop".into());
            }
        }
    }
    if lost.is_some() {
        worker.kill();
        // What it had said before.
        while let Ok(Some(word)) = tokio::time::timeout(LAST_STEPS, worker.hear()).await {
            ended |= pass_on(word, events, trace);
        }
    }
    let status = if ended {
        worker.wait_gone(LAST_STEPS).await
    } else {
        worker.end().await
    };
    if ended {
        return None;
    }
    // Whoever hears of the task's end finds nothing of it left.
    let _ = tokio::task::spawn_blocking(|| orphans::end_processes(&[])).await;
    let how = lost.unwrap_or_else(|| describe(&status));
    tracing::error!(how, "the worker was lost");
    Some(match stop.reason() {
        Some(reason) => reason.failure(),
        None => Failure {
            code: TaskErrorCode::WorkerLost,
            message: format!("the process that ran the task was lost: {how}"),
        },
    })
}
