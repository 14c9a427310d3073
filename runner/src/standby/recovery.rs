//! What a runner does first when an earlier process of it was killed: the task of that process gets its ending, while
//! the server still waits for it; and where nobody can know what the server did, the runner goes on under a fresh name.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::journal::{Journal, Left, LeftTask, now_ms};
use super::kept::Kept;
use crate::api_client::ApiError;
use crate::config::{Config, Identity, StandbyConfig};
use crate::events::callback::{Progress, Wishes};
use crate::events::write_ahead::Unsent;
use crate::events::{EventQueue, EventSink, TaskErrorCode, TaskId};
use crate::failure::Failure;
use crate::run::{self, Delivery, Patience, Process, Stop, Unanswered};
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
    let telling = Telling {
        config,
        identity: &identity,
        journal,
        task,
        process,
        stop: &stop,
        patience,
    };
    let (kept, unsent) = Kept::left(config.state_dir.as_deref(), standby, id).unzip();
    let told = telling.tell(kept.as_ref().zip(unsent)).await;
    let is_interrupted = matches!(told, Ok(false)) && stop.reason().is_some();
    if let Some(kept) = kept.filter(|_| !is_interrupted) {
        kept.remove();
    }
    telemetry::set_identity(None, config.api.request_id.clone());
    match told {
        Ok(true) => Ended::Told,
        Ok(false) if stop.reason().is_some() => Ended::Interrupted,
        Ok(false) => Ended::Untold(format!("the ending of its task {id} did not arrive")),
        Err(error) => Ended::Untold(format!("nobody can be told of its task {id}: {error}")),
    }
}

/// Who is told of a task that was left, and how long that may take.
#[derive(Clone, Copy)]
struct Telling<'a> {
    config: &'a Config,
    identity: &'a Identity,
    journal: &'a Arc<Journal>,
    task: &'a LeftTask,
    process: &'a Process,
    stop: &'a Stop,
    patience: Patience,
}

impl Telling<'_> {
    /// Sends the task's one ending: the one that was on its way already, or its error. What else was kept comes before
    /// it.
    async fn tell(self, kept: Option<(&Kept, Unsent)>) -> Result<bool, ApiError> {
        let journal = Arc::clone(self.journal) as Arc<dyn Progress>;
        if let Some((kept, unsent)) = kept {
            if unsent.has_ended {
                return Ok(true);
            }
            let has_ending = unsent.is_closed;
            tracing::warn!(
                events = unsent.records.len(),
                "an earlier process of this runner was killed while it had this task: what it had told is told again"
            );
            let (events, unanswered) = kept.queue_of(self.config.spool.clone(), unsent);
            let delivery = self.start(&events, kept.beside(journal), unanswered)?;
            return Ok(self.end(&events, delivery, has_ending).await);
        }
        if let Some(ending) = &self.task.ending {
            tracing::warn!(
                "an earlier process of this runner was killed while it told how this task had ended: it is told again"
            );
            let telemetry = &self.process.telemetry;
            return run::repeat_ending(self.identity, ending, self.stop, self.patience, telemetry).await;
        }
        tracing::warn!("an earlier process of this runner was killed while it ran this task: it gets its error");
        let events = EventQueue::resume(self.config.spool.clone(), self.task.past.clone());
        let delivery = self.start(&events, journal, None)?;
        Ok(self.end(&events, delivery, false).await)
    }

    fn start(
        self,
        events: &EventQueue,
        progress: Arc<dyn Progress>,
        unanswered: Option<Unanswered>,
    ) -> Result<Delivery, ApiError> {
        let wishes = Wishes {
            batches: self.config.batches,
            alive: false,
        };
        let telemetry = &self.process.telemetry;
        Delivery::start(
            self.identity,
            wishes,
            events,
            self.stop,
            telemetry,
            Some(progress),
            unanswered,
        )
    }

    /// Ends the task, when that was not done, and waits until it has arrived. Whether it did.
    async fn end(self, events: &EventQueue, delivery: Delivery, has_ending: bool) -> bool {
        if !has_ending {
            let age = u64::try_from(now_ms().saturating_sub(self.task.started_ms)).unwrap_or_default();
            let started = Instant::now().checked_sub(Duration::from_millis(age));
            let failure = Failure {
                code: TaskErrorCode::WorkerLost,
                message: RESTARTED.into(),
            };
            let started = started.unwrap_or_else(Instant::now);
            let ending = run::failed(failure, started, self.config.sandbox);
            EventSink::queue(events, self.process.redactor).push(ending);
        }
        // What ends before the ending is worth half of the time.
        let no_retries = delivery.no_retries();
        let late = async {
            tokio::time::sleep(self.patience.flush / 2).await;
            no_retries.cancel();
            std::future::pending().await
        };
        tokio::select! {
            delivered = delivery.finish(self.stop, self.patience) => delivered.ending,
            () = late => false,
        }
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
