//! The history of one conversation: append-only, serialized once.
//!
//! Two things ask for this shape. Newer models sign their thinking over everything that came before it, so an earlier
//! byte that changes makes the API refuse the request (and the prompt cache would miss). And a history of megabytes
//! that is serialized anew for each of a hundred turns costs more than all tools together. So the request's body is
//! written into one buffer as the conversation goes, and a turn's body is that buffer plus its ending.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::models;
use super::wire::JsonText;
use plue_contract::ToolDefinition;

/// What a conversation starts from. It cannot be changed later: system, tools, thinking and effort are part of what
/// the model's signatures and the prompt cache cover.
#[derive(Clone, Copy, Debug)]
pub struct ConversationConfig<'a> {
    /// The model as it is sent, aliases of the operator already resolved.
    pub model: &'a str,
    /// The system prompt. `None` or a blank one: the key is left out.
    pub system: Option<&'a str>,
    /// The tools that the model is told about, in a fixed order. Empty: the key is left out.
    pub tools: &'a [ToolDefinition],
    /// The request's `thinking`, sent as the task gives it. `None`: the model's default.
    pub thinking: Option<&'a RawValue>,
    /// Whether someone reads the thinking. Then, when `thinking` is `None` and the model thinks by itself, it is asked
    /// for in readable form: models since 4.7 otherwise send only a signature.
    pub show_thinking: bool,
    /// `output_config.effort`. `None`: the model's default.
    pub effort: Option<&'a str>,
    /// The messages of the task. At least one; the last is the user's.
    pub messages: &'a [InitialMessage],
}

/// One message of the task.
#[derive(Clone, Debug)]
pub struct InitialMessage {
    /// Who says it.
    pub role: Role,
    /// A JSON string, or an array of content blocks. Sent as it is.
    pub content: Box<RawValue>,
}

/// Who says a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Whoever asks.
    User,
    /// The model.
    Assistant,
}

impl Role {
    fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// The answer to one tool call.
#[derive(Clone, Copy, Debug)]
pub struct ToolResult<'a> {
    /// [`super::ToolCall::id`] of the call.
    pub tool_use_id: &'a str,
    /// What the model reads.
    pub content: &'a str,
    /// Whether the call failed.
    pub is_error: bool,
}

/// One conversation with the model: append-only, and written as JSON once.
#[derive(Clone, Debug)]
pub struct Conversation {
    model: String,
    /// The request's body up to the last message, without what closes it.
    buffer: BytesMut,
    /// Whether the buffer holds a message, so that the next one needs a comma.
    has_messages: bool,
}

impl Conversation {
    /// Writes what stays the same for the whole conversation, and the task's messages.
    pub fn new(config: ConversationConfig<'_>) -> Self {
        let mut buffer = BytesMut::with_capacity(16 * 1024);
        buffer.put_slice(b"{\"model\":");
        buffer.put_json_string(config.model);
        buffer.put_slice(b",\"stream\":true,\"cache_control\":{\"type\":\"ephemeral\"}");
        if let Some(thinking) = config.thinking {
            buffer.put_slice(b",\"thinking\":");
            buffer.put_slice(thinking.get().as_bytes());
        } else if config.show_thinking && models::lookup(config.model).is_some_and(|model| model.thinking.is_default())
        {
            buffer.put_slice(br#","thinking":{"type":"adaptive","display":"summarized"}"#);
        }
        if let Some(effort) = config.effort {
            buffer.put_slice(b",\"output_config\":{\"effort\":");
            buffer.put_json_string(effort);
            buffer.put_u8(b'}');
        }
        if let Some(system) = config.system.filter(|system| !system.trim().is_empty()) {
            buffer.put_slice(b",\"system\":");
            buffer.put_json_string(system);
        }
        if !config.tools.is_empty() {
            buffer.put_slice(b",\"tools\":[");
            for (index, tool) in config.tools.iter().enumerate() {
                buffer.put_slice(if index == 0 { b"{\"name\":" } else { b",{\"name\":" });
                buffer.put_json_string(&tool.name);
                buffer.put_slice(b",\"description\":");
                buffer.put_json_string(&tool.description);
                buffer.put_slice(b",\"input_schema\":");
                buffer.put_slice(tool.input_schema.get().as_bytes());
                buffer.put_u8(b'}');
            }
            buffer.put_u8(b']');
        }
        buffer.put_slice(b",\"messages\":[");
        let mut conversation = Self {
            model: config.model.to_owned(),
            buffer,
            has_messages: false,
        };
        for message in config.messages {
            conversation.open_message(message.role);
            conversation.buffer.put_slice(message.content.get().as_bytes());
            conversation.close_message();
        }
        conversation
    }

    /// The model as it is sent.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Adds a message of the user. Not between a tool call and its results: the API refuses that.
    pub fn push_user_text(&mut self, text: &str) {
        self.open_message(Role::User);
        self.buffer.put_json_string(text);
        self.close_message();
    }

    /// Adds the results of all tool calls of the last turn, in the order of the calls, as the one user message that the
    /// API asks for. No results: nothing is added.
    pub fn push_tool_results(&mut self, results: &[ToolResult<'_>]) {
        if results.is_empty() {
            return;
        }
        self.open_message(Role::User);
        for (index, result) in results.iter().enumerate() {
            let separator: &[u8] = if index == 0 { b"[" } else { b"," };
            self.buffer.put_slice(separator);
            self.buffer.put_slice(b"{\"type\":\"tool_result\",\"tool_use_id\":");
            self.buffer.put_json_string(result.tool_use_id);
            self.buffer.put_slice(b",\"content\":");
            if result.is_error {
                // An error must have text: an empty one tells the model nothing, and the API may refuse it.
                let blank = result.content.trim().is_empty();
                self.buffer.put_json_string(if blank {
                    "The tool failed without a message."
                } else {
                    result.content
                });
                self.buffer.put_slice(b",\"is_error\":true");
            } else {
                self.buffer.put_json_string(result.content);
            }
            self.buffer.put_u8(b'}');
        }
        self.buffer.put_u8(b']');
        self.close_message();
    }

    /// Adds a turn of the model, each block byte for byte as it came ([`super::Turn::content`]). Only text blocks that
    /// are blank are left out: the model may send them, and the API refuses them back. Says whether anything was
    /// left to add.
    pub fn push_assistant(&mut self, content: &[Box<RawValue>]) -> bool {
        let mut blocks = content.iter().filter(|block| !is_blank_text(block)).peekable();
        if blocks.peek().is_none() {
            return false;
        }
        self.open_message(Role::Assistant);
        self.buffer.put_u8(b'[');
        while let Some(block) = blocks.next() {
            self.buffer.put_slice(block.get().as_bytes());
            if blocks.peek().is_some() {
                self.buffer.put_u8(b',');
            }
        }
        self.buffer.put_u8(b']');
        self.close_message();
        true
    }

    /// The body of the request for the next turn. Everything before `max_tokens` is the same bytes in every turn, with
    /// new messages at its end.
    pub fn body(&self, max_tokens: u32) -> Bytes {
        let ending = format!("],\"max_tokens\":{max_tokens}}}");
        let mut body = BytesMut::with_capacity(self.buffer.len() + ending.len());
        body.put_slice(&self.buffer);
        body.put_slice(ending.as_bytes());
        body.freeze()
    }

    fn open_message(&mut self, role: Role) {
        if self.has_messages {
            self.buffer.put_u8(b',');
        }
        self.has_messages = true;
        self.buffer.put_slice(b"{\"role\":\"");
        self.buffer.put_slice(role.as_str().as_bytes());
        self.buffer.put_slice(b"\",\"content\":");
    }

    fn close_message(&mut self) {
        self.buffer.put_u8(b'}');
    }
}

/// Whether a block is text without anything but white space.
fn is_blank_text(block: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct TextBlock<'a> {
        #[serde(borrow)]
        r#type: super::wire::Text<'a>,
        #[serde(borrow)]
        text: Option<super::wire::Text<'a>>,
    }
    serde_json::from_str::<TextBlock<'_>>(block.get())
        .is_ok_and(|block| block.r#type.0 == "text" && block.text.is_none_or(|text| text.0.trim().is_empty()))
}
