//! What the API says when it refuses: the body of an error response, or the `error` event of a stream. Says for each
//! whether it is worth trying again, and what a person has to do about it.

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde::Deserialize;
use url::Url;

use super::{ModelError, models, surrogates};

/// How much of a message from outside is repeated in ours, in characters.
const MAX_MESSAGE_CHARS: usize = 500;

/// An error as the API describes it; every part may be missing, since gateways and proxies answer what they like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiError {
    /// `error.type`, `rate_limit_error` for instance. Empty when there was none.
    pub kind: String,
    /// `error.message`, or the beginning of a body that is not of the API's shape.
    pub message: String,
    /// `error.details.error_code`.
    pub error_code: Option<String>,
    /// `request_id` of the body.
    pub request_id: Option<String>,
}

impl ApiError {
    /// Reads an error body or the data of an `error` event. Never fails: what is not of the API's shape becomes the
    /// message.
    pub fn parse(body: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Envelope {
            error: Inner,
            request_id: Option<String>,
        }
        #[derive(Deserialize)]
        struct Inner {
            #[serde(default)]
            r#type: Option<String>,
            #[serde(default)]
            message: Option<String>,
            #[serde(default)]
            details: Option<serde_json::Value>,
        }
        let text = String::from_utf8_lossy(body);
        match serde_json::from_str::<Envelope>(&surrogates::without_halves(&text)) {
            Ok(envelope) => Self {
                kind: envelope.error.r#type.unwrap_or_default(),
                message: excerpt(&envelope.error.message.unwrap_or_default()),
                error_code: envelope
                    .error
                    .details
                    .and_then(|details| details.get("error_code")?.as_str().map(str::to_owned)),
                request_id: envelope.request_id,
            },
            Err(_) => Self {
                message: excerpt(&String::from_utf8_lossy(body)),
                ..Self::default()
            },
        }
    }

    /// One line: type, code and message, as far as they are there.
    pub fn describe(&self) -> String {
        let mut text = self.kind.clone();
        if let Some(code) = &self.error_code {
            text.push_str(&format!(" ({code})"));
        }
        if !self.message.is_empty() {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&self.message);
        }
        if text.is_empty() {
            "no explanation was given".to_owned()
        } else {
            text
        }
    }

    /// A spending limit that waiting does not lift.
    fn is_spend_limit(&self) -> bool {
        matches!(
            self.error_code.as_deref(),
            Some("enforced_spend_limit_reached" | "contract_spend_limit_reached")
        )
    }

    /// Whether an error response may be followed by another try.
    pub fn should_retry(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        if self.is_spend_limit() {
            return false;
        }
        match headers.get("x-should-retry").map(|value| value.as_bytes()) {
            Some(b"true") => true,
            Some(b"false") => false,
            _ => matches!(status.as_u16(), 408 | 409 | 429) || status.is_server_error(),
        }
    }

    /// Whether an `error` event in a stream may be followed by another try: it comes without a status, so its type
    /// decides. An unknown type is tried again, since a request that was accepted is not at fault itself.
    pub fn should_retry_event(&self) -> bool {
        !self.is_spend_limit()
            && !matches!(
                self.kind.as_str(),
                "invalid_request_error"
                    | "authentication_error"
                    | "billing_error"
                    | "permission_error"
                    | "not_found_error"
                    | "request_too_large"
            )
    }

    /// The error of an `error` event.
    pub fn into_event_error(self, model: &str, endpoint: &Url) -> ModelError {
        let status = match self.kind.as_str() {
            "authentication_error" => StatusCode::UNAUTHORIZED,
            "billing_error" => StatusCode::PAYMENT_REQUIRED,
            "permission_error" => StatusCode::FORBIDDEN,
            "not_found_error" => StatusCode::NOT_FOUND,
            "request_too_large" => StatusCode::PAYLOAD_TOO_LARGE,
            _ => {
                return ModelError::Failed(format!(
                    "the Messages API ended its stream with an error: {}",
                    self.describe()
                ));
            }
        };
        self.into_error(status, model, endpoint)
    }

    /// Whether it says that the prompt is larger than the context window: in the API's words, or in those of others
    /// that serve its models.
    fn is_about_the_window(&self) -> bool {
        const WORDS: [&str; 5] = [
            "prompt is too long",
            "input is too long",
            "context length",
            "context window",
            "maximum context",
        ];
        let message = self.message.to_ascii_lowercase();
        WORDS.iter().any(|words| message.contains(words))
    }

    /// Whether it says that there is no such model, and not that there is nothing at this place at all.
    fn is_about_a_model(&self) -> bool {
        self.kind == "not_found_error" && self.message.to_ascii_lowercase().contains("model")
    }

    /// The error of a response with this status, for a request to this place that named this model.
    pub fn into_error(self, status: StatusCode, model: &str, endpoint: &Url) -> ModelError {
        let said = format!("the Messages API answered {}: {}", status.as_u16(), self.describe());
        match status.as_u16() {
            401 => ModelError::Auth(format!(
                "{said}. Check ANTHROPIC_API_KEY, and ANTHROPIC_AUTH_STYLE (x-api-key or bearer), which says in which \
                 header it is sent"
            )),
            402 => ModelError::Auth(format!(
                "{said}. Check the billing of the account that ANTHROPIC_API_KEY belongs to"
            )),
            403 => ModelError::Auth(format!(
                "{said}. Check what the key in ANTHROPIC_API_KEY is allowed to do"
            )),
            404 if !self.is_about_a_model() => ModelError::Failed(format!(
                "no Messages API at {}: check ANTHROPIC_BASE_URL ({said})",
                without_query(endpoint)
            )),
            404 => ModelError::ModelNotFound(format!("{said}. {}", not_found_advice(model))),
            413 => ModelError::TooLong(format!(
                "{said}. A request may have 32 MB: the conversation has grown too large"
            )),
            // The only 400 that is told apart by its message: the API gives no code for it.
            400 if self.is_about_the_window() => ModelError::TooLong(format!(
                "{said}. The conversation is larger than the context window of {model}"
            )),
            400 => ModelError::Refused(said),
            429 if self.is_spend_limit() => ModelError::Failed(format!(
                "{said}. The account's spending limit is reached; waiting does not lift it"
            )),
            300..=399 => ModelError::Failed(format!(
                "the Messages API answered {} with a redirect, which is not followed. Set ANTHROPIC_BASE_URL to where \
                 the API really is",
                status.as_u16()
            )),
            _ => ModelError::Failed(said),
        }
    }
}

/// A URL as it may be shown: what stands behind the path may be a secret.
fn without_query(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

fn not_found_advice(model: &str) -> String {
    match models::retired(model) {
        Some(retired) => format!(
            "{model} was retired on {}. Let the operator set MODEL_ALIASES={model}={}, or ask for that model",
            retired.retired_on, retired.replacement
        ),
        None => match models::lookup(model).and_then(|known| known.replacement.as_deref()) {
            Some(replacement) => format!(
                "{model} may have been retired since {}. Let the operator set MODEL_ALIASES={model}={replacement}, or \
                 check ANTHROPIC_BASE_URL",
                models::as_of()
            ),
            None => format!(
                "Check the name of the model ({model}) and ANTHROPIC_BASE_URL; MODEL_ALIASES sends another model in \
                    its place"
            ),
        },
    }
}

/// The beginning of a text from outside, on one line.
fn excerpt(text: &str) -> String {
    let mut out = String::new();
    for (count, word) in text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|w| !w.is_empty())
        .enumerate()
    {
        if count > 0 {
            out.push(' ');
        }
        out.push_str(word);
        if let Some((cut, _)) = out.char_indices().nth(MAX_MESSAGE_CHARS) {
            out.truncate(cut);
            out.push('…');
            break;
        }
    }
    out
}
