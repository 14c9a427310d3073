//! Delivery to the callback URL: one `POST` an event, one request in flight, retried by its rules (protocol, §3.4).
//! Where the server takes batches, one `POST` has all events that wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use reqwest::StatusCode;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::bounds::{MIN_BODY, encoded, shortened};
use super::event::{Event, TaskId};
use super::queue::{EventQueue, Numbered};
use super::record::Record;
use crate::api_client::{Answer, ApiClient, ApiConfig, ApiError, Fate, SHORT_ANSWER, asks_for_cancel};
use crate::telemetry::{EventCount, Telemetry};

/// Retries after the first attempt of an event that must arrive, and of any event while nobody can be reached: a server
/// that is away for half a minute loses nothing.
const CRITICAL_RETRIES: u32 = 10;
/// Retries after the first attempt of any other event that the server has not taken.
const OTHER_RETRIES: u32 = 5;

/// How many events one batch has at most; all of them together are no larger than one event may be.
const MAX_BATCH: usize = 500;

/// After how long without an event the server hears that the task goes on, where it wants to.
const SILENCE: Duration = Duration::from_secs(15);

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

    /// Nothing of it was taken: its events are numbered anew, and sent in other requests.
    fn put_back(&self) {}
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

/// A request as it was sent once: with a task's ending, or other events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentRequest {
    pub seq: u64,
    pub key: String,
    /// Whether other events are in it, too.
    pub batch: bool,
    pub body: Bytes,
}

/// What the server wants of the events of a task.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wishes {
    /// Many events in one request.
    pub batches: bool,
    /// An event when nothing else is sent for a while.
    pub alive: bool,
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
    alive: bool,
    /// How large a body may be: until the server refuses one as too large.
    max_body: AtomicUsize,
    time: TimeLeft,
    telemetry: Telemetry,
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
    /// Its body, of so many bytes, is more than the server takes.
    TooLarge(usize),
    GivenUp,
}

/// One request, with all its attempts.
struct Request<'a> {
    /// Of its first event.
    seq: u64,
    events: u64,
    weight: Weight,
    body: Bytes,
    content_type: &'static str,
    key: &'a str,
    /// The server may have it already: an earlier process has sent it.
    repeated: bool,
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
    /// Prepares the client of a task's callback.
    ///
    /// # Errors
    /// When the token or the request id cannot be a header, or TLS cannot be set up.
    pub fn new(
        identity: &Identity,
        wishes: Wishes,
        telemetry: &Telemetry,
        time: TimeLeft,
        progress: Option<Arc<dyn Progress>>,
    ) -> Result<Self, ApiError> {
        let trace = telemetry.trace_source();
        Ok(Self {
            progress,
            client: ApiClient::new(identity.callback_url.clone(), &identity.api, trace)?,
            task_id: identity.task_id.clone(),
            id: identity.task_id.to_string(),
            batches: AtomicBool::new(wishes.batches),
            alive: wishes.alive,
            max_body: AtomicUsize::new(identity.api.max_body),
            time,
            telemetry: telemetry.clone(),
        })
    }

    /// Delivers what the queue gives until the ending was dealt with. Calls `cancel` when the server asks, in an
    /// answer, for the task to be cancelled. What becomes of each event is in the report as soon as it is known.
    pub async fn deliver(&self, queue: &EventQueue, cancel: &(dyn Fn() + Sync), report: &DeliveryReport) {
        queue.limit(self.room());
        let mut spooled = queue.spooled();
        while let Some(first) = self.next(queue).await {
            let mut events = vec![first];
            if self.batches.load(Ordering::Relaxed) {
                self.fill(&mut events, queue);
            }
            let lost = report.lost();
            // Until the server has them: whatever happens to this delivery, they count.
            report.set_lost(lost.saturating_add(events.len() as u64));
            self.telemetry.count(EventCount::Spooled, queue.spooled() - spooled);
            spooled = queue.spooled();
            if self.time.only_ending.is_cancelled() && !is_over(&events) {
                continue;
            }
            let sent = self.send(&events, lost.saturating_add(queue.lost()), cancel).await;
            match sent {
                Sent::Delivered => {
                    report.set_lost(lost);
                    report.delivered(&events);
                    self.telemetry.count(EventCount::Delivered, events.len() as u64);
                    self.tell(|progress| progress.arrived(lost.saturating_add(queue.lost()), is_over(&events)));
                }
                Sent::TooLarge(size) if self.lower(size) => {
                    queue.limit(self.room());
                    // Nothing of it was taken, so that its numbers are free.
                    self.tell(|progress| progress.put_back());
                    queue.put_back(events);
                    report.set_lost(lost);
                }
                Sent::Refused | Sent::TooLarge(_) if events.len() > 1 => {
                    tracing::warn!(
                        "the callback refused a batch: its events are sent one by one, and so are all others"
                    );
                    self.batches.store(false, Ordering::Relaxed);
                    self.tell(|progress| progress.put_back());
                    queue.put_back(events);
                    report.set_lost(lost);
                }
                Sent::TooLarge(size) => not_smaller(events.first().map_or(0, |event| event.seq), size),
                Sent::Refused | Sent::GivenUp => {}
            }
        }
        self.telemetry.count(EventCount::Spooled, queue.spooled() - spooled);
        report.set_lost(report.lost().saturating_add(queue.lost()));
    }

    /// The next event. Where the server wants that, there is one whenever nothing was sent for a while.
    async fn next(&self, queue: &EventQueue) -> Option<Numbered> {
        if !self.alive {
            return queue.take().await;
        }
        loop {
            tokio::select! {
                biased;
                next = queue.take() => return next,
                // The queue numbers it, and drops it when the ending has come meanwhile.
                () = tokio::time::sleep(SILENCE) => queue.push([Record::from(Event::Alive)]),
            }
        }
    }

    /// How much of a body is left for an event, besides the task's id.
    fn room(&self) -> usize {
        let id = match &self.task_id {
            TaskId::Number(number) => number.to_string().len(),
            TaskId::Text(text) => encoded(text) + 2,
        };
        self.max_body.load(Ordering::Relaxed).saturating_sub(id)
    }

    /// The server has refused a body of this size as too large: bodies are at most half as large from now on. Whether
    /// that makes a difference; a body that is as small as can be was refused for another reason.
    fn lower(&self, size: usize) -> bool {
        let most = self.max_body.load(Ordering::Relaxed);
        // What is larger than it should be cannot be made smaller.
        if size <= MIN_BODY || size > most {
            return false;
        }
        let lower = (size / 2).max(MIN_BODY);
        self.max_body.store(lower, Ordering::Relaxed);
        tracing::warn!(
            bytes = size,
            max_body = lower,
            "the callback refused a body as too large (status 413): what is larger is sent in parts from now on \
                (CALLBACK_MAX_BODY)"
        );
        true
    }

    /// Sends a request again that an earlier process has sent and did not see arrive, before anything else. `earlier`
    /// is how many events were lost before. `cancel` as in [`Callback::deliver`].
    pub async fn resend(
        &self,
        sent: &SentRequest,
        ends: bool,
        earlier: u64,
        cancel: &(dyn Fn() + Sync),
        report: &DeliveryReport,
    ) {
        let events = match sent.batch {
            true => sent
                .body
                .split(|byte| *byte == b'\n')
                .filter(|line| !line.is_empty())
                .count() as u64,
            false => 1,
        };
        // Until the server has it.
        report.set_lost(events);
        if self.repeat(sent, ends, cancel).await {
            report.set_lost(0);
            if ends {
                report.ending_delivered.store(true, Ordering::Relaxed);
            }
            self.telemetry.count(EventCount::Delivered, events);
            self.tell(|progress| progress.arrived(earlier, ends));
        }
    }

    /// Sends a request again that an earlier process has sent, under its key and with its bytes. Whether it arrived. A
    /// server that takes no batches any more gets the events of one by themselves.
    pub async fn repeat(&self, ending: &SentRequest, ends: bool, cancel: &(dyn Fn() + Sync)) -> bool {
        if !ending.batch {
            return self
                .repeat_event(ending.seq, ending.body.clone(), &ending.key, ends, cancel)
                .await;
        }
        let events = || ending.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let request = Request {
            seq: ending.seq,
            events: events().count() as u64,
            weight: Weight {
                critical: true,
                ending: ends,
            },
            body: ending.body.clone(),
            content_type: NDJSON,
            key: &ending.key,
            repeated: true,
        };
        match self.send_request(request, cancel).await {
            Sent::Delivered => true,
            Sent::GivenUp => false,
            Sent::Refused | Sent::TooLarge(_) => {
                let mut arrived = false;
                for (seq, line) in (ending.seq..).zip(events()) {
                    let key = format!("{}-{seq}", self.id);
                    arrived = self
                        .repeat_event(seq, ending.body.slice_ref(line), &key, ends, cancel)
                        .await;
                }
                arrived
            }
        }
    }

    /// The same for one event. It has its number, so that to a server that takes less it can only be cut.
    async fn repeat_event(&self, seq: u64, mut body: Bytes, key: &str, ends: bool, cancel: &(dyn Fn() + Sync)) -> bool {
        loop {
            let request = Request {
                seq,
                events: 1,
                weight: Weight {
                    critical: true,
                    ending: ends,
                },
                body: body.clone(),
                content_type: JSON,
                key,
                repeated: true,
            };
            let size = match self.send_request(request, cancel).await {
                Sent::Delivered => return true,
                Sent::Refused | Sent::GivenUp => return false,
                Sent::TooLarge(size) => size,
            };
            match shortened(&body, (size / 2).max(MIN_BODY)) {
                Some(shorter) => body = shorter.into(),
                None => {
                    not_smaller(seq, size);
                    return false;
                }
            }
        }
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
        let request = Request {
            seq: first,
            events: events.len() as u64,
            weight: Weight::of(events),
            body,
            content_type,
            key: &key,
            repeated: false,
        };
        self.send_request(request, cancel).await
    }

    async fn send_request(&self, request: Request<'_>, cancel: &(dyn Fn() + Sync)) -> Sent {
        let Request {
            seq,
            weight: Weight { critical, ending },
            body,
            key,
            mut repeated,
            ..
        } = request;
        // Attempts that reached the server, and others.
        let (mut answered, mut unanswered) = (0, 0);
        let mut waited_out = false;
        loop {
            let attempt = self
                .client
                .post(request.content_type, Some(key), body.clone(), SHORT_ANSWER);
            let answer = tokio::select! {
                answer = attempt => answer,
                () = self.time.only_ending.cancelled(), if !ending => {
                    // The server is to see that this one is over before the next one comes.
                    tokio::time::sleep(ABANDONED).await;
                    return give_up(seq);
                }
            };
            // The server says that it knows the key.
            let mut is_known = false;
            let (reason, retry_after) = match answer {
                Answer::Taken { body, .. } => {
                    if asks_for_cancel(&body) {
                        cancel();
                    }
                    return Sent::Delivered;
                }
                Answer::Refused {
                    status: StatusCode::PAYLOAD_TOO_LARGE,
                    ..
                } => return Sent::TooLarge(body.len()),
                // It deals with the first attempt, or has done so.
                Answer::Refused {
                    status: StatusCode::CONFLICT,
                    reason,
                    retry_after,
                } if repeated => {
                    is_known = true;
                    answered += 1;
                    (reason, retry_after)
                }
                Answer::Refused {
                    status: StatusCode::TOO_EARLY,
                    reason,
                    retry_after,
                } => {
                    answered += 1;
                    (reason, retry_after)
                }
                Answer::Refused { reason, .. } => {
                    tracing::error!(seq, reason, "the callback refused an event; it is not sent again");
                    return Sent::Refused;
                }
                Answer::Failed {
                    reason,
                    retry_after,
                    fate,
                    ..
                } => {
                    match fate {
                        Fate::NotSent => unanswered += 1,
                        _ => {
                            answered += 1;
                            repeated = true;
                        }
                    }
                    (reason, retry_after)
                }
            };
            let attempts = answered + unanswered;
            if attempts > CRITICAL_RETRIES || (answered > OTHER_RETRIES && !critical) {
                if is_known {
                    tracing::info!(
                        seq,
                        attempts,
                        reason,
                        "the callback has an event already that was sent to it again"
                    );
                    return Sent::Delivered;
                }
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
            self.telemetry.count(EventCount::Retried, request.events);
        }
    }

    /// Takes what waits already into the same request.
    fn fill(&self, events: &mut Vec<Numbered>, queue: &EventQueue) {
        let max_body = self.max_body.load(Ordering::Relaxed);
        // Each with the task's id, and with its newline.
        let besides = max_body - self.room() + 1;
        let mut bytes: usize = events.iter().map(|event| event.record.size() + besides).sum();
        while events.len() < MAX_BATCH
            && !is_over(events)
            && let Some(next) = queue.take_more(max_body.saturating_sub(bytes + besides))
        {
            bytes += next.record.size() + besides;
            events.push(next);
        }
    }
}

fn not_smaller(seq: u64, bytes: usize) {
    tracing::error!(
        seq,
        bytes,
        "the callback refused an event as too large (status 413) that is as small as can be; it is not sent again"
    );
}

fn give_up(seq: u64) -> Sent {
    tracing::error!(
        seq,
        "an event is given up: the time that is left is for the task's ending"
    );
    Sent::GivenUp
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
