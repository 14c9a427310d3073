//! Asking the API server for tasks, and letting it know that we live.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use reqwest::StatusCode;
use serde::Serialize;

use super::assignment::Registered;
use super::journal::{Journal, now_ms};
use crate::api_client::{Answer, ApiClient, ApiConfig, ApiError, SHORT_ANSWER, asks_for_cancel};
use crate::config::StandbyConfig;
use crate::telemetry::Telemetry;
use plue_contract::http;

const JSON: &str = "application/json";

/// The longest reply to a registration, in bytes: a task in it may be wrapped, and each of its characters escaped.
pub(crate) const MAX_REPLY: usize = 2 * crate::task::MAX_DOCUMENT_BYTES;

/// How long the wait between two polls is at first, and at most.
const FIRST_POLL: Duration = Duration::from_millis(250);
const LAST_POLL: Duration = Duration::from_secs(5);

/// The longest wait after an attempt that failed.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// The least wait after an attempt that failed.
const MIN_WAIT: Duration = Duration::from_millis(50);
/// The same after one that may have left a name, and a row of the server's, behind.
const MIN_AMBIGUOUS: Duration = Duration::from_millis(250);
/// The longest wait that a server may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// What cancels one task.
pub(super) type Cancel = Arc<dyn Fn() + Send + Sync>;

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
        /// The server may have given a task: each attempt may leave a name behind.
        ambiguous: bool,
    },
}

impl Unregistered {
    fn failed(reason: String) -> Self {
        Self::Failed {
            reason,
            retry_after: None,
            ambiguous: false,
        }
    }
}

/// See the module.
pub(super) struct Registration {
    client: ApiClient,
    /// For the heartbeats, which go below the same URL. One that takes longer than the time between two is none.
    beats: ApiClient,
    config: StandbyConfig,
    journal: Arc<Journal>,
    row: Mutex<Row>,
}

/// What the server knows of us: its row of this name.
struct Row {
    name: String,
    runner_id: Option<i64>,
}

impl Registration {
    /// Under this name, which the journal has.
    ///
    /// # Errors
    /// When there can be no HTTP client.
    pub(super) fn new(
        config: &StandbyConfig,
        api: &ApiConfig,
        name: String,
        journal: Arc<Journal>,
        telemetry: &Telemetry,
    ) -> Result<Self, ApiError> {
        // A connection whose other end is gone must not hold up the next question.
        let register = ApiConfig {
            silence: MAX_WAIT,
            ..api.clone()
        };
        let beat = ApiConfig {
            timeout: api.timeout.min(config.heartbeat),
            ..register.clone()
        };
        Ok(Self {
            client: ApiClient::new(config.register_url.clone(), &register, telemetry.trace_source())?,
            beats: ApiClient::new(config.register_url.clone(), &beat, telemetry.trace_source())?,
            config: config.clone(),
            journal,
            row: Mutex::new(Row { name, runner_id: None }),
        })
    }

    /// Registers, once, and perhaps gets a task. When nobody can know whether the server has given one, the name is
    /// left.
    pub(super) async fn register(&self) -> Result<Registered, Unregistered> {
        if !self.journal.asking() {
            self.leave_name("what it does cannot be written down");
        }
        let body = self.body();
        let sent = now_ms();
        // A task is in the answer.
        // One that is too large is read, too, so that it can be refused.
        let most = MAX_REPLY;
        let unread = match self.client.post(JSON, None, body, most).await {
            Answer::Taken { body, whole: true } => match Registered::parse(&body, &self.config.register_url) {
                Ok(registered) => {
                    self.registered(&registered, sent);
                    return Ok(registered);
                }
                Err(error) => format!("a malformed reply: {error}"),
            },
            Answer::Taken { whole: false, .. } => "the reply broke off, or is too large".to_owned(),
            Answer::Refused { status, reason, .. } => {
                self.journal.waiting(None);
                return Err(match status {
                    StatusCode::UNAUTHORIZED => Unregistered::Unauthorized,
                    _ => Unregistered::failed(reason),
                });
            }
            Answer::Failed {
                reason,
                retry_after,
                status,
                fate,
            } => {
                match fate.is_ambiguous() {
                    true => self.leave_name(&reason),
                    false => self.journal.waiting(None),
                }
                // A server that is away, or what stands before it, may ask for more time than it needs. One that has
                // too many questions knows what it says.
                let bounds = match status {
                    Some(StatusCode::TOO_MANY_REQUESTS) => MAX_RETRY_AFTER,
                    _ => MAX_WAIT,
                };
                let retry_after = retry_after.map(|wait| wait.clamp(MIN_WAIT, bounds));
                return Err(Unregistered::Failed {
                    reason,
                    retry_after,
                    ambiguous: fate.is_ambiguous(),
                });
            }
        };
        self.leave_name(&unread);
        Err(Unregistered::Failed {
            reason: unread,
            retry_after: None,
            ambiguous: true,
        })
    }

    /// Takes note of an answer to a question that was sent then.
    fn registered(&self, registered: &Registered, sent: i64) {
        {
            let mut row = self.row();
            if row.runner_id.replace(registered.runner_id) != Some(registered.runner_id) {
                tracing::info!(
                    runner_id = registered.runner_id,
                    pod_name = row.name,
                    "registered at the API server"
                );
            }
        }
        match &registered.assignment {
            Ok(Some(assignment)) => self.journal.has_task(assignment, sent),
            Ok(None) => self.journal.waiting(Some(sent)),
            // The server counts it as ours, and nobody can end it.
            Err(problem) => self.leave_name(problem),
        }
    }

    fn body(&self) -> Bytes {
        let config = &self.config;
        let row = self.row();
        let register = Register {
            pod_name: &row.name,
            pod_ip: &config.pod_ip,
            node_name: config.node_name.as_deref(),
            labels: &config.labels,
        };
        serde_json::to_vec(&register).unwrap_or_default().into()
    }

    /// Goes on under a fresh name. The old one is not beaten for any more: what the server has given it, if anything,
    /// goes to another runner when it has been silent for long enough.
    pub(super) fn leave_name(&self, why: &str) {
        let name = self.journal.leave_name(why);
        *self.row() = Row { name, runner_id: None };
    }

    /// The task has ended, and the server knows it.
    pub(super) fn task_is_over(&self) {
        self.journal.waiting(None);
    }

    /// How long to wait after so many attempts to start a worker that failed in a row.
    pub(super) fn backoff(&self, failures: u32) -> Duration {
        // Where the base is next to nothing, this is still no hot loop.
        self.client.backoff(failures).max(MIN_WAIT)
    }

    /// How long to wait after so many attempts to register that failed in a row: never long, since a server that has
    /// come back has tasks that wait.
    pub(super) fn next_attempt(&self, failures: u32, ambiguous: bool) -> Duration {
        let least = if ambiguous { MIN_AMBIGUOUS } else { MIN_WAIT };
        let wait = self.backoff(failures).clamp(least, MAX_WAIT);
        http::spread(wait, 0.75..1.0)
    }

    /// Beats for as long as it is polled. `current` gives what cancels the task that runs when a beat is sent: an
    /// answer that comes late is not about the next one.
    pub(super) async fn beat(&self, current: impl Fn() -> Option<Cancel>) {
        let interval = self.config.heartbeat;
        let mut wait = interval;
        loop {
            tokio::time::sleep(wait).await;
            wait = interval;
            let id = self.row().runner_id;
            let Some(beats) = id.and_then(|id| self.beats.at(&format!("{id}/heartbeat"))) else {
                continue;
            };
            let cancel = current();
            let sent = now_ms();
            match beats.post(JSON, None, Bytes::from_static(b"{}"), SHORT_ANSWER).await {
                Answer::Taken { body, .. } => {
                    // It may have been for a name that was left meanwhile.
                    if self.row().runner_id == id {
                        self.journal.beat(sent);
                    }
                    if asks_for_cancel(&body)
                        && let Some(cancel) = cancel
                    {
                        cancel();
                    }
                }
                // It has forgotten us; between two tasks we register anyway.
                Answer::Refused { reason, .. } => tracing::warn!(reason, "the API server refused a heartbeat"),
                Answer::Failed { reason, status, .. } => {
                    tracing::warn!(reason, "a heartbeat did not arrive; trying again");
                    // A server that answers is there, and does not count us: asking it more often changes nothing.
                    if status.is_none() {
                        wait = NEXT_BEAT.min(interval);
                    }
                }
            }
        }
    }

    fn row(&self) -> MutexGuard<'_, Row> {
        self.row.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long to wait between two polls: little while the runner is young or has just had a task, then more and more.
pub(super) struct PollSchedule(Duration);

impl PollSchedule {
    pub(super) fn new() -> Self {
        Self(FIRST_POLL)
    }

    /// The next wait: up to a quarter more or less, so that many runners do not come at the same moment.
    pub(super) fn next(&mut self) -> Duration {
        let wait = self.0;
        self.0 = (wait * 3 / 2).min(LAST_POLL);
        http::spread(wait, 0.75..1.25).min(LAST_POLL)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn no_wait_for_a_server_that_is_away_is_longer_than_five_seconds() {
        let lookup = |name: &str| match name {
            "MODE" => Some("standby".to_owned()),
            "REGISTER_URL" => Some("http://127.0.0.1:1/internal/runners/register".to_owned()),
            _ => None,
        };
        let config = crate::config::Config::read(&lookup).unwrap();
        let crate::config::Mode::Standby(standby) = &config.mode else {
            unreachable!()
        };
        let folder = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(folder.path(), standby, Box::leak(Box::default()));
        let (journal, telemetry) = (Arc::new(journal), Telemetry::default());
        let registration = Registration::new(standby, &config.api, "pod".into(), journal, &telemetry).unwrap();
        let waits: Vec<Duration> = (0..40)
            .map(|failures| registration.next_attempt(failures, failures % 2 == 0))
            .collect();
        assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(5)), "{waits:?}");
        // Not a hot loop either, and many runners do not come at one moment.
        assert!(waits[39] >= Duration::from_millis(3750), "{waits:?}");
        assert!(waits[20..].windows(2).any(|pair| pair[0] != pair[1]), "{waits:?}");
    }

    #[test]
    fn polls_come_often_at_first_and_at_least_every_five_seconds() {
        let mut schedule = PollSchedule::new();
        let waits: Vec<Duration> = (0..20).map(|_| schedule.next()).collect();
        assert!(waits[0] < Duration::from_millis(400), "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= LAST_POLL), "{waits:?}");
        assert!(waits[19] >= Duration::from_millis(3750), "{waits:?}");
    }
}
