//! One turn over all its attempts: what breaks off and may pass is asked for again, for as long as the operator is
//! patient, also after part of the answer was given out.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use tokio::time::Instant;

use super::client::{Failure, MessagesClient, request_id};
use super::decoder::{DecodeError, TurnDecoder};
use super::framing::MAX_TURN_BYTES;
use super::{ModelError, TurnEvent, TurnRequest};

/// How many attempts may begin to answer and break off: each is paid.
const MAX_BROKEN: u32 = 20;

/// How long an attempt may take at least until it is answered, however little patience is left.
const LEAST_ATTEMPT: Duration = Duration::from_secs(1);

/// How often in a turn a server's own wait is taken as it is.
const POLITE: u32 = 3;

/// How long the end of a response may take after the turn is over. Only when it was read can the connection serve the
/// next turn; a new one costs several round trips.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(100);

/// How long `message_stop` may take when nothing else is missing.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// One turn, over all its attempts.
pub(super) struct Attempts<'a> {
    client: &'a MessagesClient,
    request: TurnRequest,
    state: State,
    /// What is given out before anything else is done.
    pending: VecDeque<Result<TurnEvent, ModelError>>,
    /// Attempts that failed.
    failed: u32,
    /// Those of them that had begun to answer.
    broken: u32,
    /// The time that nothing came in.
    waited: Duration,
    /// Since when nothing has come.
    since: Instant,
    /// Whether something of this attempt was given out.
    shown: bool,
    told_waiting: bool,
}

enum State {
    Asking,
    Streaming(Box<Streaming>),
    Waiting(Duration),
    Over,
}

struct Streaming {
    response: reqwest::Response,
    decoder: TurnDecoder,
    request_id: Option<String>,
    /// Of a message that comes in one piece: what there is of it.
    whole: Option<BytesMut>,
    began: bool,
}

impl<'a> Attempts<'a> {
    pub(super) fn new(client: &'a MessagesClient, request: TurnRequest) -> Self {
        Self {
            client,
            request,
            state: State::Asking,
            pending: VecDeque::new(),
            failed: 0,
            broken: 0,
            waited: Duration::ZERO,
            since: Instant::now(),
            shown: false,
            told_waiting: false,
        }
    }

    pub(super) async fn next(&mut self) -> Option<Result<TurnEvent, ModelError>> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(event);
            }
            let failure = match &mut self.state {
                State::Over => return None,
                State::Waiting(wait) => {
                    let wait = *wait;
                    tokio::time::sleep(wait).await;
                    self.waited += wait;
                    self.state = State::Asking;
                    continue;
                }
                State::Asking => {
                    self.since = Instant::now();
                    // Whoever has no patience still asks once, for as long as silence may last.
                    let silence = self.client.config().idle_timeout;
                    let within = match self.client.config().patience.is_zero() {
                        true => silence,
                        false => self.left().max(LEAST_ATTEMPT).min(silence),
                    };
                    match self.client.open(&self.request, within).await {
                        Ok(response) => {
                            self.state = State::Streaming(Box::new(Streaming {
                                request_id: request_id(&response),
                                response,
                                decoder: TurnDecoder::new(),
                                whole: None,
                                began: false,
                            }));
                            continue;
                        }
                        Err(failure) => failure,
                    }
                }
                State::Streaming(stream) => match stream
                    .next_event(self.client, &self.request.model, &mut self.since)
                    .await
                {
                    Ok(TurnEvent::Finished(mut turn)) => {
                        turn.request_id = stream.request_id.take();
                        let drain = async { while let Ok(Some(_)) = stream.response.chunk().await {} };
                        let _ = tokio::time::timeout(DRAIN_TIMEOUT, drain).await;
                        self.state = State::Over;
                        return Some(Ok(TurnEvent::Finished(turn)));
                    }
                    Ok(event) => {
                        self.shown |= !matches!(event, TurnEvent::Began { .. });
                        return Some(Ok(event));
                    }
                    Err(failure) => {
                        if let Some((usage, model)) = stream.decoder.spent() {
                            self.broken += 1;
                            let model = model.to_owned();
                            self.pending.push_back(Ok(TurnEvent::Wasted { usage, model }));
                        }
                        Failure {
                            request_id: stream.request_id.take(),
                            ..failure
                        }
                    }
                },
            };
            self.follow(failure);
        }
    }

    /// What there is left of the operator's patience.
    fn left(&self) -> Duration {
        self.client.config().patience.saturating_sub(self.waited)
    }

    /// Decides what follows an attempt that failed.
    fn follow(&mut self, failure: Failure) {
        self.waited += self.since.elapsed();
        self.failed += 1;
        let request_id = failure.request_id.clone();
        match self.wait_after(failure) {
            Ok((wait, reason)) => {
                let patience = self.client.config().patience;
                tracing::warn!(
                    attempt = self.failed,
                    wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
                    waited_s = self.waited.as_secs(),
                    patience_s = patience.as_secs(),
                    reason,
                    request_id,
                    "the model's turn is tried again"
                );
                if std::mem::take(&mut self.shown) {
                    let reason = reason.clone();
                    self.pending.push_back(Ok(TurnEvent::Restarted { reason }));
                }
                if !std::mem::replace(&mut self.told_waiting, true) {
                    self.pending.push_back(Ok(TurnEvent::Waiting { reason, patience }));
                }
                self.state = State::Waiting(wait);
            }
            Err(error) => {
                self.state = State::Over;
                self.pending.push_back(Err(error));
            }
        }
    }

    /// The wait before the next attempt, and what it waits for; or why there is none.
    fn wait_after(&self, failure: Failure) -> Result<(Duration, String), ModelError> {
        let Failure {
            error,
            retry,
            wait,
            request_id,
        } = failure;
        let error = error.map_text(|text| self.client.without_key(text));
        let failed = |why: Option<&str>| {
            let mut said = error.to_string();
            if let Some(why) = why {
                said.push_str(". Gave up");
                if self.failed > 1 {
                    said.push_str(&format!(" after {} attempts", self.failed));
                }
                said.push_str(&format!(": {why}"));
            }
            if let Some(id) = &request_id {
                said.push_str(&format!(" (request-id {id})"));
            }
            Err(error.clone().map_text(|_| said))
        };
        if !retry {
            return failed(None);
        }
        let left = self.left();
        let patience = self.client.config().patience.as_secs_f64();
        if self.broken >= MAX_BROKEN {
            return failed(Some("each of them broke off in the middle"));
        }
        if left.is_zero() {
            return failed(Some(&format!("MODEL_PATIENCE ({patience} s) is over")));
        }
        match wait {
            Some(wait) if wait > left => failed(Some(&format!(
                "it asks to wait {} s, and {:.0} s of MODEL_PATIENCE are left",
                wait.as_secs(),
                left.as_secs_f64()
            ))),
            // A server that has said so several times is not asked as often as it likes.
            Some(wait) if self.failed > POLITE => Ok((
                wait.max(self.client.backoff(self.failed - 1)).min(left),
                error.to_string(),
            )),
            Some(wait) => Ok((wait, error.to_string())),
            None => Ok((self.client.backoff(self.failed - 1).min(left), error.to_string())),
        }
    }
}

impl Streaming {
    /// The next event. `since` becomes the time at which something of the answer came last.
    async fn next_event(
        &mut self,
        client: &MessagesClient,
        model: &str,
        since: &mut Instant,
    ) -> Result<TurnEvent, Failure> {
        match self.read(client, model, since).await {
            Ok(event) => Ok(event),
            // Nothing is missing that anybody needs.
            Err(failure) => match self.decoder.complete() {
                Some(turn) => {
                    let reason = client.without_key(failure.error.to_string());
                    tracing::warn!(
                        reason,
                        "the model's turn is complete, and its stream broke off before it said so"
                    );
                    Ok(turn)
                }
                None => Err(failure),
            },
        }
    }

    async fn read(&mut self, client: &MessagesClient, model: &str, since: &mut Instant) -> Result<TurnEvent, Failure> {
        let kind = self.response.headers().get(CONTENT_TYPE).cloned();
        let broken = |error: DecodeError| match error {
            DecodeError::Api(error) => Failure {
                retry: error.should_retry_event(),
                error: error.into_event_error(model, client.endpoint()),
                wait: None,
                request_id: None,
            },
            DecodeError::NoMessage => {
                client.no_messages_api(kind.as_ref().map_or(b"an unknown content type", HeaderValue::as_bytes))
            }
            other => Failure::passing(other.to_string()),
        };
        let stall = client.config().stall_timeout;
        loop {
            let progress = self.decoder.progress();
            let event = self.decoder.next_event().map_err(broken)?;
            if self.decoder.progress() != progress {
                *since = Instant::now();
            }
            if let Some(event) = event {
                return Ok(event);
            }
            let within = if self.decoder.is_complete() {
                STOP_TIMEOUT.min(stall)
            } else {
                stall
            };
            let Ok(chunk) = tokio::time::timeout_at(*since + within, self.response.chunk()).await else {
                return Err(Failure::passing(format!(
                    "the model's stream stalled: for {} s nothing of the answer came",
                    within.as_secs_f32()
                )));
            };
            match chunk.map_err(|error| client.lost("the model's stream broke", error))? {
                Some(chunk) => self.take(chunk).map_err(broken)?,
                None => match self.whole.take() {
                    Some(body) => self.decoder.take_whole(&body).map_err(broken)?,
                    None => {
                        if let Some(event) = self.decoder.end().map_err(broken)? {
                            tracing::warn!("the model's stream ended without saying so; its turn is complete");
                            return Ok(event);
                        }
                    }
                },
            }
        }
    }

    /// Takes a chunk of the body. An event stream never begins with a brace, which begins a message in one piece, nor
    /// as a page does.
    fn take(&mut self, chunk: Bytes) -> Result<(), DecodeError> {
        if let Some(whole) = &mut self.whole {
            if whole.len() + chunk.len() > MAX_TURN_BYTES {
                return Err(super::framing::FramingError::TurnTooLarge.into());
            }
            whole.extend_from_slice(&chunk);
            return Ok(());
        }
        let first = chunk.iter().find(|byte| !byte.is_ascii_whitespace());
        if !self.began && first == Some(&b'{') {
            self.whole = Some(BytesMut::from(chunk));
            return Ok(());
        }
        if !self.began && first == Some(&b'<') {
            return Err(DecodeError::NoMessage);
        }
        self.began |= first.is_some();
        self.decoder.push(chunk)
    }
}
