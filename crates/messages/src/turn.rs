//! One finished turn of the model, and what it used.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::blocks;

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
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ToolCall {
    /// Which its result has to carry.
    pub id: String,
    /// The tool's name, as the model wrote it.
    pub name: String,
    /// The JSON text of the arguments as the model wrote it. It may be no JSON at all: the block in the turn's content
    /// then holds `{"INVALID_JSON": TEXT}`, since the API takes back nothing but an object.
    pub input: String,
    /// Whether the arguments are an object that the model wrote to its end.
    pub is_complete: bool,
    /// Which block of the turn it is.
    pub block: usize,
}

impl Turn {
    /// The last call, when the limit of the answer came in the middle of it.
    pub fn cut_call(&self) -> Option<&ToolCall> {
        let is_last = |call: &&ToolCall| call.block + 1 == self.content.len();
        let cut = self.tool_calls.last().filter(is_last).filter(|call| !call.is_complete);
        cut.filter(|_| self.stop.is_cut_off())
    }

    /// Gives a call another id, in the content too: one that was used before would stand for two calls.
    pub fn rename_call(&mut self, number: usize, id: &str) {
        let Some(call) = self.tool_calls.get_mut(number) else {
            return;
        };
        if let Some(block) = self.content.get_mut(call.block)
            && let Some(renamed) = blocks::with_id(block, id)
        {
            *block = renamed;
            call.id = id.to_owned();
        }
    }

    /// Whether it is a summary of the API's own, and one that came to something: without content it is none.
    pub fn is_summary(&self) -> bool {
        !self.content.is_empty() && self.content.iter().all(|block| blocks::is_summary(block))
    }

    /// Leaves out thinking that the limit of the answer cut off at the end: without its signature the API does not take
    /// it back.
    pub fn drop_unsigned_thinking(&mut self) {
        while self
            .content
            .last()
            .is_some_and(|block| blocks::is_unsigned_thinking(block))
        {
            self.content.pop();
        }
    }

    /// What the answer says, all its texts after each other.
    pub fn text(&self) -> String {
        self.content.iter().filter_map(|block| blocks::text_of(block)).collect()
    }
}

/// Why the model stopped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// The answer is the summary that was asked for.
    Compaction,
    /// A value that we do not know.
    Other(String),
}

impl StopReason {
    /// Whether the answer ends where there was no more room for it.
    pub fn is_cut_off(&self) -> bool {
        matches!(self, Self::MaxTokens | Self::ContextWindowExceeded)
    }

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
            Self::Compaction => "compaction",
            Self::Other(reason) => reason,
        }
    }
}

/// Tokens of one turn, or of several added up. What is not known is `None`, and so is each sum that it is part of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Of the prompt, but for what came from the cache or went into it.
    pub input_tokens: Option<u64>,
    /// Of the answer, thinking included.
    pub output_tokens: Option<u64>,
    /// Of the prompt, read from the cache.
    pub cache_read_tokens: Option<u64>,
    /// Of the prompt, written into the cache.
    pub cache_write_tokens: Option<u64>,
}

impl Usage {
    /// Nothing was used.
    pub const NOTHING: Self = Self {
        input_tokens: Some(0),
        output_tokens: Some(0),
        cache_read_tokens: Some(0),
        cache_write_tokens: Some(0),
    };

    /// The whole prompt, wherever it came from.
    pub fn prompt_tokens(&self) -> Option<u64> {
        let cached = self.cache_read_tokens?.saturating_add(self.cache_write_tokens?);
        Some(self.input_tokens?.saturating_add(cached))
    }

    /// Prompt and answer.
    pub fn total_tokens(&self) -> Option<u64> {
        Some(self.prompt_tokens()?.saturating_add(self.output_tokens?))
    }
}

impl std::ops::AddAssign for Usage {
    /// The numbers come from outside: they must not end the task by an overflow.
    fn add_assign(&mut self, other: Self) {
        let add =
            |sum: &mut Option<u64>, more: Option<u64>| *sum = sum.zip(more).map(|(sum, more)| sum.saturating_add(more));
        add(&mut self.input_tokens, other.input_tokens);
        add(&mut self.output_tokens, other.output_tokens);
        add(&mut self.cache_read_tokens, other.cache_read_tokens);
        add(&mut self.cache_write_tokens, other.cache_write_tokens);
    }
}
