//! Delivery to the callback URL: one `POST` an event, one request in flight, retried by the rules of the protocol (§3).

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Client, StatusCode};
use serde::Serialize;
use url::Url;

use super::event::{Event, TaskId};
use super::queue::{EventQueue, Numbered};
use crate::secret::Secret;

/// Retries after the first attempt of an event that must arrive.
const CRITICAL_RETRIES: u32 = 10;
/// Retries after the first attempt of any other event.
const OTHER_RETRIES: u32 = 5;
/// The longest wait between two attempts that we choose ourselves.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How much of an answer is read, in bytes: the server's is a few.
const MAX_ANSWER: usize = 64 * 1024;
/// How long the body of an answer may take after its head.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Where events go, and how.
#[derive(Clone, Debug)]
pub struct CallbackConfig {
    pub task_id: TaskId,
    pub url: Url,
    /// Sent as `Authorization: Bearer`.
    pub token: Option<Secret>,
    /// Sent as `X-Request-ID`.
    pub request_id: Option<String>,
    /// The first wait of the retry rule; each next one is twice as long.
    pub retry_base: Duration,
}

/// Why a callback client could not be made.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client for the callback cannot be made: {0}")]
pub struct CallbackError(String);

/// What became of the events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeliveryReport {
    /// Events that the server did not take.
    pub lost: u64,
    /// Whether the ending arrived.
    pub ending_delivered: bool,
}

/// Sends events to the callback URL.
pub struct Callback {
    config: CallbackConfig,
    client: Client,
    id: String,
}

/// An event as it goes over the wire.
#[derive(Serialize)]
struct Wire<'a> {
    #[serde(flatten)]
    event: &'a Event,
    task_id: &'a TaskId,
    seq: u64,
    timestamp: String,
}

/// What one attempt came to.
enum Attempt {
    /// With the body of the answer.
    Delivered(Vec<u8>),
    /// Not worth another try: the server refuses this event.
    Refused(String),
    /// Worth another try, after the given time when the server named one.
    Failed(String, Option<Duration>),
}

impl Callback {
    /// Prepares the client: no redirects, no proxy, nothing but the one URL.
    ///
    /// # Errors
    /// When the token or the request id cannot be a header, or TLS cannot be set up.
    pub fn new(config: CallbackConfig) -> Result<Self, CallbackError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(token) = &config.token {
            let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose()))
                .map_err(|_| CallbackError("CALLBACK_TOKEN has characters that no header may have".into()))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        if let Some(id) = &config.request_id {
            let value = HeaderValue::try_from(id)
                .map_err(|_| CallbackError("REQUEST_ID has characters that no header may have".into()))?;
            headers.insert("X-Request-ID", value);
        }
        let client = crate::http::client_builder(&config.url)
            .default_headers(headers)
            .timeout(REQUEST_TIMEOUT)
            .build()
            .map_err(|error| CallbackError(error.to_string()))?;
        let id = config.task_id.to_string();
        Ok(Self { config, client, id })
    }

    /// Delivers what the queue gives until the ending was dealt with. Calls `cancel` when the server asks, in an answer,
    /// for the task to be cancelled.
    pub async fn deliver(&self, queue: &EventQueue, cancel: &(dyn Fn() + Sync)) -> DeliveryReport {
        let mut report = DeliveryReport::default();
        while let Some(mut numbered) = queue.take().await {
            if let Event::Done { summary } | Event::Error { summary, .. } = &mut numbered.event {
                summary.lost_events = (report.lost > 0).then_some(report.lost);
            }
            let delivered = self.send(&numbered, cancel).await;
            if !delivered {
                report.lost += 1;
            }
            if numbered.event.is_terminal() {
                report.ending_delivered = delivered;
            }
        }
        report
    }

    /// Sends one event, with retries. The bytes are made once: a retry repeats them under the same key.
    async fn send(&self, numbered: &Numbered, cancel: &(dyn Fn() + Sync)) -> bool {
        let wire = Wire {
            event: &numbered.event,
            task_id: &self.config.task_id,
            seq: numbered.seq,
            timestamp: crate::telemetry::rfc3339(numbered.timestamp),
        };
        let body = match serde_json::to_vec(&wire) {
            Ok(body) => Bytes::from(without_nul(body)),
            Err(error) => {
                tracing::error!(seq = numbered.seq, error = %error, "an event could not be serialized");
                return false;
            }
        };
        let key = format!("{}-{}", self.id, numbered.seq);
        let retries = if numbered.event.is_critical() {
            CRITICAL_RETRIES
        } else {
            OTHER_RETRIES
        };
        for attempt in 0..=retries {
            let (reason, retry_after) = match self.attempt(body.clone(), &key).await {
                Attempt::Delivered(answer) => {
                    if asks_for_cancel(&answer) {
                        cancel();
                    }
                    return true;
                }
                Attempt::Refused(reason) => {
                    tracing::error!(
                        seq = numbered.seq,
                        reason,
                        "the callback refused an event; it is not sent again"
                    );
                    return false;
                }
                Attempt::Failed(reason, retry_after) => (reason, retry_after),
            };
            if attempt == retries {
                tracing::error!(
                    seq = numbered.seq,
                    attempts = attempt + 1,
                    reason,
                    "an event could not be delivered"
                );
                return false;
            }
            let wait = retry_after.unwrap_or_else(|| self.backoff(attempt));
            tracing::warn!(
                seq = numbered.seq,
                attempt = attempt + 1,
                wait_ms = wait.as_millis() as u64,
                reason,
                "the callback did not take an event; trying again"
            );
            tokio::time::sleep(wait).await;
        }
        false
    }

    async fn attempt(&self, body: Bytes, key: &str) -> Attempt {
        let mut request = self
            .client
            .post(self.config.url.clone())
            .header("Idempotency-Key", key)
            .body(body);
        if let Some(context) = crate::telemetry::trace_context() {
            request = request.header(crate::telemetry::TRACEPARENT, context);
        }
        let response = match request.send().await {
            Ok(response) => response,
            // `without_url`: the URL may carry credentials.
            Err(error) => return Attempt::Failed(crate::http::describe(&error.without_url()), None),
        };
        let status = response.status();
        let retry_after = crate::http::retry_after(response.headers(), jiff::Timestamp::now());
        let answer = read_answer(response).await;
        if status.is_success() {
            Attempt::Delivered(answer)
        } else if is_retryable(status) {
            Attempt::Failed(format!("status {status}"), retry_after)
        } else {
            Attempt::Refused(format!("status {status}"))
        }
    }

    /// `min(base · 2^n, 30 s)` and up to a quarter more, so that many runners do not come back at the same moment.
    fn backoff(&self, attempt: u32) -> Duration {
        let wait = self
            .config
            .retry_base
            .saturating_mul(1 << attempt.min(16))
            .min(MAX_WAIT);
        wait.mul_f64(1.0 + 0.25 * crate::http::random_fraction())
    }
}

/// Reads the body of an answer: an unread one would cost the connection. The status has decided already, so a body that
/// is too long or too slow is left, and its connection with it.
async fn read_answer(mut response: reqwest::Response) -> Vec<u8> {
    let mut answer = Vec::new();
    let read = async {
        while let Ok(Some(chunk)) = response.chunk().await {
            if answer.len() + chunk.len() > MAX_ANSWER {
                break;
            }
            answer.extend_from_slice(&chunk);
        }
    };
    let _ = tokio::time::timeout(ANSWER_TIMEOUT, read).await;
    answer
}

/// Whether an answer holds `"cancel": true`.
fn asks_for_cancel(answer: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Answer {
        #[serde(default)]
        cancel: bool,
    }
    serde_json::from_slice::<Answer>(answer).is_ok_and(|answer| answer.cancel)
}

/// A NUL, in whatever text of the event, becomes U+FFFD: the API server's database cannot store one. In JSON it can only
/// stand as `\u0000`, whose backslash is no part of an escaped backslash.
fn without_nul(mut body: Vec<u8>) -> Vec<u8> {
    let mut from = 0;
    while let Some(found) = body[from..].windows(NUL.len()).position(|window| window == NUL) {
        let at = from + found;
        let backslashes = body[..at].iter().rev().take_while(|byte| **byte == b'\\').count();
        if backslashes % 2 == 0 {
            body[at..at + NUL.len()].copy_from_slice(REPLACEMENT);
        }
        from = at + NUL.len();
    }
    body
}

const NUL: &[u8; 6] = b"\\u0000";
const REPLACEMENT: &[u8; 6] = b"\\ufffd";

fn is_retryable(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nul_becomes_the_replacement_character_wherever_it_stands() {
        let cases = [
            ("\0", "\u{fffd}"),
            ("a\0\0b", "a\u{fffd}\u{fffd}b"),
            ("a\\u0000", "a\\u0000"),
            ("\\\0", "\\\u{fffd}"),
            ("\\\\u0000\0", "\\\\u0000\u{fffd}"),
            ("u0000", "u0000"),
            ("", ""),
        ];
        for (text, expected) in cases {
            let body = serde_json::to_vec(text).unwrap_or_default();
            let sent: Option<String> = serde_json::from_slice(&without_nul(body)).ok();
            assert_eq!(sent.as_deref(), Some(expected), "{text:?}");
        }
    }
}
