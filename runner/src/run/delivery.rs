//! The delivery of one task's events, from its first to its ending.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use tokio::task::JoinHandle;

use super::Stop;
use crate::api_client::ApiError;
use crate::config::{Config, Identity};
use crate::events::EventQueue;
use crate::events::callback::{Callback, CallbackConfig, DeliveryReport};

/// How long the delivery may still take when there is no time left.
const LAST_ATTEMPT: Duration = Duration::from_millis(500);

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

/// A delivery on its way; it ends with the ending of its queue.
pub struct Delivery {
    task: JoinHandle<DeliveryReport>,
    events: EventQueue,
}

impl Delivery {
    /// Starts to deliver what is in the queue, and what will come. The server may stop the task.
    ///
    /// # Errors
    /// When there can be no HTTP client.
    pub fn start(identity: &Identity, batches: bool, events: &EventQueue, stop: &Stop) -> Result<Self, ApiError> {
        let callback = Callback::new(CallbackConfig {
            task_id: identity.task_id.clone(),
            url: identity.callback_url.clone(),
            batches,
            api: identity.api.clone(),
        })?;
        let (events, cancel) = (events.clone(), stop.by_server());
        let queue = events.clone();
        let task = tokio::spawn(async move {
            let mut report = DeliveryReport::default();
            // A panic costs the event that it was about, and not those that follow.
            while AssertUnwindSafe(callback.deliver(&queue, &cancel, &mut report))
                .catch_unwind()
                .await
                .is_err()
            {
                tracing::error!(
                    critical = true,
                    "the delivery of an event panicked; it goes on with the next"
                );
            }
            report
        });
        Ok(Self { task, events })
    }

    /// Waits until the ending has arrived, as long as it may take. Answers whether it did, and logs what did not arrive.
    pub async fn finish(mut self, stop: &Stop, patience: Patience) -> bool {
        let report = tokio::select! {
            report = &mut self.task => report.ok(),
            () = tokio::time::sleep(patience.flush) => None,
            () = stop.patience_is_over(patience.grace) => {
                // Whoever is in a hurry still gets the one attempt that is on its way.
                tokio::time::timeout(LAST_ATTEMPT, &mut self.task).await.ok().and_then(Result::ok)
            }
        };
        self.task.abort();
        if let Some(report) = report.filter(|report| report.ending_delivered) {
            if report.lost > 0 {
                tracing::error!(lost_events = report.lost, "events were lost on the way to the callback");
            }
            return true;
        }
        let reason = match report {
            Some(_) => "the callback did not take it",
            None => "there was no time left",
        };
        let waiting = self.events.waiting();
        // Without a report the one that is on its way counts too.
        let lost = report.map_or(1, |report| report.lost);
        tracing::error!(
            critical = true,
            undelivered_events = waiting.events + lost,
            undelivered_bytes = waiting.bytes,
            reason,
            "the task's ending could not be delivered"
        );
        false
    }
}
