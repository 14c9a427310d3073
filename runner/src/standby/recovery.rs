//! What a runner does first when an earlier process of it was killed: the task of that process gets its ending, while
//! the server still waits for it; and where nobody can know what the server did, the runner goes on under a fresh name.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::journal::{Journal, Left, LeftTask, now_ms};
use crate::api_client::ApiError;
use crate::config::{Config, Identity, StandbyConfig};
use crate::events::callback::Wishes;
use crate::events::{EventQueue, EventSink, TaskErrorCode, TaskId};
use crate::failure::Failure;
use crate::run::{self, Delivery, Patience, Process, Stop};
use crate::telemetry;

const RESTARTED: &str = "the runner was started again while it ran the task: its process was killed, or the memory of \
    the pod ran out; its log, and the pod's last state, say more";

/// How long one request may take at least, however late it is.
const MIN_ATTEMPT: Duration = Duration::from_secs(1);

/// Deals with what was left. Answers the name to register under; the journal has it.
pub(super) async fn recover(
    config: &Config,
    standby: &StandbyConfig,
    journal: &Arc<Journal>,
    left: Left,
    process: &Process,
) -> String {
    let (name, why) = match left {
        Left::Nothing => (standby.pod_name.clone(), None),
        Left::Unusable(problem) => {
            tracing::warn!(
                problem,
                "what this runner does cannot be written down for the case that it is killed (SPOOL_DIR)"
            );
            // Nobody would know what the name has, should an earlier process have had something, or this one be killed.
            (
                standby.pod_name.clone(),
                Some("what it does cannot be written down".to_owned()),
            )
        }
        Left::Waiting { name } => (name, None),
        Left::Asking { name } => (name, Some("the runner was killed while it asked for a task".to_owned())),
        Left::Alive => {
            let why = "another runner of this name is alive here: give each a POD_NAME of its own".to_owned();
            (standby.pod_name.clone(), Some(why))
        }
        Left::Unreadable(problem) => {
            tracing::warn!(
                problem,
                "what an earlier process of this runner has left is ignored (SPOOL_DIR)"
            );
            let why = "what an earlier process of this runner did is not known".to_owned();
            (standby.pod_name.clone(), Some(why))
        }
        Left::Task(task) => {
            let why = match end(config, standby, journal, &task, process).await {
                Ended::Told => None,
                // Whoever starts it again finds it as it is.
                Ended::Interrupted => return task.name,
                Ended::Untold(why) => Some(why),
            };
            (task.name, why)
        }
    };
    let why = match why {
        None if journal.named(&name) => return name,
        None => "what it does cannot be written down".to_owned(),
        Some(why) => why,
    };
    journal.leave_name(&why)
}

/// What came of a task that was left.
enum Ended {
    /// The server knows that it has ended.
    Told,
    /// It does not, for this reason.
    Untold(String),
    /// The runner was told to stop before that was decided.
    Interrupted,
}

/// Ends a task, if the server has not given it to another runner yet.
async fn end(
    config: &Config,
    standby: &StandbyConfig,
    journal: &Arc<Journal>,
    task: &LeftTask,
    process: &Process,
) -> Ended {
    let id = task.id;
    let Some(left) = time_left(task.beat_ms, now_ms(), standby.heartbeat_timeout) else {
        return Ended::Untold(format!(
            "its task {id} may run elsewhere by now: its last heartbeat is too long ago (HEARTBEAT_TIMEOUT)"
        ));
    };
    let Some(callback_url) = task.callback_url.clone() else {
        return Ended::Untold(format!(
            "where the events of its task {id} go was not written down, since it may be a secret or is too long"
        ));
    };
    let mut api = standby.api_of(&callback_url, &config.api);
    // What ends before the ending must not take all of the time.
    api.timeout = api.timeout.min((left / 4).max(MIN_ATTEMPT));
    let identity = Identity {
        task_id: TaskId::Number(id),
        callback_url,
        api,
    };
    telemetry::set_identity(Some(identity.task_id.to_value()), config.api.request_id.clone());
    let patience = Patience {
        flush: left.min(config.flush_timeout),
        grace: config.shutdown_grace,
    };
    let stop = process.signals.stop();
    let told = tell(config, &identity, journal, task, process, &stop, patience).await;
    telemetry::set_identity(None, config.api.request_id.clone());
    match told {
        Ok(true) => Ended::Told,
        Ok(false) if stop.reason().is_some() => Ended::Interrupted,
        Ok(false) => Ended::Untold(format!("the ending of its task {id} did not arrive")),
        Err(error) => Ended::Untold(format!("nobody can be told of its task {id}: {error}")),
    }
}

/// Sends the task's one ending: the one that was on its way already, or its error.
async fn tell(
    config: &Config,
    identity: &Identity,
    journal: &Arc<Journal>,
    task: &LeftTask,
    process: &Process,
    stop: &Stop,
    patience: Patience,
) -> Result<bool, ApiError> {
    if let Some(ending) = &task.ending {
        tracing::warn!(
            "an earlier process of this runner was killed while it told how this task had ended: it is told again"
        );
        return run::repeat_ending(identity, ending, stop, patience, &process.telemetry).await;
    }
    tracing::warn!("an earlier process of this runner was killed while it ran this task: it gets its error");
    let events = EventQueue::resume(config.spool.clone(), task.past.clone());
    let delivery = Delivery::start(
        identity,
        Wishes {
            batches: config.batches,
            alive: false,
        },
        &events,
        stop,
        &process.telemetry,
        Some(journal.clone()),
        None,
    )?;
    let age = u64::try_from(now_ms().saturating_sub(task.started_ms)).unwrap_or_default();
    let started = Instant::now().checked_sub(Duration::from_millis(age));
    let failure = Failure {
        code: TaskErrorCode::WorkerLost,
        message: RESTARTED.into(),
    };
    let ending = run::failed(failure, started.unwrap_or_else(Instant::now), config.sandbox);
    EventSink::queue(&events, process.redactor).push(ending);
    // What ends before the ending is worth half of the time.
    let no_retries = delivery.no_retries();
    let late = async {
        tokio::time::sleep(patience.flush / 2).await;
        no_retries.cancel();
        std::future::pending().await
    };
    tokio::select! {
        delivered = delivery.finish(stop, patience) => Ok(delivered.ending),
        () = late => Ok(false),
    }
}

/// How long the server still waits for a runner that it heard last at this time. `None`: not any more, or nobody knows
/// since the clock was set back.
fn time_left(beat_ms: i64, now_ms: i64, timeout: Duration) -> Option<Duration> {
    let age = Duration::from_millis(u64::try_from(now_ms.saturating_sub(beat_ms)).ok()?);
    timeout.checked_sub(age).filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_ended_while_the_server_waits_and_not_after() {
        let minute = Duration::from_secs(60);
        for (beat, now, left) in [
            (1_000, 1_000, Some(60_000)),
            (1_000, 60_999, Some(1)),
            (1_000, 61_000, None),
            (1_000, 500_000, None),
            // The clock was set back.
            (1_000, 999, None),
            (i64::MIN, i64::MAX, None),
            (i64::MAX, i64::MIN, None),
        ] {
            assert_eq!(
                time_left(beat, now, minute),
                left.map(Duration::from_millis),
                "{beat} {now}"
            );
        }
    }
}
