//! Asking the API server for tasks, and letting it know that we live.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use reqwest::StatusCode;
use serde::Serialize;
use url::Url;

use super::assignment::Registered;
use crate::api_client::{Answer, ApiClient, ApiConfig, ApiError, SHORT_ANSWER, asks_for_cancel};
use crate::config::StandbyConfig;
use crate::task::MAX_DOCUMENT_BYTES;

const JSON: &str = "application/json";

/// How long the wait between two polls is at first, and at most.
const FIRST_POLL: Duration = Duration::from_millis(250);
const LAST_POLL: Duration = Duration::from_secs(5);

/// The least wait after an attempt that failed.
const LEAST_WAIT: Duration = Duration::from_millis(50);

/// What cancels one task.
pub(super) type Cancel = std::sync::Arc<dyn Fn() + Send + Sync>;

/// How soon a beat that failed is tried again.
const NEXT_BEAT: Duration = Duration::from_secs(2);

#[derive(Serialize)]
struct Register<'a> {
    pod_name: &'a str,
    pod_ip: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_name: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    labels: &'a [String],
}

/// Why there is no registration.
#[derive(Debug)]
pub(super) enum Unregistered {
    /// The server does not know our token: nothing will change that but the operator.
    Unauthorized,
    /// Anything else, and how long to wait.
    Failed {
        reason: String,
        retry_after: Option<Duration>,
    },
}

/// See the module.
pub(super) struct Registration {
    client: ApiClient,
    /// A beat that takes longer than the time between two is none.
    beats: ApiClient,
    url: Url,
    body: Bytes,
    interval: Duration,
    runner_id: Mutex<Option<i64>>,
}

impl Registration {
    /// # Errors
    /// When there can be no HTTP client.
    pub(super) fn new(config: &StandbyConfig, api: &ApiConfig) -> Result<Self, ApiError> {
        let url = config.register_url.clone();
        let beat = ApiConfig {
            timeout: api.timeout.min(config.heartbeat),
            ..api.clone()
        };
        let register = Register {
            pod_name: &config.pod_name,
            pod_ip: &config.pod_ip,
            node_name: config.node_name.as_deref(),
            labels: &config.labels,
        };
        Ok(Self {
            client: ApiClient::new(&url, api)?,
            beats: ApiClient::new(&url, &beat)?,
            body: serde_json::to_vec(&register).unwrap_or_default().into(),
            interval: config.heartbeat,
            runner_id: Mutex::new(None),
            url,
        })
    }

    /// Registers, once, and perhaps gets a task.
    pub(super) async fn register(&self) -> Result<Registered, Unregistered> {
        let failed = |reason: String, retry_after| Unregistered::Failed { reason, retry_after };
        // A task is in the answer.
        // One that is too large is read, too, so that it can be refused.
        let most = 2 * MAX_DOCUMENT_BYTES;
        match self.client.post(&self.url, JSON, None, self.body.clone(), most).await {
            Answer::Taken { body, whole: true } => {
                let registered = Registered::parse(&body, &self.url)
                    .map_err(|error| failed(format!("a malformed reply: {error}"), None))?;
                let before = self.lock().replace(registered.runner_id);
                if before != Some(registered.runner_id) {
                    tracing::info!(runner_id = registered.runner_id, "registered at the API server");
                }
                Ok(registered)
            }
            Answer::Taken { whole: false, .. } => Err(failed("the reply broke off, or is too large".into(), None)),
            Answer::Refused(StatusCode::UNAUTHORIZED) => Err(Unregistered::Unauthorized),
            Answer::Refused(status) => Err(failed(format!("status {status}"), None)),
            Answer::Failed {
                reason, retry_after, ..
            } => Err(failed(reason, retry_after)),
        }
    }

    /// How long to wait after so many attempts that failed in a row.
    pub(super) fn backoff(&self, failures: u32) -> Duration {
        // Where the base is next to nothing, this is still no hot loop.
        self.client.backoff(failures).max(LEAST_WAIT)
    }

    /// Beats for as long as it is polled. `current` gives what cancels the task that runs when a beat is sent: an answer that
    /// comes late is not about the next one.
    pub(super) async fn beat(&self, current: impl Fn() -> Option<Cancel>) {
        let mut wait = self.interval;
        loop {
            tokio::time::sleep(wait).await;
            wait = self.interval;
            let id = *self.lock();
            let Some(url) = id.and_then(|id| self.url.join(&format!("{id}/heartbeat")).ok()) else {
                continue;
            };
            let cancel = current();
            match self
                .beats
                .post(&url, JSON, None, Bytes::from_static(b"{}"), SHORT_ANSWER)
                .await
            {
                Answer::Taken { body, .. } => {
                    if asks_for_cancel(&body)
                        && let Some(cancel) = cancel
                    {
                        cancel();
                    }
                }
                // It has forgotten us; between two tasks we register anyway.
                Answer::Refused(status) => tracing::warn!(%status, "the API server refused a heartbeat"),
                Answer::Failed { reason, .. } => {
                    tracing::warn!(reason, "a heartbeat did not arrive; trying again");
                    wait = NEXT_BEAT.min(self.interval);
                }
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<i64>> {
        self.runner_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long to wait between two polls: little while the runner is young or has just had a task, then more and more.
pub(super) struct Pace(Duration);

impl Pace {
    pub(super) fn new() -> Self {
        Self(FIRST_POLL)
    }

    /// The next wait: up to a quarter more or less, so that many runners do not come at the same moment.
    pub(super) fn next(&mut self) -> Duration {
        let wait = self.0;
        self.0 = (wait * 3 / 2).min(LAST_POLL);
        wait.mul_f64(0.75 + 0.5 * crate::http::random_fraction()).min(LAST_POLL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_come_often_at_first_and_at_least_every_five_seconds() {
        let mut pace = Pace::new();
        let waits: Vec<Duration> = (0..20).map(|_| pace.next()).collect();
        assert!(waits[0] < Duration::from_millis(400), "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= LAST_POLL), "{waits:?}");
        assert!(waits[19] >= Duration::from_millis(3750), "{waits:?}");
    }
}
