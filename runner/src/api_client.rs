//! The client of the API server: what events, the registration and the heartbeat have in common. One attempt at a time;
//! who asks decides what is tried again.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Client, Response, StatusCode};
use tokio::time::Instant;
use url::Url;

use crate::telemetry::{TRACEPARENT, TraceSource};
use plue_contract::http;
use plue_contract::secret::Secret;
use plue_contract::transport::Transport;

/// The longest wait between two attempts that we choose ourselves.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// How much of an answer is read to see what it asks for, in bytes: the server's is a few.
pub const SHORT_ANSWER: usize = 64 << 10;
/// How long the body of such an answer may take after its head.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How many redirects one request follows: more than one gateway has in a row, and a circle has an end.
const MAX_REDIRECTS: usize = 5;

/// How the API server is spoken to, wherever it is.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// Sent as `Authorization: Bearer`.
    pub token: Option<Secret>,
    /// How the token is had again when the server does not take it.
    pub renewal: Option<Renewal>,
    /// By which way the server is reached.
    pub transport: Transport,
    /// Sent as `X-Request-ID`.
    pub request_id: Option<String>,
    /// How long one request may take.
    pub timeout: Duration,
    /// The first wait of the retry rule; each next one is twice as long.
    pub retry_base: Duration,
    /// After how long without a sign of life of the peer a connection with something under way is given up.
    pub silence: Duration,
    /// The largest body of an event, or of several in one request, in bytes.
    pub max_body: usize,
}

impl ApiConfig {
    /// For what waits patiently: as long as a request may take at most by default.
    pub const SILENCE: Duration = Duration::from_secs(30);
}

/// Reads the token again from where it is kept. `None`: it cannot be read now.
#[derive(Clone)]
pub struct Renewal(Arc<dyn Fn() -> Option<Secret> + Send + Sync>);

impl Renewal {
    pub fn new(read: impl Fn() -> Option<Secret> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }
}

impl fmt::Debug for Renewal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Renewal")
    }
}

/// Why a client could not be made.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client for the API server cannot be made: {0}")]
pub struct ApiError(String);

/// What one attempt came to.
#[derive(Debug)]
pub enum Answer {
    /// A 2xx. With the body, and whether all of it came.
    Taken { body: Vec<u8>, whole: bool },
    /// Not worth another try by itself: the server refuses it. `reason` says it for people.
    Refused {
        status: StatusCode,
        reason: String,
        /// After this time, when the server named one and who asked knows better.
        retry_after: Option<Duration>,
    },
    /// Worth another try.
    Failed {
        reason: String,
        /// After this time, when the server named one.
        retry_after: Option<Duration>,
        /// Of an answer, when there was one.
        status: Option<StatusCode>,
        /// What the server may have done with it.
        fate: Fate,
    },
}

/// What is known of a request that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nobody could be reached: it was not even sent.
    NotSent,
    /// It was sent, and no answer was read: the server may have done what was asked, or not.
    Unanswered,
    /// An answer came that leaves this as open: from a proxy that lost its server (502, 504), or from a server that
    /// broke off (a 5xx without a body).
    Unclear,
    /// The server has answered that it did nothing.
    Declined,
}

impl Fate {
    /// Of a request that was answered with a status that is worth another try.
    fn of_status(status: StatusCode, body: &[u8]) -> Self {
        let from_a_proxy = matches!(status, StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT);
        match status.is_server_error() && (from_a_proxy || body.is_empty()) {
            true => Self::Unclear,
            false => Self::Declined,
        }
    }

    /// Whether the server may have done what was asked.
    pub fn is_ambiguous(self) -> bool {
        matches!(self, Self::Unanswered | Self::Unclear)
    }
}

/// A client for one URL, with the token that was given for it.
///
/// It sends there, and to paths of the same origin ([`ApiClient::at`]). No URL can be handed to it later, and it
/// follows redirects within that origin alone: what a server names elsewhere gets neither the request nor the token.
#[derive(Clone)]
pub struct ApiClient {
    client: Client,
    /// The header with the token. One for all paths of the server.
    authorization: Arc<Mutex<Option<HeaderValue>>>,
    renewal: Option<Renewal>,
    url: Url,
    trace: TraceSource,
    timeout: Duration,
    retry_base: Duration,
}

impl ApiClient {
    /// Prepares the client, which follows no redirect but by itself ([`ApiClient::post`]). `trace` is asked with each
    /// request.
    ///
    /// # Errors
    /// When the token or the request id cannot be a header, or TLS cannot be set up.
    pub fn new(url: Url, config: &ApiConfig, trace: TraceSource) -> Result<Self, ApiError> {
        let mut headers = HeaderMap::new();
        let authorization = config.token.as_ref().map(bearer).transpose()?;
        if let Some(id) = &config.request_id {
            let value = HeaderValue::try_from(id)
                .map_err(|_| ApiError("REQUEST_ID has characters that no header may have".into()))?;
            headers.insert("X-Request-ID", value);
        }
        let client = http::client_builder(&url, &config.transport)
            .and_then(|builder| {
                let builder = builder.default_headers(headers).timeout(config.timeout);
                builder.tcp_user_timeout(config.silence).build()
            })
            .map_err(|error| ApiError(http::describe(&error)))?;
        Ok(Self {
            client,
            authorization: Arc::new(Mutex::new(authorization)),
            renewal: config.renewal.clone(),
            url,
            trace,
            timeout: config.timeout,
            retry_base: config.retry_base,
        })
    }

    /// The same client for another path of its origin, with the same connections. `path` is read as a link on its URL
    /// would be; `None` when it leads to another origin.
    pub fn at(&self, path: &str) -> Option<Self> {
        let url = self.url.join(path).ok()?;
        (url.origin() == self.url.origin()).then(|| Self { url, ..self.clone() })
    }

    /// Makes one attempt. `most` is how much of the answer is read.
    ///
    /// A token that the server does not take (401) is read again, once, and when it is another one now the attempt is
    /// made with that.
    ///
    /// A redirect (301, 302, 307, 308) to the same origin is followed with method, headers and body as they are, within
    /// the time of the one attempt. 303 is none of them: it says that the answer is elsewhere, and a gateway that wants
    /// somebody to log in says it too, so that nobody would know whether the request was taken.
    pub async fn post(&self, content_type: &'static str, key: Option<&str>, body: Bytes, most: usize) -> Answer {
        let sent = self.authorization();
        let answer = self.attempt(content_type, key, body.clone(), most, sent.as_ref()).await;
        if !matches!(&answer, Answer::Refused { status, .. } if *status == StatusCode::UNAUTHORIZED) {
            return answer;
        }
        match self.renewed(sent.as_ref()).await {
            Some(token) => self.attempt(content_type, key, body, most, Some(&token)).await,
            None => answer,
        }
    }

    fn authorization(&self) -> Option<HeaderValue> {
        self.authorization
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The header with the token as it is kept now, when that is not what was sent.
    async fn renewed(&self, sent: Option<&HeaderValue>) -> Option<HeaderValue> {
        // Another request may have done it.
        let now = self.authorization().filter(|now| Some(now) != sent);
        if now.is_some() {
            return now;
        }
        let renewal = self.renewal.clone()?;
        let token = tokio::task::spawn_blocking(move || (renewal.0)()).await.ok()??;
        let token = bearer(&token).ok().filter(|token| Some(token) != sent)?;
        tracing::info!("the API server took the token no more, and there is a new one");
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.clone());
        Some(token)
    }

    async fn attempt(
        &self,
        content_type: &'static str,
        key: Option<&str>,
        body: Bytes,
        most: usize,
        token: Option<&HeaderValue>,
    ) -> Answer {
        let end = Instant::now() + self.timeout;
        let mut url = self.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let left = end.saturating_duration_since(Instant::now());
            let response = match self.send(&url, content_type, key, body.clone(), left, token).await {
                Ok(response) => response,
                Err(failed) => return failed,
            };
            let status = response.status();
            if !status.is_redirection() {
                return self.answer(response, most).await;
            }
            match self.follow(&url, &response) {
                Ok(next) => url = next,
                Err(reason) => {
                    return Answer::Refused {
                        status,
                        reason,
                        retry_after: None,
                    };
                }
            }
            // An unread body would cost the connection.
            read(response, SHORT_ANSWER, ANSWER_TIMEOUT).await;
        }
        Answer::Refused {
            status: StatusCode::LOOP_DETECTED,
            reason: format!("more than {MAX_REDIRECTS} redirects, one after the other"),
            retry_after: None,
        }
    }

    /// Where a redirect leads, when it is one that is followed, or else why it is not.
    fn follow(&self, from: &Url, response: &Response) -> Result<Url, String> {
        let status = response.status();
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let mut to = location
            .and_then(|location| from.join(location).ok())
            .ok_or_else(|| format!("status {status} without a Location that is a URL"))?;
        // Who we are is said in the URL that was given, and not by the server.
        let user = to.set_username(self.url.username()).is_ok() && to.set_password(self.url.password()).is_ok();
        let shown = shown(&to);
        if to.origin() != self.url.origin() {
            let own = self.url.origin().ascii_serialization();
            return Err(format!(
                "status {status} with the Location {shown}, which is another origin than {own} and is not followed: \
                 set the URL to where the server is"
            ));
        }
        let keeps_its_method = matches!(status.as_u16(), 301 | 302 | 307 | 308);
        match keeps_its_method && user {
            true => Ok(to),
            false => Err(format!(
                "status {status} with the Location {shown}, which is not followed"
            )),
        }
    }

    /// Sends one request, and waits for the head of its answer.
    async fn send(
        &self,
        url: &Url,
        content_type: &'static str,
        key: Option<&str>,
        body: Bytes,
        left: Duration,
        token: Option<&HeaderValue>,
    ) -> Result<Response, Answer> {
        let mut request = self
            .client
            .post(url.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static(content_type))
            .timeout(left)
            .body(body);
        // Credentials in the URL are what the server is meant to get.
        let in_url = !self.url.username().is_empty() || self.url.password().is_some();
        if let Some(token) = token.filter(|_| !in_url) {
            request = request.header(AUTHORIZATION, token.clone());
        }
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        if let Some(traceparent) = (self.trace)() {
            request = request.header(TRACEPARENT, traceparent);
        }
        request.send().await.map_err(|error| {
            let fate = if error.is_connect() {
                Fate::NotSent
            } else {
                Fate::Unanswered
            };
            // `without_url`: the URL may carry credentials.
            let reason = http::describe(&error.without_url());
            Answer::Failed {
                reason,
                retry_after: None,
                status: None,
                fate,
            }
        })
    }

    /// What an answer that is no redirect says.
    async fn answer(&self, response: Response, most: usize) -> Answer {
        let status = response.status();
        let retry_after = http::retry_after(response.headers(), jiff::Timestamp::now(), http::MAX_RETRY_AFTER);
        // What is only looked at for a word may break off; a task may not.
        let patience = if most > SHORT_ANSWER {
            self.timeout
        } else {
            ANSWER_TIMEOUT
        };
        let (body, whole) = read(response, most, patience).await;
        if status.is_success() {
            Answer::Taken { body, whole }
        } else if is_retryable(status) {
            Answer::Failed {
                reason: format!("status {status}"),
                retry_after,
                status: Some(status),
                fate: Fate::of_status(status, &body),
            }
        } else {
            Answer::Refused {
                status,
                reason: format!("status {status}"),
                retry_after,
            }
        }
    }

    /// `min(base · 2^n, 30 s)` and up to a quarter more, so that many runners do not come back at the same moment.
    pub fn backoff(&self, attempt: u32) -> Duration {
        http::backoff(self.retry_base, MAX_WAIT, attempt, 1.0..1.25)
    }
}

fn bearer(token: &Secret) -> Result<HeaderValue, ApiError> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose()))
        .map_err(|_| ApiError("CALLBACK_TOKEN has characters that no header may have".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Reads the body of an answer: an unread one would cost the connection. The status has decided already, so a body that
/// is too long or too slow is left, and its connection with it.
async fn read(mut response: Response, most: usize, patience: Duration) -> (Vec<u8>, bool) {
    let mut answer = Vec::new();
    let read = async {
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if answer.len() + chunk.len() <= most => answer.extend_from_slice(&chunk),
                Ok(None) => return true,
                Ok(Some(_)) | Err(_) => return false,
            }
        }
    };
    let whole = tokio::time::timeout(patience, read).await.unwrap_or(false);
    (answer, whole)
}

/// A URL for the log: without what may be a secret in it, and as long as a log line may be.
fn shown(url: &Url) -> String {
    const MAX_BYTES: usize = 300;
    let mut bare = url.clone();
    bare.set_query(None);
    bare.set_fragment(None);
    if bare.set_username("").is_err() || bare.set_password(None).is_err() {
        // One that cannot have them.
        return format!("{}:…", bare.scheme());
    }
    let mut text = String::from(bare);
    if text.len() > MAX_BYTES {
        text.truncate(text.floor_char_boundary(MAX_BYTES));
        text.push('…');
    }
    text
}

/// Whether an answer holds `"cancel": true`.
pub fn asks_for_cancel(answer: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Answer {
        #[serde(default)]
        cancel: bool,
    }
    serde_json::from_slice::<Answer>(answer).is_ok_and(|answer| answer.cancel)
}

fn is_retryable(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
}

#[cfg(test)]
mod tests;
