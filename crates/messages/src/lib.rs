#![doc = include_str!("../README.md")]
#![deny(missing_docs)]
#![forbid(unsafe_code)]

use std::time::Duration;

use futures::stream::BoxStream;

pub use client::{API_VERSION, AuthStyle, ClientConfig, ClientError, MessagesClient, Traceparent};
pub use conversation::{Conversation, ConversationConfig, InitialMessage, Role, ToolResult, TurnRequest};
pub use surrogates::without_halves;
pub use turn::{INVALID_INPUT_KEY, StopReason, ToolCall, Turn, Usage};

mod api_error;
mod attempts;
mod blocks;
mod client;
mod conversation;
pub mod decoder;
pub mod framing;
pub mod models;
mod surrogates;
mod turn;
mod wire;

/// What a model turn gives while it runs. `Finished` comes last, exactly once, unless an error comes in its place.
#[derive(Debug)]
pub enum TurnEvent {
    /// The answer begins; these tokens of it are paid, whatever becomes of it.
    Began {
        /// As the API tells them now.
        usage: Usage,
        /// The model that serves it.
        model: String,
    },
    /// A piece of the answer.
    Text(String),
    /// A piece of the model's thinking, when it is shown.
    Thinking(String),
    /// The model opened a tool call; its arguments are not known yet.
    ToolStarted {
        /// The call's id, which the result has to carry.
        id: String,
        /// The tool's name, as the model wrote it.
        name: String,
    },
    /// The turn is not there yet, and is asked for again for so long: told once in a turn, before the first wait.
    Waiting {
        /// What came in place of an answer.
        reason: String,
        /// How long it may take.
        patience: Duration,
    },
    /// An attempt began to answer and broke off: these tokens of it are paid, and nothing came of them.
    Wasted {
        /// As far as the API had told them.
        usage: Usage,
        /// The model that served it.
        model: String,
    },
    /// The turn is asked for again from its beginning, after something of it was given out: what comes now belongs to
    /// another message.
    Restarted {
        /// Why the attempt before broke off.
        reason: String,
    },
    /// The turn is over.
    Finished(Turn),
}

/// Why a turn failed for good: what can be retried was.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ModelError {
    /// 401, 403, 402: the key, or what it may do.
    #[error("{0}")]
    Auth(String),
    /// 404 for the model.
    #[error("{0}")]
    ModelNotFound(String),
    /// The input alone is over the context window, or the request over 32 MB.
    #[error("{0}")]
    TooLong(String),
    /// 400: the request is not one that the API takes, or takes for this model.
    #[error("{0}")]
    Refused(String),
    /// Everything else: a refusal of another kind, or no answer for as long as the operator waits.
    #[error("{0}")]
    Failed(String),
}

impl ModelError {
    /// The same kind of error with another text.
    fn map_text(self, change: impl FnOnce(String) -> String) -> Self {
        match self {
            Self::Auth(text) => Self::Auth(change(text)),
            Self::ModelNotFound(text) => Self::ModelNotFound(change(text)),
            Self::TooLong(text) => Self::TooLong(change(text)),
            Self::Refused(text) => Self::Refused(change(text)),
            Self::Failed(text) => Self::Failed(change(text)),
        }
    }
}

/// What the agent knows of the model: it streams one turn for a conversation.
pub trait Model: Send + Sync {
    /// Streams one turn. Dropping the stream cancels the request. What breaks off and may pass is asked for again
    /// inside ([`TurnEvent::Restarted`]).
    fn turn<'a>(&'a self, request: TurnRequest) -> BoxStream<'a, Result<TurnEvent, ModelError>>;
}
