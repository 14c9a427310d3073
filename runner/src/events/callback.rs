//! Delivery to the callback URL: one `POST` an event, one request in flight, retried by its rules (protocol, §3.4).
//! Where the server takes batches, one `POST` has all events that wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::bounds::MAX_ENCODED;
use super::event::TaskId;
use super::queue::{EventQueue, Numbered};
use crate::api_client::{Answer, ApiClient, ApiConfig, ApiError, Fate, SHORT_ANSWER, asks_for_cancel};
use crate::telemetry::TraceSource;

/// Retries after the first attempt of an event that must arrive, and of any event while nobody can be reached: a server
/// that is away for half a minute loses nothing.
const CRITICAL_RETRIES: u32 = 10;
/// Retries after the first attempt of any other event that the server has not taken.
const OTHER_RETRIES: u32 = 5;

/// How many events one batch has at most, and how many bytes: as much as one event may have.
const MAX_BATCH: usize = 500;
const MAX_BATCH_BYTES: usize = MAX_ENCODED;

/// How long the end of a request that was abandoned may take to reach the server.
const ABANDONED: Duration = Duration::from_millis(50);

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";

/// Who the task is and where its events go: all that is needed to report an error.
#[derive(Clone, Debug)]
pub struct Identity {
    pub task_id: TaskId,
    pub callback_url: Url,
    pub api: ApiConfig,
}

/// What has become of the events so far.
#[derive(Debug, Default)]
pub struct DeliveryReport {
    lost: AtomicU64,
    ending_delivered: AtomicBool,
}

impl DeliveryReport {
    /// Events that the server did not take, those that are on their way included.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Whether the ending arrived.
    pub fn ending_delivered(&self) -> bool {
        self.ending_delivered.load(Ordering::Relaxed)
    }

    fn set_lost(&self, lost: u64) {
        self.lost.store(lost, Ordering::Relaxed);
    }

    fn delivered(&self, events: &[Numbered]) {
        if is_over(events) {
            self.ending_delivered.store(true, Ordering::Relaxed);
        }
    }
}

/// Hears what becomes of a task's events, for whoever has to go on after the death of this process.
pub trait Progress: Send + Sync {
    /// A request is about to be sent for the first time: from now on the server may have it.
    fn sending(&self, request: &EventRequest<'_>);

    /// It arrived, and the task's ending with it or not. So many events before it did not.
    fn arrived(&self, lost: u64, ended: bool);
}

/// Events as they go over the wire, in one request.
#[derive(Clone, Copy, Debug)]
pub struct EventRequest<'a> {
    pub events: &'a [Numbered],
    /// How many events are lost when this request is.
    pub lost: u64,
    pub body: &'a Bytes,
    pub key: &'a str,
}

/// The request with a task's ending, as it was sent once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentEnding {
    pub seq: u64,
    pub key: String,
    /// Whether other events are in it, too.
    pub batch: bool,
    pub body: Bytes,
}

/// Sends events to the callback URL.
pub struct Callback {
    progress: Option<Arc<dyn Progress>>,
    client: ApiClient,
    task_id: TaskId,
    /// The same as keys begin with it.
    id: String,
    /// Whether the server takes many events in one request: until it refuses one.
    batches: AtomicBool,
    time: TimeLeft,
}

/// How much time the delivery has left.
#[derive(Clone, Debug, Default)]
pub struct TimeLeft {
    /// Fires when there is none for a second attempt at anything but the ending.
    pub no_retries: CancellationToken,
    /// Fires when there is none for anything but the ending: the rest would be lost anyway, and the ending with it.
    pub only_ending: CancellationToken,
}

/// How a request ended, after all its attempts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    Delivered,
    Refused,
    GivenUp,
}

/// How much depends on a request.
#[derive(Clone, Copy)]
struct Weight {
    critical: bool,
    ending: bool,
}

impl Weight {
    fn of(events: &[Numbered]) -> Self {
        Self {
            critical: events.iter().any(|event| event.record.kind.is_critical()),
            ending: is_over(events),
        }
    }
}

impl Callback {
    /// Prepares the client of a task's callback. `batches` says whether the server takes many events in one request.
    ///
    /// # Errors
    /// When the token or the request id cannot be a header, or TLS cannot be set up.
    pub fn new(
        identity: &Identity,
        batches: bool,
        trace: TraceSource,
        time: TimeLeft,
        progress: Option<Arc<dyn Progress>>,
    ) -> Result<Self, ApiError> {
        Ok(Self {
            progress,
            client: ApiClient::new(identity.callback_url.clone(), &identity.api, trace)?,
            task_id: identity.task_id.clone(),
            id: identity.task_id.to_string(),
            batches: AtomicBool::new(batches),
            time,
        })
    }

    /// Delivers what the queue gives until the ending was dealt with. Calls `cancel` when the server asks, in an
    /// answer, for the task to be cancelled. What becomes of each event is in the report as soon as it is known.
    pub async fn deliver(&self, queue: &EventQueue, cancel: &(dyn Fn() + Sync), report: &DeliveryReport) {
        while let Some(first) = queue.take().await {
            let mut events = vec![first];
            if self.batches.load(Ordering::Relaxed) {
                fill(&mut events, queue);
            }
            let mut lost = report.lost();
            // Until the server has them: whatever happens to this delivery, they count.
            report.set_lost(lost.saturating_add(events.len() as u64));
            if self.time.only_ending.is_cancelled() && !is_over(&events) {
                continue;
            }
            match self.send(&events, lost.saturating_add(queue.lost()), cancel).await {
                Sent::Delivered => {
                    report.set_lost(lost);
                    report.delivered(&events);
                    self.tell(|progress| progress.arrived(lost.saturating_add(queue.lost()), is_over(&events)));
                }
                Sent::Refused if events.len() > 1 => {
                    tracing::warn!(
                        "the callback refused a batch: its events are sent one by one, and so are all others"
                    );
                    self.batches.store(false, Ordering::Relaxed);
                    for (sent, event) in (1..).zip(events.chunks(1)) {
                        match self.send(event, lost.saturating_add(queue.lost()), cancel).await {
                            Sent::Delivered => {
                                report.delivered(event);
                                self.tell(|progress| {
                                    progress.arrived(lost.saturating_add(queue.lost()), is_over(event));
                                });
                            }
                            Sent::Refused | Sent::GivenUp => lost += 1,
                        }
                        report.set_lost(lost + (events.len() - sent) as u64);
                    }
                }
                Sent::Refused | Sent::GivenUp => {}
            }
        }
        report.set_lost(report.lost().saturating_add(queue.lost()));
    }

    /// Sends an ending again that an earlier process has sent, under its key and with its bytes. Whether it arrived. A
    /// server that takes no batches any more gets the events of one by themselves.
    pub async fn repeat(&self, ending: &SentEnding) -> bool {
        let content_type = if ending.batch { NDJSON } else { JSON };
        let sent = self
            .send_ending(ending.seq, ending.body.clone(), content_type, &ending.key)
            .await;
        if sent != Sent::Refused || !ending.batch {
            return sent == Sent::Delivered;
        }
        let lines = ending.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let mut arrived = false;
        for (seq, line) in (ending.seq..).zip(lines) {
            let key = format!("{}-{seq}", self.id);
            let body = ending.body.slice_ref(line);
            arrived = self.send_ending(seq, body, JSON, &key).await == Sent::Delivered;
        }
        arrived
    }

    async fn send_ending(&self, seq: u64, body: Bytes, content_type: &'static str, key: &str) -> Sent {
        let weight = Weight {
            critical: true,
            ending: true,
        };
        self.send_bytes(seq, weight, body, content_type, key, &|| {}).await
    }

    fn tell(&self, what: impl FnOnce(&dyn Progress)) {
        if let Some(progress) = &self.progress {
            what(progress.as_ref());
        }
    }

    /// Sends events in one request, with retries. The bytes are made once: a retry repeats them under the same key.
    async fn send(&self, events: &[Numbered], lost: u64, cancel: &(dyn Fn() + Sync)) -> Sent {
        let body = |event: &Numbered| event.record.body(&self.task_id, event.seq, lost);
        let (first, body, content_type, key) = match events {
            [] => return Sent::Delivered,
            [event] => (event.seq, body(event), JSON, format!("{}-{}", self.id, event.seq)),
            [first, .., last] => {
                let mut lines = Vec::new();
                for event in events {
                    lines.extend_from_slice(&body(event));
                    lines.push(b'\n');
                }
                (
                    first.seq,
                    lines,
                    NDJSON,
                    format!("{}-{}-{}", self.id, first.seq, last.seq),
                )
            }
        };
        let body = Bytes::from(body);
        self.tell(|progress| {
            progress.sending(&EventRequest {
                events,
                lost: lost.saturating_add(events.len() as u64),
                body: &body,
                key: &key,
            });
        });
        self.send_bytes(first, Weight::of(events), body, content_type, &key, cancel)
            .await
    }

    async fn send_bytes(
        &self,
        seq: u64,
        Weight { critical, ending }: Weight,
        body: Bytes,
        content_type: &'static str,
        key: &str,
        cancel: &(dyn Fn() + Sync),
    ) -> Sent {
        // Attempts that reached the server, and others.
        let (mut answered, mut unanswered) = (0, 0);
        let mut waited_out = false;
        loop {
            let attempt = self.client.post(content_type, Some(key), body.clone(), SHORT_ANSWER);
            let answer = tokio::select! {
                answer = attempt => answer,
                () = self.time.only_ending.cancelled(), if !ending => {
                    // The server is to see that this one is over before the next one comes.
                    tokio::time::sleep(ABANDONED).await;
                    return give_up(seq);
                }
            };
            let (reason, retry_after) = match answer {
                Answer::Taken { body, .. } => {
                    if asks_for_cancel(&body) {
                        cancel();
                    }
                    return Sent::Delivered;
                }
                Answer::Refused(status) => {
                    let reason = format!("status {status}");
                    tracing::error!(seq, reason, "the callback refused an event; it is not sent again");
                    return Sent::Refused;
                }
                Answer::Failed {
                    reason,
                    retry_after,
                    fate,
                    ..
                } => {
                    let count = match fate {
                        Fate::NotSent => &mut unanswered,
                        _ => &mut answered,
                    };
                    *count += 1;
                    (reason, retry_after)
                }
            };
            let attempts = answered + unanswered;
            if attempts > CRITICAL_RETRIES || (answered > OTHER_RETRIES && !critical) {
                tracing::error!(seq, attempts, reason, "an event could not be delivered");
                return Sent::GivenUp;
            }
            let wait = retry_after.unwrap_or_else(|| self.client.backoff(attempts - 1));
            tracing::warn!(
                seq,
                attempt = attempts,
                wait_ms = wait.as_millis() as u64,
                reason,
                "the callback did not take an event; trying again"
            );
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.time.no_retries.cancelled(), if !waited_out => {
                    if !ending {
                        return give_up(seq);
                    }
                    // One that may arrive now is worth more than one that is polite.
                    waited_out = true;
                }
            }
        }
    }
}

fn give_up(seq: u64) -> Sent {
    tracing::error!(
        seq,
        "an event is given up: the time that is left is for the task's ending"
    );
    Sent::GivenUp
}

/// Takes what waits already into the same request.
fn fill(events: &mut Vec<Numbered>, queue: &EventQueue) {
    let mut bytes: usize = events.iter().map(|event| event.record.size()).sum();
    while events.len() < MAX_BATCH
        && !is_over(events)
        && let Some(next) = queue.take_more(MAX_BATCH_BYTES.saturating_sub(bytes))
    {
        bytes += next.record.size();
        events.push(next);
    }
}

fn is_over(events: &[Numbered]) -> bool {
    events.last().is_some_and(|event| event.record.kind.is_terminal())
}

/// The retries of a critical event, with all their jitter, fit into the default `FLUSH_TIMEOUT`.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_retries_of_a_critical_event_fit_into_the_flush_timeout() {
        let base = Duration::from_millis(500);
        let waits = (0..CRITICAL_RETRIES).map(|n| base.saturating_mul(1 << n).min(Duration::from_secs(30)));
        let request = Duration::from_secs(30);
        let longest = waits.sum::<Duration>().mul_f64(1.25) + request * (CRITICAL_RETRIES + 1);
        assert!(longest <= Duration::from_secs(600), "{longest:?}");
    }
}
