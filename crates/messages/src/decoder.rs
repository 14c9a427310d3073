//! From the bytes of a streamed response to the events of one turn.
//!
//! Tolerant where the API may grow (unknown events, deltas, blocks, fields and stop reasons are fine) and strict where
//! a guess would put something wrong into the history: an event that cannot be read, a block that was not opened or is
//! out of order, a stream that ends early. Nothing that comes in can make it panic or use more than
//! [`super::framing::MAX_TURN_BYTES`], about.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::api_error::ApiError;
use super::blocks::{FinishedBlock, Kind, OpenBlock};
use super::framing::{Frame, Framer, FramingError};
use super::wire::Text;
use super::{StopReason, Turn, TurnEvent, Usage};

/// The most content blocks of one turn; the ids of its tool calls are compared with each other.
pub const MAX_BLOCKS: usize = 10_000;

/// Why a stream gave no turn.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It is larger than anything the API is known to send.
    #[error(transparent)]
    Framing(#[from] FramingError),
    /// An event that is not what the API documents.
    #[error("the model's stream is broken at a {event} event: {problem}")]
    Malformed {
        /// The event's name.
        event: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The API itself said that it failed.
    #[error("the Messages API ended its stream with an error: {}", .0.describe())]
    Api(ApiError),
    /// The body ended without `message_stop`.
    #[error("the model's stream ended before the turn was over")]
    Ended,
}

/// Decodes one turn. Chunks go in by [`TurnDecoder::push`]; then [`TurnDecoder::next_event`] until it gives `None`.
#[derive(Default)]
pub struct TurnDecoder {
    framer: Framer,
    /// By their index.
    blocks: Vec<Block>,
    started: bool,
    finished: bool,
    model: String,
    id: Option<String>,
    usage: Usage,
    stop: Option<StopReason>,
}

enum Block {
    Open(OpenBlock),
    Finished(FinishedBlock),
    /// Its stop failed; the turn is lost.
    Broken,
}

#[derive(Deserialize)]
struct Typed<'a> {
    #[serde(borrow)]
    r#type: Text<'a>,
}

#[derive(Deserialize)]
struct MessageStart<'a> {
    #[serde(borrow)]
    message: Message<'a>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    model: Option<Text<'a>>,
    /// Nobody but a trace asks for it: it may be of any type.
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct BlockStart<'a> {
    index: u64,
    #[serde(borrow)]
    content_block: &'a RawValue,
}

/// A `content_block_delta`, flat: serde would buffer a tagged enumeration, and copy each token once more.
#[derive(Deserialize)]
struct BlockDelta<'a> {
    index: u64,
    #[serde(borrow)]
    delta: Delta<'a>,
}

/// The kinds of delta whose fields [`Delta`] reads.
const KNOWN_DELTAS: [&str; 5] = [
    "text_delta",
    "thinking_delta",
    "input_json_delta",
    "signature_delta",
    "citations_delta",
];

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow)]
    r#type: Text<'a>,
    #[serde(borrow)]
    text: Option<Text<'a>>,
    #[serde(borrow)]
    thinking: Option<Text<'a>>,
    #[serde(borrow)]
    partial_json: Option<Text<'a>>,
    #[serde(borrow)]
    signature: Option<&'a RawValue>,
    #[serde(borrow)]
    citation: Option<&'a RawValue>,
}

/// The same event when its delta is of a kind that we do not know.
#[derive(Deserialize)]
struct UnknownBlockDelta<'a> {
    index: u64,
    #[serde(borrow)]
    delta: &'a RawValue,
}

#[derive(Deserialize)]
struct BlockStop {
    index: u64,
}

#[derive(Deserialize)]
struct MessageDelta<'a> {
    delta: Option<Stop>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Stop {
    stop_reason: Option<String>,
    stop_sequence: Option<String>,
    stop_details: Option<serde_json::Value>,
}

#[derive(Default, Deserialize)]
struct WireUsage {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
}

impl TurnDecoder {
    /// A decoder at the beginning of a turn.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next chunk of the body.
    pub fn push(&mut self, chunk: Bytes) -> Result<(), DecodeError> {
        Ok(self.framer.push(chunk)?)
    }

    /// The next event of the turn, or `None` when more bytes are needed. After [`TurnEvent::Finished`] or an error
    /// there is nothing more to come.
    pub fn next_event(&mut self) -> Result<Option<TurnEvent>, DecodeError> {
        while !self.finished {
            let Some(frame) = self.framer.next_frame()? else {
                return Ok(None);
            };
            let event = self.interpret(&frame)?;
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    /// What the end of the body means: an error, unless the turn is over.
    pub fn end(&self) -> Result<(), DecodeError> {
        if self.finished { Ok(()) } else { Err(DecodeError::Ended) }
    }

    fn interpret(&mut self, frame: &Frame) -> Result<Option<TurnEvent>, DecodeError> {
        let data = frame.data.as_ref();
        // The API names each event twice. Some gateways leave the outer name out.
        let name = match std::str::from_utf8(&frame.event) {
            Ok("") => match serde_json::from_slice::<Typed<'_>>(data) {
                Ok(typed) => typed.r#type.0,
                Err(_) => return Ok(None),
            },
            Ok(name) => name.into(),
            Err(_) => return Ok(None),
        };
        let result = match name.as_ref() {
            "message_start" => self.message_start(data),
            "content_block_start" => self.block_start(data),
            "content_block_delta" => self.block_delta(data),
            "content_block_stop" => self.block_stop(data),
            "message_delta" => self.message_delta(data),
            "message_stop" => self.message_stop(),
            "error" => return Err(DecodeError::Api(ApiError::parse(data))),
            // `ping`, and what the API may add: its versioning policy says to ignore unknown events.
            _ => return Ok(None),
        };
        result.map_err(|problem| DecodeError::Malformed {
            event: name.into_owned(),
            problem,
        })
    }

    fn message_start(&mut self, data: &[u8]) -> Result<Option<TurnEvent>, String> {
        if self.started {
            return Err("the turn has started already".to_owned());
        }
        self.started = true;
        let event: MessageStart<'_> = parse(data)?;
        self.model = event.message.model.unwrap_or_default().0.into_owned();
        self.id = event.message.id.and_then(|id| serde_json::from_str(id.get()).ok());
        self.merge_usage(event.message.usage);
        Ok(None)
    }

    fn block_start(&mut self, data: &[u8]) -> Result<Option<TurnEvent>, String> {
        if !self.started {
            return Err("the turn has not started".to_owned());
        }
        let event: BlockStart<'_> = parse(data)?;
        let expected = self.blocks.len() as u64;
        if event.index != expected {
            return Err(format!(
                "content block {} is out of order, {expected} was expected",
                event.index
            ));
        }
        if self.blocks.len() >= MAX_BLOCKS {
            return Err(format!("the turn has more than {MAX_BLOCKS} content blocks"));
        }
        let (block, beginning) = OpenBlock::open(event.index, event.content_block)?;
        let shown = match &block.kind {
            Kind::ToolUse { id, name } => {
                if self.has_tool_call(id) {
                    return Err(format!("two tool calls have the same id {id:?}"));
                }
                Some(TurnEvent::ToolStarted {
                    id: id.clone(),
                    name: name.clone(),
                })
            }
            Kind::Text if !beginning.is_empty() => Some(TurnEvent::Text(beginning)),
            Kind::Thinking if !beginning.is_empty() => Some(TurnEvent::Thinking(beginning)),
            _ => None,
        };
        self.blocks.push(Block::Open(block));
        Ok(shown)
    }

    fn block_delta(&mut self, data: &[u8]) -> Result<Option<TurnEvent>, String> {
        let BlockDelta { index, delta } = match serde_json::from_slice(data) {
            Ok(event) => event,
            // A delta that we do not know may use the names of known fields for values of other types.
            Err(error) => {
                let event: UnknownBlockDelta<'_> = parse(data)?;
                let typed: Typed<'_> = parse(event.delta.get().as_bytes())?;
                if KNOWN_DELTAS.contains(&typed.r#type.0.as_ref()) {
                    return Err(error.to_string());
                }
                self.open_block(event.index)?.merge_unknown(event.delta)?;
                return Ok(None);
            }
        };
        let block = self.open_block(index)?;
        let fits = match delta.r#type.0.as_ref() {
            "text_delta" => matches!(block.kind, Kind::Text | Kind::Other),
            "thinking_delta" => matches!(block.kind, Kind::Thinking | Kind::Other),
            "input_json_delta" => matches!(block.kind, Kind::ToolUse { .. } | Kind::Other),
            _ => true,
        };
        if !fits {
            return Err(format!(
                "a {} does not belong into content block {index}",
                delta.r#type.0
            ));
        }
        match delta {
            Delta {
                text: Some(text),
                r#type,
                ..
            } if r#type.0 == "text_delta" => {
                block.append("text", &text.0);
                let shown = block.kind == Kind::Text && !text.0.is_empty();
                Ok(shown.then(|| TurnEvent::Text(text.0.into_owned())))
            }
            Delta {
                thinking: Some(thinking),
                r#type,
                ..
            } if r#type.0 == "thinking_delta" => {
                block.append("thinking", &thinking.0);
                let shown = block.kind == Kind::Thinking && !thinking.0.is_empty();
                Ok(shown.then(|| TurnEvent::Thinking(thinking.0.into_owned())))
            }
            Delta {
                partial_json: Some(fragment),
                r#type,
                ..
            } if r#type.0 == "input_json_delta" => {
                block.append_input(&fragment.0);
                Ok(None)
            }
            Delta {
                signature: Some(signature),
                r#type,
                ..
            } if r#type.0 == "signature_delta" => {
                block.set("signature", signature.to_owned());
                Ok(None)
            }
            Delta {
                citation: Some(citation),
                r#type,
                ..
            } if r#type.0 == "citations_delta" => {
                block.push("citations", citation);
                Ok(None)
            }
            _ => {
                let event: UnknownBlockDelta<'_> = parse(data)?;
                block.merge_unknown(event.delta)?;
                Ok(None)
            }
        }
    }

    fn block_stop(&mut self, data: &[u8]) -> Result<Option<TurnEvent>, String> {
        let event: BlockStop = parse(data)?;
        self.open_block(event.index)?;
        if let Some(slot) = usize::try_from(event.index)
            .ok()
            .and_then(|index| self.blocks.get_mut(index))
            && let Block::Open(block) = std::mem::replace(slot, Block::Broken)
        {
            *slot = Block::Finished(block.finish()?);
        }
        Ok(None)
    }

    fn message_delta(&mut self, data: &[u8]) -> Result<Option<TurnEvent>, String> {
        let event: MessageDelta<'_> = parse(data)?;
        self.merge_usage(event.usage);
        if let Some(delta) = event.delta
            && let Some(reason) = &delta.stop_reason
        {
            self.stop = Some(stop_reason(reason, &delta));
        }
        Ok(None)
    }

    fn message_stop(&mut self) -> Result<Option<TurnEvent>, String> {
        let Some(stop) = self.stop.take() else {
            return Err("the model gave no stop reason".to_owned());
        };
        let mut turn = Turn {
            content: Vec::with_capacity(self.blocks.len()),
            tool_calls: Vec::new(),
            has_text: false,
            stop,
            usage: self.usage,
            model: std::mem::take(&mut self.model),
            id: self.id.take(),
            request_id: None,
        };
        for (index, block) in std::mem::take(&mut self.blocks).into_iter().enumerate() {
            let Block::Finished(block) = block else {
                return Err(format!("content block {index} was not ended"));
            };
            turn.content.push(block.raw);
            turn.tool_calls.extend(block.tool_call);
            turn.has_text |= block.has_text;
        }
        self.finished = true;
        Ok(Some(TurnEvent::Finished(turn)))
    }

    fn open_block(&mut self, index: u64) -> Result<&mut OpenBlock, String> {
        match usize::try_from(index).ok().and_then(|index| self.blocks.get_mut(index)) {
            Some(Block::Open(block)) => Ok(block),
            Some(_) => Err(format!("content block {index} has ended already")),
            None => Err(format!("content block {index} was not opened")),
        }
    }

    fn has_tool_call(&self, id: &str) -> bool {
        self.blocks.iter().any(|block| match block {
            Block::Open(OpenBlock {
                kind: Kind::ToolUse { id: other, .. },
                ..
            }) => other == id,
            Block::Finished(FinishedBlock {
                tool_call: Some(call), ..
            }) => call.id == id,
            _ => false,
        })
    }

    /// Later values win. Usage is bookkeeping: one that cannot be read costs nothing but itself.
    fn merge_usage(&mut self, usage: Option<&RawValue>) {
        let Some(usage) = usage else { return };
        let wire: WireUsage = serde_json::from_str(usage.get()).unwrap_or_else(|error| {
            tracing::debug!(%error, "the model's usage cannot be read");
            WireUsage::default()
        });
        let merge = |total: &mut u64, value: Option<u64>| *total = value.unwrap_or(*total);
        merge(&mut self.usage.input_tokens, wire.input_tokens);
        merge(&mut self.usage.output_tokens, wire.output_tokens);
        merge(&mut self.usage.cache_read_tokens, wire.cache_read_input_tokens);
        merge(&mut self.usage.cache_write_tokens, wire.cache_creation_input_tokens);
    }
}

fn parse<'a, T: Deserialize<'a>>(data: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(data).map_err(|error| error.to_string())
}

fn stop_reason(reason: &str, delta: &Stop) -> StopReason {
    let detail = |key: &str| Some(delta.stop_details.as_ref()?.get(key)?.as_str()?.to_owned());
    match reason {
        "end_turn" => StopReason::EndTurn,
        "tool_use" => StopReason::ToolUse,
        "pause_turn" => StopReason::PauseTurn,
        "max_tokens" => StopReason::MaxTokens,
        "stop_sequence" => StopReason::StopSequence(delta.stop_sequence.clone()),
        "refusal" => StopReason::Refusal {
            category: detail("category"),
            explanation: detail("explanation"),
        },
        "model_context_window_exceeded" => StopReason::ContextWindowExceeded,
        other => StopReason::Other(other.to_owned()),
    }
}
