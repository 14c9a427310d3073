//! What the double of the API server answers, faults included.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use futures::stream;
use serde_json::{Value, json};

use crate::loopback::Wire;

/// How long the first half of a broken answer has to reach the client before the connection is cut.
const HALF: Duration = Duration::from_millis(30);

/// What the double answers to a request that is well formed.
#[derive(Clone, Debug)]
pub enum Answer {
    /// What the real server answers: `200`, for an event with `{"ok":true}`.
    Ok,
    /// `200` with this body.
    Say(Value),
    /// This status and an empty body. A 2xx delivers too.
    Status(u16),
    /// This status and this body.
    StatusSaying(u16, Value),
    /// This status with `Retry-After` in seconds.
    RetryAfter(u16, u64),
    /// This status with `retry-after-ms`.
    RetryAfterMs(u16, u64),
    /// This status, and another place to send the request to.
    Redirect(u16, String),
    /// This status and the head of a whole answer, half of its body, and the end of the connection. The head says
    /// whether the event is delivered.
    Half(u16),
    /// The connection ends without an answer.
    Cut,
    /// The request is dealt with, and the connection ends without an answer. The client has to ask again, with the same
    /// bytes under the same key.
    LostAck,
    /// Nothing for so long, and then the end of the connection.
    Stall(Duration),
    /// The answer comes so much later.
    Late(Duration, Box<Answer>),
}

impl Answer {
    /// The status that the client sees; 0 when it sees none.
    pub(crate) fn status(&self) -> u16 {
        match self {
            Answer::Ok | Answer::Say(_) => 200,
            Answer::Status(status)
            | Answer::StatusSaying(status, _)
            | Answer::RetryAfter(status, _)
            | Answer::RetryAfterMs(status, _)
            | Answer::Redirect(status, _)
            | Answer::Half(status) => *status,
            Answer::Cut | Answer::LostAck | Answer::Stall(_) => 0,
            Answer::Late(_, then) => then.status(),
        }
    }

    /// Whether the server has taken the request, whatever the client knows of that.
    pub(crate) fn takes(&self) -> bool {
        match self {
            Answer::LostAck => true,
            Answer::Late(_, then) => then.takes(),
            answer => (200..300).contains(&answer.status()),
        }
    }

    /// Whether the client can know that its request was taken.
    pub(crate) fn tells(&self) -> bool {
        (200..300).contains(&self.status())
    }

    /// Whether the client can read all of it.
    pub(crate) fn is_whole(&self) -> bool {
        match self {
            Answer::Half(_) => false,
            Answer::Late(_, then) => then.is_whole(),
            answer => answer.tells(),
        }
    }

    /// Answers. `usual` is the body of the real server's answer.
    pub(crate) async fn give(mut self, wire: &Wire, usual: String) -> Response {
        loop {
            return match self {
                Answer::Ok => reply(200, usual),
                Answer::Say(body) => reply(200, body.to_string()),
                Answer::Status(status) => reply(status, String::new()),
                Answer::StatusSaying(status, body) => reply(status, body.to_string()),
                Answer::RetryAfter(status, seconds) => with(reply(status, String::new()), header::RETRY_AFTER, seconds),
                Answer::RetryAfterMs(status, milliseconds) => {
                    let name = HeaderName::from_static("retry-after-ms");
                    with(reply(status, String::new()), name, milliseconds)
                }
                Answer::Redirect(status, to) => with(reply(status, String::new()), header::LOCATION, to),
                Answer::Half(status) => half(status, usual, wire.clone()),
                Answer::Cut | Answer::LostAck => cut(wire),
                Answer::Stall(time) => {
                    tokio::time::sleep(time).await;
                    cut(wire)
                }
                Answer::Late(by, then) => {
                    tokio::time::sleep(by).await;
                    self = *then;
                    continue;
                }
            };
        }
    }
}

/// What the real server says to an event and to a heartbeat.
pub(crate) fn ok() -> String {
    json!({ "ok": true }).to_string()
}

pub(crate) fn reply(status: u16, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status that HTTP knows");
    with(response, header::CONTENT_TYPE, "application/json")
}

fn with(mut response: Response, name: HeaderName, value: impl ToString) -> Response {
    let value = HeaderValue::try_from(value.to_string()).expect("a header value");
    response.headers_mut().insert(name, value);
    response
}

pub(crate) fn cut(wire: &Wire) -> Response {
    wire.cut();
    reply(500, String::new())
}

fn half(status: u16, body: String, wire: Wire) -> Response {
    let length = body.len();
    let half = Bytes::from(body).slice(..length / 2);
    let parts = stream::unfold(Some(half), move |half| {
        let wire = wire.clone();
        async move {
            if let Some(half) = half {
                return Some((Ok(half), None));
            }
            tokio::time::sleep(HALF).await;
            wire.cut();
            Some((Err(std::io::Error::other("half of it is all")), None))
        }
    });
    let mut response = reply(status, String::new());
    *response.body_mut() = Body::from_stream(parts);
    with(response, header::CONTENT_LENGTH, length)
}
