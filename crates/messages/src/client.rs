//! The client of the Messages API: one streamed request for a turn, and the retries around it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use url::Url;

use super::api_error::ApiError;
use super::decoder::{DecodeError, TurnDecoder};
use super::{Conversation, Model, ModelError, TurnEvent};
use plue_contract::http;
use plue_contract::secret::Secret;
use plue_contract::transport::Transport;

/// The version of the API that this client speaks.
pub const API_VERSION: &str = "2026-10-21";

/// The longest wait of our own choice between two attempts; a server may ask for more.
const MAX_BACKOFF: Duration = Duration::from_secs(8);

/// How much of an error response is read, in bytes.
const MAX_ERROR_BODY: usize = 64 * 1024;

/// How long an error response may take after its head, all of it: each byte of one that drips would be within the time
/// that is waited for the next.
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the end of a response may take after the turn is over. Only when it was read can the connection serve the
/// next turn; a new one costs several round trips.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(100);

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
    /// How many attempts may follow the first.
    pub max_retries: u32,
    /// The wait before the first of them; it doubles each time, up to 8 s.
    pub retry_base: Duration,
}

impl ClientConfig {
    /// The API's rules: 4 attempts after the first, from 0.5 s, and 120 s of silence.
    pub fn new(base_url: Url, api_key: impl Into<String>) -> Self {
        Self {
            base_url,
            api_key: Secret::new(api_key),
            auth_style: AuthStyle::default(),
            transport: Transport::default(),
            request_id: None,
            traceparent: Traceparent::default(),
            idle_timeout: Duration::from_secs(120),
            max_retries: 4,
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

    /// Sends one request and reads the answer's head.
    async fn open(&self, body: Bytes, model: &str) -> Result<reqwest::Response, Failure> {
        let mut request = self
            .http
            .post(self.endpoint.clone())
            .headers(self.headers.clone())
            .body(body);
        if let Some(traceparent) = self.config.traceparent.0.as_ref().and_then(|source| source()) {
            request = request.header("traceparent", traceparent);
        }
        // The time without a byte is also that of the whole head: answers that only announce one (1xx) do not count.
        let mut response = request
            .send()
            .await
            .map_err(|error| self.lost("the request failed", error))?;
        let status = response.status();
        let request_id = request_id(&response);
        if status.is_success() {
            tracing::info!(model, request_id, status = status.as_u16(), "the model's stream began");
            return match response.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes) {
                Some(other) if other.starts_with(b"text/html") || other.starts_with(b"application/json") => {
                    let error = ModelError::Failed(format!(
                        "{} answered {} with {} in place of an event stream. Check ANTHROPIC_BASE_URL",
                        self.endpoint,
                        status.as_u16(),
                        String::from_utf8_lossy(other)
                    ));
                    Err(Failure {
                        error,
                        retry: false,
                        wait: None,
                        request_id,
                    })
                }
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
        let wait = http::retry_after(response.headers(), jiff::Timestamp::now());
        Err(Failure {
            error: error.into_error(status, model),
            retry,
            wait,
            request_id,
        })
    }

    /// A failure of the connection.
    fn lost(&self, what: &str, error: reqwest::Error) -> Failure {
        let message = if error.is_timeout() && !error.is_connect() {
            format!(
                "{what}: nothing came from the Messages API for {} s",
                self.config.idle_timeout.as_secs_f32()
            )
        } else {
            format!("{what}: {}", http::describe(&error.without_url()))
        };
        let host = self.endpoint.origin().ascii_serialization();
        Failure {
            error: ModelError::Failed(format!("{host}: {message}")),
            retry: true,
            wait: None,
            request_id: None,
        }
    }

    /// The wait before attempt number `retry` after the first, from 0: up to a quarter less than the rule says.
    fn backoff(&self, retry: u32) -> Duration {
        http::backoff(self.config.retry_base, MAX_BACKOFF, retry, 0.75..1.0)
    }

    /// Takes the key out of a text, in case the other side repeated it.
    fn without_key(&self, text: String) -> String {
        text.replace(self.config.api_key.expose(), "***")
    }
}

impl Model for MessagesClient {
    fn turn<'a>(
        &'a self,
        conversation: &Conversation,
        max_tokens: u32,
    ) -> BoxStream<'a, Result<TurnEvent, ModelError>> {
        let turn = RunningTurn {
            client: self,
            model: conversation.model().to_owned(),
            body: conversation.body(max_tokens),
            state: State::Idle,
            retries: 0,
            shown: false,
            thought: false,
        };
        stream::unfold(
            turn,
            |mut turn| async move { turn.next().await.map(|event| (event, turn)) },
        )
        .boxed()
    }
}

/// An attempt that gave no turn.
struct Failure {
    error: ModelError,
    /// Whether another attempt may help.
    retry: bool,
    /// The wait that the server asked for.
    wait: Option<Duration>,
    request_id: Option<String>,
}

/// One turn, over all its attempts.
struct RunningTurn<'a> {
    client: &'a MessagesClient,
    model: String,
    body: Bytes,
    state: State,
    retries: u32,
    /// Whether text or a tool call of this turn was given out: then it cannot be repeated unseen.
    shown: bool,
    /// Whether thinking of this attempt was given out.
    thought: bool,
}

enum State {
    Idle,
    Streaming {
        response: Box<reqwest::Response>,
        decoder: Box<TurnDecoder>,
        request_id: Option<String>,
    },
    Over,
}

impl RunningTurn<'_> {
    async fn next(&mut self) -> Option<Result<TurnEvent, ModelError>> {
        loop {
            let failure = match &mut self.state {
                State::Over => return None,
                State::Idle => match self.client.open(self.body.clone(), &self.model).await {
                    Ok(response) => {
                        self.state = State::Streaming {
                            request_id: request_id(&response),
                            response: Box::new(response),
                            decoder: Box::default(),
                        };
                        continue;
                    }
                    Err(failure) => failure,
                },
                State::Streaming {
                    response,
                    decoder,
                    request_id,
                } => match read_event(self.client, response, decoder, &self.model).await {
                    Ok(TurnEvent::Finished(mut turn)) => {
                        turn.request_id = request_id.take();
                        let drain = async { while let Ok(Some(_)) = response.chunk().await {} };
                        let _ = tokio::time::timeout(DRAIN_TIMEOUT, drain).await;
                        self.state = State::Over;
                        return Some(Ok(TurnEvent::Finished(turn)));
                    }
                    Ok(event) => {
                        self.shown |= matches!(event, TurnEvent::Text(_) | TurnEvent::ToolStarted { .. });
                        self.thought |= matches!(event, TurnEvent::Thinking(_));
                        return Some(Ok(event));
                    }
                    Err(failure) => Failure {
                        request_id: request_id.take(),
                        ..failure
                    },
                },
            };
            self.state = State::Idle;
            if let Err(error) = self.prepare_retry(failure).await {
                self.state = State::Over;
                return Some(Err(error));
            }
            if std::mem::take(&mut self.thought) {
                return Some(Ok(TurnEvent::Restarted));
            }
        }
    }

    /// Waits until the next attempt may start, or says why there is none.
    async fn prepare_retry(&mut self, failure: Failure) -> Result<(), ModelError> {
        let Failure {
            error,
            retry,
            wait,
            request_id,
        } = failure;
        let error = error.map_text(|text| self.client.without_key(text));
        let with_id = |text: String| match &request_id {
            Some(id) => format!("{text} (request-id {id})"),
            None => text,
        };
        if !retry {
            return Err(error.map_text(with_id));
        }
        if self.shown {
            return Err(error.map_text(|text| {
                with_id(format!(
                    "{text}. Part of the answer was shown already, so the turn was not repeated"
                ))
            }));
        }
        if self.retries >= self.client.config.max_retries {
            let attempts = match self.retries {
                0 => String::new(),
                retries => format!(". Gave up after {} attempts", retries + 1),
            };
            return Err(error.map_text(|text| with_id(text + &attempts)));
        }
        let wait = wait.unwrap_or_else(|| self.client.backoff(self.retries));
        self.retries += 1;
        tracing::warn!(
            attempt = self.retries,
            max_attempts = self.client.config.max_retries,
            wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            reason = %error,
            request_id,
            "the model's turn is tried again"
        );
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

/// The next event of a stream.
async fn read_event(
    client: &MessagesClient,
    response: &mut reqwest::Response,
    decoder: &mut TurnDecoder,
    model: &str,
) -> Result<TurnEvent, Failure> {
    let broken = |error: DecodeError| {
        let (retry, error) = match error {
            DecodeError::Api(error) => (error.should_retry_event(), error.into_event_error(model)),
            other => (true, ModelError::Failed(other.to_string())),
        };
        Failure {
            error,
            retry,
            wait: None,
            request_id: None,
        }
    };
    loop {
        if let Some(event) = decoder.next_event().map_err(broken)? {
            return Ok(event);
        }
        match response
            .chunk()
            .await
            .map_err(|error| client.lost("the model's stream broke", error))?
        {
            Some(chunk) => decoder.push(chunk).map_err(broken)?,
            None => return Err(broken(DecodeError::Ended)),
        }
    }
}

fn headers(config: &ClientConfig) -> Result<HeaderMap, ClientError> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
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

fn request_id(response: &reqwest::Response) -> Option<String> {
    response
        .headers()
        .get("request-id")
        .and_then(|id| id.to_str().ok())
        .map(str::to_owned)
}
