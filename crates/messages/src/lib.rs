#![doc = include_str!("../README.md")]
#![deny(missing_docs)]
#![forbid(unsafe_code)]

use futures::stream::BoxStream;
use serde_json::value::RawValue;

pub use client::{API_VERSION, AuthStyle, ClientConfig, ClientError, MessagesClient, Traceparent};
pub use conversation::{Conversation, ConversationConfig, InitialMessage, Role, ToolResult};

mod api_error;
mod blocks;
mod client;
mod conversation;
pub mod decoder;
pub mod framing;
pub mod models;
mod wire;

/// What a model turn gives while it runs. `Finished` comes last, exactly once, unless an error comes in its place.
#[derive(Debug)]
pub enum TurnEvent {
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
    /// The turn is asked for again from its beginning, after thinking of it was given out already: what comes now
    /// belongs to another message.
    Restarted,
    /// The turn is over.
    Finished(Turn),
}

/// One finished turn of the model.
#[derive(Debug)]
pub struct Turn {
    /// Every block as the raw JSON that came, unknown kinds too.
    pub content: Vec<Box<RawValue>>,
    /// The tool calls of the content, in order.
    pub tool_calls: Vec<ToolCall>,
    /// Whether the content has a text block that is not blank.
    pub has_text: bool,
    /// Why the model stopped.
    pub stop: StopReason,
    /// The tokens of this turn.
    pub usage: Usage,
    /// The model that served, as the API names it.
    pub model: String,
    /// The message's id.
    pub id: Option<String>,
    /// The `request-id` of the response.
    pub request_id: Option<String>,
}

/// Arguments that are no JSON object are kept as the text under this key of an object: where an object is asked for (by
/// the API, by the events) nothing else can stand.
pub const INVALID_INPUT_KEY: &str = "INVALID_JSON";

/// One call that the model asks for.
#[derive(Clone, Debug)]
pub struct ToolCall {
    /// Which its result has to carry.
    pub id: String,
    /// The tool's name, as the model wrote it.
    pub name: String,
    /// The JSON text of the arguments as the model wrote it. It may be no JSON at all: the block in the turn's content
    /// then holds `{"INVALID_JSON": TEXT}`, since the API takes back nothing but an object.
    pub input: String,
}

/// Why the model stopped.
#[derive(Clone, Debug, PartialEq)]
pub enum StopReason {
    /// It has said what it had to say.
    EndTurn,
    /// It waits for the results of the tools that it called.
    ToolUse,
    /// The API cut a long turn: the same history, sent again, goes on with it.
    PauseTurn,
    /// The answer has as many tokens as `max_tokens` allows.
    MaxTokens,
    /// One of the request's stop sequences came: this one.
    StopSequence(Option<String>),
    /// It does not answer this.
    Refusal {
        /// The API's word for the reason.
        category: Option<String>,
        /// A sentence for people.
        explanation: Option<String>,
    },
    /// Prompt and answer together fill the model's context window.
    ContextWindowExceeded,
    /// A value that we do not know.
    Other(String),
}

impl StopReason {
    /// As the API names it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::EndTurn => "end_turn",
            Self::ToolUse => "tool_use",
            Self::PauseTurn => "pause_turn",
            Self::MaxTokens => "max_tokens",
            Self::StopSequence(_) => "stop_sequence",
            Self::Refusal { .. } => "refusal",
            Self::ContextWindowExceeded => "model_context_window_exceeded",
            Self::Other(reason) => reason,
        }
    }
}

/// Tokens of one turn, or of several added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of the prompt, but for what came from the cache or went into it.
    pub input_tokens: u64,
    /// Of the answer, thinking included.
    pub output_tokens: u64,
    /// Of the prompt, read from the cache.
    pub cache_read_tokens: u64,
    /// Of the prompt, written into the cache.
    pub cache_write_tokens: u64,
}

impl std::ops::AddAssign for Usage {
    /// The numbers come from outside: they must not end the task by an overflow.
    fn add_assign(&mut self, other: Self) {
        let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
        add(&mut self.input_tokens, other.input_tokens);
        add(&mut self.output_tokens, other.output_tokens);
        add(&mut self.cache_read_tokens, other.cache_read_tokens);
        add(&mut self.cache_write_tokens, other.cache_write_tokens);
    }
}

/// Why a turn failed for good: what can be retried was.
#[derive(Debug, thiserror::Error)]
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
    /// Everything else: a bad request, retries used up, a broken stream, an error after something was shown.
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
            Self::Failed(text) => Self::Failed(change(text)),
        }
    }
}

/// What the agent knows of the model: it streams one turn for a conversation.
pub trait Model: Send + Sync {
    /// Streams one turn. Dropping the stream cancels the request. Retries happen inside, and only while nothing of
    /// the turn was given out (text, or an opened tool call).
    fn turn<'a>(&'a self, conversation: &Conversation, max_tokens: u32)
    -> BoxStream<'a, Result<TurnEvent, ModelError>>;
}
