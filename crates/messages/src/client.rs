//! The client of the Messages API: what it is configured with, and one request. The attempts of a turn are in
//! [`attempts`](super::attempts).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use url::Url;

use super::api_error::ApiError;
use super::attempts::Attempts;
use super::{Model, ModelError, TurnEvent, TurnRequest};
use plue_contract::http;
use plue_contract::secret::Secret;
use plue_contract::transport::Transport;

/// The version of the API that this client speaks.
pub const API_VERSION: &str = "2026-10-21";

/// The longest wait of our own choice between two attempts; a server may ask for more.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// The longest wait that is read from an answer. Whether there is patience for it is another question.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

/// How much of an error response is read, in bytes.
const MAX_ERROR_BODY: usize = 64 * 1024;

/// How long an error response may take after its head, all of it: each byte of one that drips would be within the time
/// that is waited for the next.
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// In which header the key is sent. Gateways differ, and exactly one is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuthStyle {
    /// `x-api-key: KEY`
    #[default]
    XApiKey,
    /// `Authorization: Bearer KEY`
    Bearer,
}

/// What a [`MessagesClient`] needs to know.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The API or a gateway that speaks it; `/v1/messages` is added to its path.
    pub base_url: Url,
    /// The key; it goes into one header and nowhere else.
    pub api_key: Secret,
    /// Which header that is.
    pub auth_style: AuthStyle,
    /// By which way it is reached.
    pub transport: Transport,
    /// Sent as `X-Request-ID`.
    pub request_id: Option<String>,
    /// Gives each request its header `traceparent`.
    pub traceparent: Traceparent,
    /// How long no byte may come before the request counts as lost.
    pub idle_timeout: Duration,
    /// How long nothing of the answer may come, while pings or empty pieces do, before the attempt counts as lost.
    pub stall_timeout: Duration,
    /// How long one turn may be waited for, all attempts and the waits between them together. What an attempt takes
    /// while its answer comes is no waiting.
    pub patience: Duration,
    /// The wait before the second attempt; it doubles each time, up to 30 s.
    pub retry_base: Duration,
}

impl ClientConfig {
    /// What the API's own clients do, with the patience of a task: ten minutes, 120 s of silence and 300 s without
    /// progress.
    pub fn new(base_url: Url, api_key: impl Into<String>) -> Self {
        Self {
            base_url,
            api_key: Secret::new(api_key),
            auth_style: AuthStyle::default(),
            transport: Transport::default(),
            request_id: None,
            traceparent: Traceparent::default(),
            idle_timeout: Duration::from_secs(120),
            stall_timeout: Duration::from_secs(300),
            patience: Duration::from_secs(600),
            retry_base: Duration::from_millis(500),
        }
    }
}

/// Says in which trace a request stands, when it is about to be sent; by default in none.
#[derive(Clone, Default)]
pub struct Traceparent(Option<Arc<dyn Fn() -> Option<HeaderValue> + Send + Sync>>);

impl From<Arc<dyn Fn() -> Option<HeaderValue> + Send + Sync>> for Traceparent {
    fn from(source: Arc<dyn Fn() -> Option<HeaderValue> + Send + Sync>) -> Self {
        Self(Some(source))
    }
}

impl fmt::Debug for Traceparent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Traceparent")
    }
}

/// Why no client could be made: the configuration is wrong.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The key cannot stand in a header.
    #[error("ANTHROPIC_API_KEY must be printable ASCII without spaces around it (is there a newline at its end?)")]
    ApiKey,
    /// The request id cannot stand in a header.
    #[error("REQUEST_ID must be printable ASCII, since it is sent as the header X-Request-ID")]
    RequestId,
    /// The URL is no place for requests.
    #[error("ANTHROPIC_BASE_URL must be an http or https URL without user name and password")]
    BaseUrl,
    /// TLS cannot be set up, for this reason.
    #[error("the HTTP client for the Messages API cannot be set up (are CA certificates installed?): {0}")]
    Http(String),
}

/// The Messages API over HTTP. Requests go to the configured origin only: no redirects.
pub struct MessagesClient {
    http: reqwest::Client,
    endpoint: Url,
    headers: HeaderMap,
    config: ClientConfig,
}

impl fmt::Debug for MessagesClient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("MessagesClient")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl MessagesClient {
    /// Sets the client up; nothing is sent. For `https` this reads the system's CA certificates.
    pub fn new(config: ClientConfig) -> Result<Self, ClientError> {
        let base = &config.base_url;
        if !matches!(base.scheme(), "http" | "https") || !base.username().is_empty() || base.password().is_some() {
            return Err(ClientError::BaseUrl);
        }
        let mut endpoint = base.clone();
        endpoint.set_path(&format!("{}/v1/messages", base.path().trim_end_matches('/')));

        let http = http::client_builder(base, &config.transport)
            .and_then(|builder| builder.read_timeout(config.idle_timeout).build())
            .map_err(|error| ClientError::Http(http::describe(&error)))?;
        Ok(Self {
            http,
            endpoint,
            headers: headers(&config)?,
            config,
        })
    }

    /// Sends one request and reads the answer's head, which may take so long.
    pub(super) async fn open(&self, asked: &TurnRequest, within: Duration) -> Result<reqwest::Response, Failure> {
        let model = asked.model.as_str();
        let mut request = self
            .http
            .post(self.endpoint.clone())
            .headers(self.headers.clone())
            .body(asked.body.clone());
        if let Some(beta) = asked.beta {
            request = request.header("anthropic-beta", beta);
        }
        if let Some(traceparent) = self.config.traceparent.0.as_ref().and_then(|source| source()) {
            request = request.header("traceparent", traceparent);
        }
        // The time without a byte is also that of the whole head: answers that only announce one (1xx) do not count.
        let answer = tokio::time::timeout(within, request.send()).await;
        let Ok(answer) = answer else {
            return Err(self.silent("the request failed", within));
        };
        let mut response = answer.map_err(|error| self.lost("the request failed", error))?;
        let status = response.status();
        let request_id = request_id(&response);
        if status.is_success() {
            tracing::info!(model, request_id, status = status.as_u16(), "the model's stream began");
            // What reqwest can decode has lost this header.
            if let Some(encoding) = response
                .headers()
                .get(CONTENT_ENCODING)
                .filter(|encoding| *encoding != "identity")
            {
                return Err(Failure {
                    error: ModelError::Failed(format!(
                        "{} answered with the content encoding {:?}, which was not asked for. Check ANTHROPIC_BASE_URL \
                         and what stands before it",
                        self.endpoint, encoding
                    )),
                    retry: false,
                    wait: None,
                    request_id,
                });
            }
            return match response.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes) {
                Some(page) if page.starts_with(b"text/html") => Err(self.no_messages_api(page)),
                _ => Ok(response),
            };
        }
        let mut error_body = Vec::new();
        // What came before a body breaks off is still the best explanation there is.
        let read = async {
            while let Ok(Some(chunk)) = response.chunk().await {
                error_body.extend_from_slice(chunk.get(..MAX_ERROR_BODY - error_body.len()).unwrap_or(&chunk));
                if error_body.len() >= MAX_ERROR_BODY {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(ERROR_BODY_TIMEOUT.min(self.config.idle_timeout), read).await;
        let error = ApiError::parse(&error_body);
        let request_id = request_id.or_else(|| error.request_id.clone());
        let retry = error.should_retry(status, response.headers());
        let wait = http::retry_after(response.headers(), jiff::Timestamp::now(), MAX_RETRY_AFTER);
        Err(Failure {
            error: error.into_error(status, model, &self.endpoint),
            retry,
            wait,
            request_id,
        })
    }

    /// A failure of the connection.
    pub(super) fn lost(&self, what: &str, error: reqwest::Error) -> Failure {
        if error.is_timeout() && !error.is_connect() {
            return self.silent(what, self.config.idle_timeout);
        }
        let error = error.without_url();
        // Nobody else's certificate comes of waiting, nor another request.
        let may_pass = !error.is_builder() && !http::is_certificate_error(&error);
        let mut message = format!("{}: {what}: {}", self.host(), http::describe(&error));
        if !may_pass && !error.is_builder() {
            message.push_str(". Check ANTHROPIC_BASE_URL, and that the authority that signed it is trusted here");
        }
        Failure {
            error: ModelError::Failed(message),
            retry: may_pass,
            wait: None,
            request_id: None,
        }
    }

    /// Nothing came for so long.
    pub(super) fn silent(&self, what: &str, so_long: Duration) -> Failure {
        Failure::passing(format!(
            "{}: {what}: nothing came from the Messages API for {} s",
            self.host(),
            so_long.as_secs_f32()
        ))
    }

    /// What answers is something else: it will answer the same to every attempt.
    pub(super) fn no_messages_api(&self, content_type: &[u8]) -> Failure {
        Failure {
            error: ModelError::Failed(format!(
                "{} answered with {} in place of an event stream or a message. Check ANTHROPIC_BASE_URL",
                self.endpoint,
                String::from_utf8_lossy(content_type)
            )),
            retry: false,
            wait: None,
            request_id: None,
        }
    }

    fn host(&self) -> String {
        self.endpoint.origin().ascii_serialization()
    }

    pub(super) fn endpoint(&self) -> &Url {
        &self.endpoint
    }

    pub(super) fn config(&self) -> &ClientConfig {
        &self.config
    }

    /// The wait before attempt number `retry` after the first, from 0: up to a quarter less than the rule says.
    pub(super) fn backoff(&self, retry: u32) -> Duration {
        http::backoff(self.config.retry_base, MAX_BACKOFF, retry, 0.75..1.0)
    }

    /// Takes the key out of a text, in case the other side repeated it.
    pub(super) fn without_key(&self, text: String) -> String {
        text.replace(self.config.api_key.expose(), "***")
    }
}

impl Model for MessagesClient {
    fn turn<'a>(&'a self, request: TurnRequest) -> BoxStream<'a, Result<TurnEvent, ModelError>> {
        let attempts = Attempts::new(self, request);
        stream::unfold(attempts, |mut attempts| async move {
            attempts.next().await.map(|event| (event, attempts))
        })
        .boxed()
    }
}

/// An attempt that gave no turn.
pub(super) struct Failure {
    pub(super) error: ModelError,
    /// Whether another attempt may help.
    pub(super) retry: bool,
    /// The wait that the server asked for.
    pub(super) wait: Option<Duration>,
    pub(super) request_id: Option<String>,
}

impl Failure {
    /// One that another attempt may not have.
    pub(super) fn passing(message: String) -> Self {
        Self {
            error: ModelError::Failed(message),
            retry: true,
            wait: None,
            request_id: None,
        }
    }
}

fn headers(config: &ClientConfig) -> Result<HeaderMap, ClientError> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // A stream of small events gains nothing by compression. What is compressed all the same is read.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.insert(
        HeaderName::from_static("anthropic-version"),
        HeaderValue::from_static(API_VERSION),
    );
    let (name, value) = match config.auth_style {
        AuthStyle::XApiKey => (HeaderName::from_static("x-api-key"), config.api_key.expose().to_owned()),
        AuthStyle::Bearer => (
            reqwest::header::AUTHORIZATION,
            format!("Bearer {}", config.api_key.expose()),
        ),
    };
    if config.api_key.expose().is_empty() || !config.api_key.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ClientError::ApiKey);
    }
    let mut value = HeaderValue::try_from(value).map_err(|_| ClientError::ApiKey)?;
    // Keeps it out of Debug output, and out of the compression tables of HTTP/2.
    value.set_sensitive(true);
    headers.insert(name, value);
    if let Some(id) = &config.request_id {
        let value = HeaderValue::from_str(id).map_err(|_| ClientError::RequestId)?;
        headers.insert(HeaderName::from_static("x-request-id"), value);
    }
    Ok(headers)
}

pub(super) fn request_id(response: &reqwest::Response) -> Option<String> {
    response
        .headers()
        .get("request-id")
        .and_then(|id| id.to_str().ok())
        .map(str::to_owned)
}
