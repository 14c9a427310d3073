//! The history of one conversation: append-only, serialized once.
//!
//! Two things ask for this shape. Newer models sign their thinking over everything that came before it, so an earlier
//! byte that changes makes the API refuse the request (and the prompt cache would miss). And a history of megabytes
//! that is serialized anew for each of a hundred turns costs more than all tools together. So the request's body is
//! written into one buffer as the conversation goes, and a turn's body is that buffer plus its ending.
//!
//! The prompt cache has four slots. One is always the end of the request, by its own `cache_control`. As far as the
//! task's own marks leave any, the others are the end of the system prompt, the end of the tools, and one that moves:
//! the API finds an entry of the request before only within 20 blocks of a slot, so when a turn adds more, it marks a
//! result near enough to where that request ended.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::blocks;
use super::models;
use super::wire::JsonText;
use plue_contract::ToolDefinition;

/// What marks the end of a part of the prompt that is to be found in the cache again.
const CACHE_MARK: &[u8] = br#","cache_control":{"type":"ephemeral"}"#;

/// How many marks a request may have.
const SLOTS: usize = 4;

/// How far a mark may be from what the last request has cached, in blocks: a turn that adds 20 loses it.
const LOOKBACK: usize = 19;

/// The version of the API's own summaries that this client speaks; every later request with one needs it, too.
pub const COMPACTION_BETA: &str = "compact-2026-09-04";

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
    /// The JSON Schema that the API holds the final answer to. `None`: it may be any text.
    pub output_schema: Option<&'a RawValue>,
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

/// One request for a turn, ready to be sent.
#[derive(Clone, Debug)]
pub struct TurnRequest {
    /// The model that it names.
    pub model: String,
    /// All of it.
    pub body: Bytes,
    /// What the header `anthropic-beta` has to say.
    pub beta: Option<&'static str>,
}

/// One conversation with the model: append-only, and written as JSON once.
#[derive(Clone, Debug)]
pub struct Conversation {
    model: String,
    /// The request's body up to the last message, without what closes it.
    buffer: BytesMut,
    /// Where each message begins in it.
    messages: Vec<usize>,
    /// Where the first message begins, or would.
    head: usize,
    /// How many messages are the task's own.
    initial: usize,
    /// Blocks that came after the last request.
    new_blocks: usize,
    /// Whether there is a slot for the mark that moves.
    may_mark: bool,
    /// Where it is.
    mark: Option<usize>,
    /// Whether it begins with a summary of the API's own.
    compacted: bool,
}

impl Conversation {
    /// Writes what stays the same for the whole conversation, and the task's messages.
    pub fn new(config: ConversationConfig<'_>) -> Self {
        let mut buffer = BytesMut::with_capacity(16 * 1024);
        buffer.put_slice(b"{\"model\":");
        buffer.put_json_string(config.model);
        buffer.put_slice(b",\"stream\":true");
        let mut slots = free_slots(config.messages);
        if take(&mut slots) {
            buffer.put_slice(CACHE_MARK);
        }
        if let Some(thinking) = config.thinking {
            buffer.put_slice(b",\"thinking\":");
            buffer.put_slice(thinking.get().as_bytes());
        } else if config.show_thinking && models::lookup(config.model).is_some_and(|model| model.thinking.is_default())
        {
            buffer.put_slice(br#","thinking":{"type":"adaptive","display":"summarized"}"#);
        }
        put_output_config(&mut buffer, config.effort, config.output_schema);
        if let Some(system) = config.system.filter(|system| !system.trim().is_empty()) {
            buffer.put_slice(br#","system":[{"type":"text","text":"#);
            buffer.put_json_string(system);
            if take(&mut slots) {
                buffer.put_slice(CACHE_MARK);
            }
            buffer.put_slice(b"}]");
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
                if index + 1 == config.tools.len() && take(&mut slots) {
                    buffer.put_slice(CACHE_MARK);
                }
                buffer.put_u8(b'}');
            }
            buffer.put_u8(b']');
        }
        buffer.put_slice(b",\"messages\":[");
        let mut conversation = Self {
            model: config.model.to_owned(),
            head: buffer.len(),
            buffer,
            messages: Vec::new(),
            initial: config.messages.len(),
            new_blocks: 0,
            may_mark: slots > 0,
            mark: None,
            compacted: false,
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
        self.new_blocks += 1;
        self.close_message();
    }

    /// Adds the results of all tool calls of the last turn, in the order of the calls, as the one user message that the
    /// API asks for. No results: nothing is added.
    pub fn push_tool_results(&mut self, results: &[ToolResult<'_>]) {
        if results.is_empty() {
            return;
        }
        let marked = self.place_of_mark(results.len());
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
            if marked == Some(index) {
                self.put_mark();
            }
            self.buffer.put_u8(b'}');
        }
        self.buffer.put_u8(b']');
        self.new_blocks += results.len();
        self.close_message();
    }

    /// Which of so many results is to have the mark that moves: the last one from which the API still finds where the
    /// last request ended. None when it finds it from the end.
    fn place_of_mark(&self, results: usize) -> Option<usize> {
        if !self.may_mark || self.new_blocks + results <= LOOKBACK {
            return None;
        }
        // When the calls alone are so many, one of them has it already.
        let behind = LOOKBACK.checked_sub(self.new_blocks + 1)?;
        Some(behind.min(results - 1))
    }

    /// Marks the block that is being written. The mark before becomes white space, which says nothing and leaves
    /// every other byte in its place.
    fn put_mark(&mut self) {
        if let Some(before) = self.mark.take()
            && let Some(mark) = self.buffer.get_mut(before..before + CACHE_MARK.len())
        {
            mark.fill(b' ');
        }
        self.mark = Some(self.buffer.len());
        self.buffer.put_slice(CACHE_MARK);
    }

    /// Adds a turn of the model, each block byte for byte as it came ([`super::Turn::content`]). Only text blocks that
    /// are blank are left out: the model may send them, and the API refuses them back. Says whether anything was
    /// left to add.
    pub fn push_assistant(&mut self, content: &[Box<RawValue>]) -> bool {
        let blocks: Vec<&RawValue> = content
            .iter()
            .map(|block| &**block)
            .filter(|block| !is_blank_text(block))
            .collect();
        if blocks.is_empty() {
            return false;
        }
        let marked = self.marked_call(&blocks);
        self.open_message(Role::Assistant);
        for (index, block) in blocks.iter().enumerate() {
            self.buffer.put_u8(if index == 0 { b'[' } else { b',' });
            match block.get().strip_suffix('}').filter(|_| marked == Some(index)) {
                Some(open) => {
                    self.buffer.put_slice(open.as_bytes());
                    self.put_mark();
                    self.buffer.put_u8(b'}');
                }
                None => self.buffer.put_slice(block.get().as_bytes()),
            }
        }
        self.new_blocks += blocks.len();
        self.buffer.put_u8(b']');
        self.close_message();
        true
    }

    /// Which call of a turn is to have the mark that moves, since its results come too far behind. (Thinking may not
    /// have it.)
    fn marked_call(&self, blocks: &[&RawValue]) -> Option<usize> {
        let near = LOOKBACK.saturating_sub(self.new_blocks);
        if !self.may_mark || blocks.len() < near {
            return None;
        }
        blocks.iter().take(near).rposition(|block| blocks::is_call(block))
    }

    /// The request for the next turn. Everything before `max_tokens` is the same bytes in every turn, with new messages
    /// at its end.
    pub fn request(&mut self, max_tokens: u32) -> TurnRequest {
        self.new_blocks = 0;
        self.request_with("", max_tokens, self.compacted)
    }

    /// The request for a summary of all that was said, of the API's own kind ([`COMPACTION_BETA`]).
    pub fn compaction_request(&self, max_tokens: u32) -> TurnRequest {
        self.request_with(r#","compaction":{"type":"summarize"}"#, max_tokens, true)
    }

    fn request_with(&self, more: &str, max_tokens: u32, compacts: bool) -> TurnRequest {
        let ending = format!("]{more},\"max_tokens\":{max_tokens}}}");
        let mut body = BytesMut::with_capacity(self.buffer.len() + ending.len());
        body.put_slice(&self.buffer);
        body.put_slice(ending.as_bytes());
        TurnRequest {
            model: self.model.clone(),
            body: body.freeze(),
            beta: compacts.then_some(COMPACTION_BETA),
        }
    }

    /// The body of the request for the next turn.
    pub fn body(&self, max_tokens: u32) -> Bytes {
        self.request_with("", max_tokens, self.compacted).body
    }

    /// Whether there is more in it than the task's own messages.
    pub fn has_grown(&self) -> bool {
        self.messages.len() > self.initial
    }

    /// How many messages there are.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// The first messages of it, as a conversation of their own: as many as there are up to this share of the bytes,
    /// and such that the model can go on from there. `None` when there are none besides the task's own.
    pub fn beginning(&self, share: f64) -> Option<Self> {
        let most = self.head + ((self.buffer.len() - self.head) as f64 * share) as usize;
        // Messages come in pairs: what the model said, and what it was answered.
        let ends =
            (self.initial + 2..self.messages.len()).filter(|count| self.is_users(count - 1) && !self.is_users(*count));
        let count = ends
            .take_while(|count| self.messages.get(*count).is_some_and(|end| *end <= most))
            .last()?;
        let mut beginning = self.clone();
        // The comma before the next message goes, too.
        beginning.buffer.truncate(self.messages.get(count)?.checked_sub(1)?);
        beginning.messages.truncate(count);
        beginning.mark = beginning.mark.filter(|mark| *mark < beginning.buffer.len());
        Some(beginning)
    }

    fn is_users(&self, index: usize) -> bool {
        let message = self.messages.get(index).and_then(|start| self.buffer.get(*start..));
        message.is_some_and(|message| message.starts_with(br#"{"role":"user""#))
    }

    /// The conversation in which a summary of the API's own stands in the place of all that was said.
    pub fn compacted(&self, summary: &[Box<RawValue>], go_on: &str) -> Self {
        let mut anew = self.anew();
        anew.compacted = true;
        anew.push_assistant(summary);
        anew.push_user_text(go_on);
        anew
    }

    /// The conversation in which the task's own messages are followed by a text in the place of the first so many
    /// messages, and by the rest without its thinking, which is bound to what was before it.
    pub fn summarized(&self, text: &str, count: usize) -> Self {
        let mut anew = self.anew();
        let message = |index: usize| {
            let start = *self.messages.get(index)?;
            // The comma between two messages is the next one's.
            let end = self.messages.get(index + 1).map_or(self.buffer.len(), |next| next - 1);
            self.buffer.get(start..end)
        };
        for index in 0..self.initial.min(count) {
            anew.put_message(message(index).unwrap_or_default());
        }
        anew.push_user_text(text);
        for index in count..self.messages.len() {
            let bytes = message(index).unwrap_or_default();
            let thoughtless = std::str::from_utf8(bytes).ok().and_then(blocks::without_thinking);
            anew.put_message(thoughtless.as_deref().map_or(bytes, str::as_bytes));
        }
        anew
    }

    /// What stays the same, without a message.
    fn anew(&self) -> Self {
        let mut anew = self.clone();
        anew.buffer.truncate(self.head);
        anew.messages.clear();
        anew.mark = None;
        anew.new_blocks = 0;
        anew.compacted = false;
        anew
    }

    /// Adds a message as it is.
    fn put_message(&mut self, json: &[u8]) {
        self.begin_message();
        self.buffer.put_slice(json);
    }

    fn begin_message(&mut self) {
        if !self.messages.is_empty() {
            self.buffer.put_u8(b',');
        }
        self.messages.push(self.buffer.len());
    }

    fn open_message(&mut self, role: Role) {
        self.begin_message();
        self.buffer.put_slice(b"{\"role\":\"");
        self.buffer.put_slice(role.as_str().as_bytes());
        self.buffer.put_slice(b"\",\"content\":");
    }

    fn close_message(&mut self) {
        self.buffer.put_u8(b'}');
    }
}

/// How many slots the task's own marks leave. One that lasts an hour must not come behind one of ours, which last
/// shorter: then there is none.
fn free_slots(messages: &[InitialMessage]) -> usize {
    const MARK: &str = "\"cache_control\"";
    let count: usize = messages
        .iter()
        .map(|message| message.content.get().matches(MARK).count())
        .sum();
    let lasts_longer = |message: &InitialMessage| message.content.get().contains("\"ttl\"");
    match count > 0 && messages.iter().any(lasts_longer) {
        true => 0,
        false => SLOTS.saturating_sub(count),
    }
}

/// Takes a slot, when there is one left.
fn take(slots: &mut usize) -> bool {
    let is_free = *slots > 0;
    *slots = slots.saturating_sub(1);
    is_free
}

fn put_output_config(buffer: &mut BytesMut, effort: Option<&str>, schema: Option<&RawValue>) {
    if effort.is_none() && schema.is_none() {
        return;
    }
    buffer.put_slice(b",\"output_config\":{");
    if let Some(effort) = effort {
        buffer.put_slice(b"\"effort\":");
        buffer.put_json_string(effort);
    }
    if let Some(schema) = schema {
        if effort.is_some() {
            buffer.put_u8(b',');
        }
        buffer.put_slice(br#""format":{"type":"json_schema","schema":"#);
        buffer.put_slice(schema.get().as_bytes());
        buffer.put_u8(b'}');
    }
    buffer.put_u8(b'}');
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
