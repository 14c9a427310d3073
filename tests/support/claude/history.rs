//! The append-only rule: a request may only add to the one before, and sends back what the model said, unchanged. The
//! newer models bind their thinking blocks to everything before them, so the real API refuses a history that was
//! touched.

use serde_json::Value;

use super::checks::Refusal;
use super::turn::{Block, Turn};

/// What the conversation was when the last request came, and what was answered.
#[derive(Default)]
pub struct History {
    previous: Option<Value>,
    /// The blocks of the last turn, when it came to its end.
    answered: Option<Vec<Block>>,
    paused: bool,
    /// Whether the last request, the first of its conversation, was refused.
    was_refused: bool,
    /// Whether the last request asked for a summary, and had one.
    was_summarized: bool,
}

impl History {
    /// Whether the last turn was paused, so that the conversation may end with the assistant.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Compares a request with the one before it.
    pub fn check(&self, body: &Value) -> Result<(), Refusal> {
        let Some(previous) = &self.previous else { return Ok(()) };
        if self.was_refused {
            // What the API did not take is no part of a conversation.
            return Ok(());
        }
        if self.was_summarized && body.get("compaction").is_none() {
            // The summary stands in the place of what it is about.
            return Ok(());
        }
        for field in ["model", "system", "tools", "thinking", "output_config"] {
            if without_cache_marks(&body[field]) != without_cache_marks(&previous[field]) {
                return Err(Refusal::bad(format!(
                    "{field} changed in the middle of a conversation: it must not"
                )));
            }
        }
        let empty = Vec::new();
        let before = previous["messages"].as_array().unwrap_or(&empty);
        let now = body["messages"].as_array().unwrap_or(&empty);
        for (index, message) in before.iter().enumerate() {
            if now.get(index).map(without_cache_marks) != Some(without_cache_marks(message)) {
                return Err(Refusal::bad(format!(
                    "messages.{index} changed: Invalid `signature` in `thinking` block. The block is bound to a \
                     different conversation"
                )));
            }
        }
        let added = now.get(before.len()).filter(|message| message["role"] == "assistant");
        let (Some(added), Some(blocks)) = (added, &self.answered) else {
            return Ok(());
        };
        echoed(added, blocks, before.len())
    }

    /// Remembers a request and what was answered to it; `None` when that was no turn.
    pub fn commit(&mut self, body: Value, turn: Option<&Turn>, refused: bool) {
        self.was_refused = refused && (self.previous.is_none() || self.was_refused);
        self.was_summarized = turn.is_some() && asks_for_summary(&body);
        self.previous = Some(body);
        let complete = turn.filter(|turn| turn.is_complete());
        self.answered = complete.map(|turn| turn.blocks.clone());
        self.paused = complete.is_some_and(|turn| turn.effective_stop() == "pause_turn");
    }
}

/// Whether a request asks the API, or the model, for a summary.
fn asks_for_summary(body: &Value) -> bool {
    let last = body["messages"].as_array().and_then(|messages| messages.last());
    let asks = last.is_some_and(|last| {
        last["content"]
            .as_str()
            .is_some_and(|text| text.contains("Write a summary"))
    });
    asks || body.get("compaction").is_some()
}

/// The assistant's message is what the model said: blank text may be left out, and nothing else.
fn echoed(message: &Value, blocks: &[Block], index: usize) -> Result<(), Refusal> {
    let sent: Vec<Value> = message["content"]
        .as_array()
        .into_iter()
        .flatten()
        .map(without_cache_marks)
        .collect();
    let expected: Vec<&Value> = blocks
        .iter()
        .filter(|block| !block.is_blank_text())
        .map(|block| &block.whole)
        .collect();
    for position in 0..expected.len().max(sent.len()) {
        if !expected
            .get(position)
            .zip(sent.get(position))
            .is_some_and(|(expected, sent)| same(expected, sent))
        {
            return Err(Refusal::bad(format!(
                "messages.{index}.content.{position}: the block is not what the model said: blocks in the latest \
                 assistant message cannot be modified. Said: {:?}, sent back: {:?}",
                expected.get(position).map(ToString::to_string),
                sent.get(position).map(ToString::to_string)
            )));
        }
    }
    Ok(())
}

/// Equal, but for the input of a call that was no object: any object may stand for it; and for an id with a number
/// behind it, which is another one for a call whose id was used before.
fn same(expected: &Value, sent: &Value) -> bool {
    let ids = expected["id"].as_str().zip(sent["id"].as_str());
    if let Some((said, number)) = ids.and_then(|(said, sent)| Some((said, sent.strip_prefix(said)?.strip_prefix('_')?)))
        && number.bytes().all(|byte| byte.is_ascii_digit())
    {
        let mut sent = sent.clone();
        sent["id"] = said.into();
        return same(expected, &sent);
    }
    if expected["type"] == "tool_use" && expected["input"].is_null() {
        let mut sent = sent.clone();
        if sent["input"].is_object() {
            sent["input"] = Value::Null;
        }
        return *expected == sent;
    }
    expected == sent
}

/// A breakpoint may move: it is no part of what was said.
fn without_cache_marks(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter(|(key, _)| *key != "cache_control")
            .map(|(key, value)| (key.clone(), without_cache_marks(value)))
            .collect(),
        Value::Array(items) => items.iter().map(without_cache_marks).collect(),
        other => other.clone(),
    }
}
