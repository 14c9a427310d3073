//! The delivery of one task's events, from its first to its ending.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Stop;
use crate::api_client::ApiError;
use crate::config::{Config, Identity};
use crate::events::EventQueue;
use crate::events::callback::{Callback, DeliveryReport, Progress, SentRequest, TimeLeft, Wishes};
use crate::telemetry::{EventCount, Telemetry};

/// How long the delivery may take at least, and when there is no time left.
const LAST_ATTEMPT: Duration = Duration::from_millis(500);

/// How much of the time is kept for the ending, at most; otherwise a quarter of it.
const FOR_THE_ENDING: Duration = Duration::from_secs(5);

/// How long the ending of a task may take to arrive.
#[derive(Clone, Copy)]
pub struct Patience {
    /// Without a signal.
    pub flush: Duration,
    /// After one.
    pub grace: Duration,
}

impl Patience {
    /// Nobody has said how long a refusal is worth waiting for.
    pub(super) const WITHOUT_CONFIGURATION: Patience = Patience {
        flush: Duration::from_secs(60),
        grace: Duration::from_secs(5),
    };

    /// As the operator says.
    pub fn of(config: &Config) -> Self {
        Self {
            flush: config.flush_timeout,
            grace: config.shutdown_grace,
        }
    }
}

/// Sends the ending of a task again that an earlier process has sent and did not see arrive. Whether it arrived within
/// this time.
///
/// # Errors
/// When there can be no HTTP client.
pub async fn repeat_ending(
    identity: &Identity,
    ending: &SentRequest,
    stop: &Stop,
    patience: Patience,
    telemetry: &Telemetry,
) -> Result<bool, ApiError> {
    let callback = Callback::new(identity, Wishes::default(), telemetry, TimeLeft::default(), None)?;
    Ok(tokio::select! {
        arrived = callback.repeat(ending, true, &|| {}) => arrived,
        () = tokio::time::sleep(patience.flush) => false,
        () = stop.patience_is_over(patience.grace) => false,
    })
}

/// A request that an earlier process has sent, and whose answer it did not see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unanswered {
    pub request: SentRequest,
    /// Whether the task's ending is in it.
    pub ends: bool,
    /// How many events were lost before it.
    pub lost: u64,
}

/// A delivery on its way; it ends with the ending of its queue.
pub struct Delivery {
    task: JoinHandle<()>,
    report: Arc<DeliveryReport>,
    events: EventQueue,
    time: TimeLeft,
    telemetry: Telemetry,
}

/// What has become of the events of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Whether the ending arrived.
    pub ending: bool,
    /// How many events did not, or may not have, the ending among them. Log lines that were cut for want of room are
    /// none of them.
    pub lost: u64,
}

impl Delivered {
    /// Whether the server has everything.
    pub fn all(self) -> bool {
        self.ending && self.lost == 0
    }
}

impl Delivery {
    /// Starts to deliver what is in the queue, and what will come. The server may stop the task. `progress` hears how
    /// far it has come.
    ///
    /// # Errors
    /// When there can be no HTTP client.
    pub fn start(
        identity: &Identity,
        wishes: Wishes,
        events: &EventQueue,
        stop: &Stop,
        telemetry: &Telemetry,
        progress: Option<Arc<dyn Progress>>,
        unanswered: Option<Unanswered>,
    ) -> Result<Self, ApiError> {
        let time = TimeLeft::default();
        let callback = Callback::new(identity, wishes, telemetry, time.clone(), progress)?;
        let (events, cancel) = (events.clone(), stop.by_server());
        let (queue, report) = (events.clone(), Arc::<DeliveryReport>::default());
        let so_far = Arc::clone(&report);
        let task = tokio::spawn(async move {
            if let Some(first) = unanswered {
                callback
                    .resend(&first.request, first.ends, first.lost, &cancel, &so_far)
                    .await;
            }
            // A panic costs the event that it was about, and not those that follow.
            while AssertUnwindSafe(callback.deliver(&queue, &cancel, &so_far))
                .catch_unwind()
                .await
                .is_err()
            {
                tracing::error!(
                    critical = true,
                    "the delivery of an event panicked; it goes on with the next"
                );
                if queue.is_over() {
                    return;
                }
            }
        });
        Ok(Self {
            task,
            report,
            events,
            time,
            telemetry: telemetry.clone(),
        })
    }

    /// Whoever is late cancels this: nothing but the ending is tried more than once then.
    pub fn no_retries(&self) -> CancellationToken {
        self.time.no_retries.clone()
    }

    /// Waits until the ending has arrived, as long as it may take. Logs what did not arrive.
    pub async fn finish(mut self, stop: &Stop, patience: Patience) -> Delivered {
        // The last part of the time is kept: first nothing is tried twice any more, then there is only the ending.
        let reserve = |whole: Duration| (whole / 4).min(FOR_THE_ENDING);
        let left = tokio::select! {
            _ = &mut self.task => None,
            () = tokio::time::sleep(patience.flush - reserve(patience.flush)) => Some(reserve(patience.flush)),
            () = stop.patience_is_over(patience.grace - reserve(patience.grace)) => Some(reserve(patience.grace)),
        };
        let is_finished = match left {
            None => true,
            Some(left) => {
                let left = if stop.must_exit_now() {
                    LAST_ATTEMPT
                } else {
                    left.max(LAST_ATTEMPT)
                };
                self.time.no_retries.cancel();
                if self.finishes_within(left / 2, stop).await {
                    true
                } else {
                    self.time.only_ending.cancel();
                    self.finishes_within(left / 2, stop).await
                }
            }
        };
        self.task.abort();
        let waiting = self.events.waiting();
        let delivered = Delivered {
            ending: self.report.ending_delivered(),
            lost: waiting.events.saturating_add(self.report.lost()),
        };
        self.telemetry.count(EventCount::Lost, delivered.lost);
        if delivered.ending {
            if delivered.lost > 0 {
                tracing::error!(
                    lost_events = delivered.lost,
                    "events were lost on the way to the callback"
                );
            }
            return delivered;
        }
        let reason = if is_finished {
            "the callback did not take it"
        } else {
            "there was no time left"
        };
        tracing::error!(
            critical = true,
            undelivered_events = delivered.lost,
            undelivered_bytes = waiting.bytes,
            reason,
            "the task's ending could not be delivered"
        );
        delivered
    }

    /// Whether the delivery comes to its end in time; in a hurry there is less.
    async fn finishes_within(&mut self, left: Duration, stop: &Stop) -> bool {
        tokio::select! {
            _ = &mut self.task => true,
            () = tokio::time::sleep(left) => false,
            () = async {
                stop.second_signal().await;
                tokio::time::sleep(left.min(LAST_ATTEMPT / 2)).await;
            } => false,
        }
    }
}
