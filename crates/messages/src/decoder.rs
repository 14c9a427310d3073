//! From the bytes of a streamed response to the events of one turn.
//!
//! Tolerant where the API may grow (unknown events, deltas, blocks, fields and stop reasons are fine) and where servers
//! are careless (half a surrogate pair, bytes that are no UTF-8, an ending without `message_stop`, a message in one
//! piece in place of a stream); strict where a guess would put something wrong into the history: an event that cannot
//! be read, a block that was not opened or is out of order, a stream that ends early. Nothing that comes in can make it
//! panic or use more than [`super::framing::MAX_TURN_BYTES`], about.

use std::borrow::Cow;
use std::collections::VecDeque;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::api_error::ApiError;
use super::blocks::{FinishedBlock, Kind, OpenBlock};
use super::framing::{Frame, Framer, FramingError};
use super::surrogates;
use super::wire::Text;
use super::{StopReason, Turn, TurnEvent, Usage};

/// The most content blocks of one turn; the ids of its tool calls are compared with each other.
pub const MAX_BLOCKS: usize = 10_000;

/// How many blocks count as progress by themselves, whatever is in them.
const MOVING_BLOCKS: usize = 1_000;

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
    /// It is neither a stream nor a message: another server answers there.
    #[error("the answer is neither an event stream nor a message")]
    NoMessage,
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
    /// How often something of the answer came: whoever waits for more sees by it that the model is at work.
    progress: u64,
    model: String,
    id: Option<String>,
    usage: Usage,
    stop: Option<StopReason>,
    /// Of a message that came in one piece: what is not given out yet.
    whole: VecDeque<TurnEvent>,
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

/// The same with strings that a [`Text`] cannot hold: half of a surrogate pair.
#[derive(Deserialize)]
struct RawBlockDelta<'a> {
    index: u64,
    #[serde(borrow)]
    delta: RawDelta<'a>,
}

#[derive(Deserialize)]
struct RawDelta<'a> {
    #[serde(borrow)]
    r#type: Text<'a>,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    #[serde(borrow)]
    thinking: Option<&'a RawValue>,
    #[serde(borrow)]
    partial_json: Option<&'a RawValue>,
}

/// A message that came in one piece, as the API sends it to who does not ask for a stream.
#[derive(Deserialize)]
struct WholeMessage<'a> {
    #[serde(borrow)]
    content: Vec<&'a RawValue>,
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
        if let Some(event) = self.whole.pop_front() {
            return Ok(Some(event));
        }
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

    /// What the end of the body means: an error, unless the turn is over, or complete but for the words that say so.
    pub fn end(&mut self) -> Result<Option<TurnEvent>, DecodeError> {
        if self.finished {
            return Ok(None);
        }
        // The standard drops an event without its blank line. Here it may be the one that says how the turn ended.
        if let Some(frame) = self.framer.unfinished()
            && let Some(event) = self.interpret(&frame).or_else(|error| match error {
                DecodeError::Api(_) if !self.is_complete() => Err(error),
                _ => Ok(None),
            })?
            && self.finished
        {
            return Ok(Some(event));
        }
        self.complete().map(Some).ok_or(DecodeError::Ended)
    }

    /// Whether the turn lacks nothing but `message_stop`: its blocks have ended, and it is known why the model stopped.
    pub fn is_complete(&self) -> bool {
        self.stop.is_some() && self.blocks.iter().all(|block| matches!(block, Block::Finished(_)))
    }

    /// The turn, when it lacks nothing but `message_stop`.
    pub fn complete(&mut self) -> Option<TurnEvent> {
        if self.finished || !self.is_complete() {
            return None;
        }
        self.message_stop().ok().flatten()
    }

    /// Grows with each event that brings the answer forward: pings, comments and empty pieces do not.
    pub fn progress(&self) -> u64 {
        self.progress
    }

    /// The tokens of the turn so far, and the model that serves it; `None` before the answer began.
    pub fn spent(&self) -> Option<(Usage, &str)> {
        self.started.then_some((self.usage, self.model.as_str()))
    }

    /// Takes a message that came in one piece in place of a stream; its events are given out as those of a stream are.
    pub fn take_whole(&mut self, body: &[u8]) -> Result<(), DecodeError> {
        let text = String::from_utf8_lossy(body);
        let text = surrogates::without_halves(&text);
        let broken = |problem: String| DecodeError::Malformed {
            event: "message".to_owned(),
            problem,
        };
        match serde_json::from_str::<Typed<'_>>(&text) {
            Ok(typed) if typed.r#type.0 == "message" => {}
            Ok(typed) if typed.r#type.0 == "error" => return Err(DecodeError::Api(ApiError::parse(text.as_bytes()))),
            Err(error) if error.is_eof() => return Err(DecodeError::Ended),
            _ => return Err(DecodeError::NoMessage),
        }
        let mut read = || -> Result<VecDeque<TurnEvent>, String> {
            let message: Message<'_> = parse(&text)?;
            self.begin(message)?;
            let whole: WholeMessage<'_> = parse(&text)?;
            let mut events = VecDeque::new();
            for (index, block) in (0..).zip(whole.content) {
                events.extend(self.open_next(index, block)?);
                self.stop_block(index)?;
            }
            let stop: Stop = parse(&text)?;
            self.stop = stop.stop_reason.as_deref().map(|reason| stop_reason(reason, &stop));
            events.extend(self.message_stop()?);
            Ok(events)
        };
        self.whole = read().map_err(broken)?;
        Ok(())
    }

    fn interpret(&mut self, frame: &Frame) -> Result<Option<TurnEvent>, DecodeError> {
        // A proxy that cuts a character in two costs that character, and not the turn.
        let data = String::from_utf8_lossy(&frame.data);
        // The API names each event twice. Some gateways leave the outer name out.
        let name = match std::str::from_utf8(&frame.event) {
            Ok("") => match serde_json::from_str::<Typed<'_>>(&data) {
                Ok(typed) => Cow::Owned(typed.r#type.0.into_owned()),
                Err(_) => return Ok(None),
            },
            Ok(name) => Cow::Borrowed(name),
            Err(_) => return Ok(None),
        };
        let result = match name.as_ref() {
            "message_start" => self.message_start(&data),
            "content_block_start" => self.block_start(&data),
            "content_block_delta" => self.block_delta(&data),
            "content_block_stop" => self.block_stop(&data),
            "message_delta" => self.message_delta(&data),
            "message_stop" => self.message_stop(),
            "error" => {
                let data = surrogates::without_halves(&data);
                return Err(DecodeError::Api(ApiError::parse(data.as_bytes())));
            }
            // `ping`, and what the API may add: its versioning policy says to ignore unknown events.
            _ => return Ok(None),
        };
        result.map_err(|problem| DecodeError::Malformed {
            event: name.into_owned(),
            problem,
        })
    }

    fn message_start(&mut self, data: &str) -> Result<Option<TurnEvent>, String> {
        let data = surrogates::without_halves(data);
        let event: MessageStart<'_> = parse(&data)?;
        self.begin(event.message)?;
        let (usage, model) = (self.usage, self.model.clone());
        Ok(Some(TurnEvent::Began { usage, model }))
    }

    fn begin(&mut self, message: Message<'_>) -> Result<(), String> {
        if self.started {
            return Err("the turn has started already".to_owned());
        }
        self.started = true;
        self.model = message.model.unwrap_or_default().0.into_owned();
        self.id = message.id.and_then(|id| serde_json::from_str(id.get()).ok());
        self.merge_usage(message.usage);
        Ok(())
    }

    fn block_start(&mut self, data: &str) -> Result<Option<TurnEvent>, String> {
        let data = surrogates::without_halves(data);
        let event: BlockStart<'_> = parse(&data)?;
        self.open_next(event.index, event.content_block)
    }

    fn open_next(&mut self, index: u64, content_block: &RawValue) -> Result<Option<TurnEvent>, String> {
        if !self.started {
            return Err("the turn has not started".to_owned());
        }
        let expected = self.blocks.len() as u64;
        if index != expected {
            return Err(format!(
                "content block {index} is out of order, {expected} was expected"
            ));
        }
        if self.blocks.len() >= MAX_BLOCKS {
            return Err(format!("the turn has more than {MAX_BLOCKS} content blocks"));
        }
        let (block, beginning) = OpenBlock::open(index, content_block)?;
        let shown = match &block.kind {
            Kind::ToolUse { id, name } => Some(TurnEvent::ToolStarted {
                id: id.clone(),
                name: name.clone(),
            }),
            Kind::Text if !beginning.is_empty() => Some(TurnEvent::Text(beginning)),
            Kind::Thinking if !beginning.is_empty() => Some(TurnEvent::Thinking(beginning)),
            _ => None,
        };
        // An empty text that begins brings nothing forward; a call does.
        let moves = !matches!(block.kind, Kind::Text | Kind::Thinking) || shown.is_some();
        self.progress += u64::from(moves && self.blocks.len() < MOVING_BLOCKS);
        self.blocks.push(Block::Open(block));
        Ok(shown)
    }

    fn block_delta(&mut self, data: &str) -> Result<Option<TurnEvent>, String> {
        let event = match serde_json::from_str::<BlockDelta<'_>>(data) {
            Ok(event) if self.carries_nothing(event.index) => event,
            Ok(_) => return self.mended_delta(data),
            Err(_) if surrogates::may_have_halves(data.as_bytes()) => return self.mended_delta(data),
            Err(error) => return self.unknown_delta(data, &error),
        };
        self.take_delta(event, data)
    }

    /// Whether the block did not end, so far, with half of a pair that waits for its other half.
    fn carries_nothing(&self, index: u64) -> bool {
        let block = usize::try_from(index).ok().and_then(|index| self.blocks.get(index));
        !matches!(block, Some(Block::Open(block)) if block.carried.is_some())
    }

    /// A delta with half of a surrogate pair in it, or after one that ended with such a half.
    fn mended_delta(&mut self, data: &str) -> Result<Option<TurnEvent>, String> {
        let RawBlockDelta { index, delta } = parse(data)?;
        let piece = match delta.r#type.0.as_ref() {
            "text_delta" => delta.text,
            "thinking_delta" => delta.thinking,
            "input_json_delta" => delta.partial_json,
            _ => None,
        };
        let Some(piece) = piece else {
            let mended = surrogates::without_halves(data).into_owned();
            return match serde_json::from_str::<BlockDelta<'_>>(&mended) {
                Ok(event) => self.take_delta(event, &mended),
                Err(error) => self.unknown_delta(&mended, &error),
            };
        };
        let block = self.open_block(index)?;
        let (text, carried) = surrogates::text_of(piece.get(), block.carried)
            .ok_or_else(|| format!("a delta of content block {index} cannot be read"))?;
        block.carried = carried;
        // The same event with a text that can be read.
        let at = piece.get().as_ptr() as usize - data.as_ptr() as usize;
        let (before, after) = (data.get(..at), data.get(at + piece.get().len()..));
        let (Some(before), Some(after)) = (before, after) else {
            return Err(format!("a delta of content block {index} cannot be read"));
        };
        let mended = format!("{before}{}{after}", super::wire::json_string(text));
        let mended = surrogates::without_halves(&mended);
        let event = parse::<BlockDelta<'_>>(&mended)?;
        self.take_delta(event, &mended)
    }

    /// A delta that is none of those that we know may use the names of known fields for values of other types.
    fn unknown_delta(&mut self, data: &str, error: &serde_json::Error) -> Result<Option<TurnEvent>, String> {
        let event: UnknownBlockDelta<'_> = parse(data)?;
        let typed: Typed<'_> = parse(event.delta.get())?;
        if KNOWN_DELTAS.contains(&typed.r#type.0.as_ref()) {
            return Err(error.to_string());
        }
        self.open_block(event.index)?.take_unknown(event.delta)?;
        Ok(None)
    }

    fn take_delta(&mut self, event: BlockDelta<'_>, data: &str) -> Result<Option<TurnEvent>, String> {
        let BlockDelta { index, delta } = event;
        let block = self.open_block(index)?;
        let kind = delta.r#type.0.as_ref();
        let fits = match kind {
            "text_delta" => matches!(block.kind, Kind::Text | Kind::Other),
            "thinking_delta" => matches!(block.kind, Kind::Thinking | Kind::Other),
            "input_json_delta" => matches!(block.kind, Kind::ToolUse { .. } | Kind::Other),
            "signature_delta" => matches!(block.kind, Kind::Thinking | Kind::Other),
            "citations_delta" => matches!(block.kind, Kind::Text | Kind::Other),
            _ => true,
        };
        if !fits {
            return Err(format!("a {kind} does not belong into content block {index}"));
        }
        let mut moves = true;
        let shown = match (kind, delta.text, delta.thinking, delta.partial_json) {
            ("text_delta", Some(text), _, _) => {
                block.append("text", &text.0);
                moves = !text.0.is_empty();
                let shown = block.kind == Kind::Text && moves;
                shown.then(|| TurnEvent::Text(text.0.into_owned()))
            }
            ("thinking_delta", _, Some(thinking), _) => {
                block.append("thinking", &thinking.0);
                moves = !thinking.0.is_empty();
                let shown = block.kind == Kind::Thinking && moves;
                shown.then(|| TurnEvent::Thinking(thinking.0.into_owned()))
            }
            ("input_json_delta", _, _, Some(fragment)) => {
                block.append_input(&fragment.0);
                moves = !fragment.0.is_empty();
                None
            }
            ("signature_delta", ..) if delta.signature.is_some() => {
                if let Some(signature) = delta.signature {
                    moves = signature.get() != "\"\"";
                    block.set("signature", signature.to_owned());
                }
                None
            }
            ("citations_delta", ..) if delta.citation.is_some() => {
                if let Some(citation) = delta.citation {
                    block.push("citations", citation);
                }
                None
            }
            _ => {
                let event: UnknownBlockDelta<'_> = parse(data)?;
                // Nobody can say whether it brings anything forward.
                moves = false;
                block.take_unknown(event.delta)?;
                None
            }
        };
        self.progress += u64::from(moves);
        Ok(shown)
    }

    fn block_stop(&mut self, data: &str) -> Result<Option<TurnEvent>, String> {
        let event: BlockStop = parse(data)?;
        self.stop_block(event.index)
    }

    /// Ends a block. Gives what its text still held back.
    fn stop_block(&mut self, index: u64) -> Result<Option<TurnEvent>, String> {
        let rest = self.open_block(index)?.end_text();
        if let Some(slot) = usize::try_from(index).ok().and_then(|index| self.blocks.get_mut(index))
            && let Block::Open(block) = std::mem::replace(slot, Block::Broken)
        {
            *slot = Block::Finished(block.finish()?);
        }
        Ok(rest)
    }

    fn message_delta(&mut self, data: &str) -> Result<Option<TurnEvent>, String> {
        let data = surrogates::without_halves(data);
        let event: MessageDelta<'_> = parse(&data)?;
        self.merge_usage(event.usage);
        if let Some(delta) = event.delta
            && let Some(reason) = &delta.stop_reason
        {
            self.progress += u64::from(self.stop.is_none());
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
            let block = match block {
                Block::Finished(block) => block,
                // The limit may have come inside it; what is there of it counts.
                Block::Open(block) if turn.stop.is_cut_off() => block.finish()?,
                _ => return Err(format!("content block {index} was not ended")),
            };
            turn.content.push(block.raw);
            if let Some(call) = block.tool_call {
                turn.tool_calls.push(super::ToolCall { block: index, ..call });
            }
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

    /// Later values win. Usage is bookkeeping: one that cannot be read costs nothing but itself.
    fn merge_usage(&mut self, usage: Option<&RawValue>) {
        let Some(usage) = usage else { return };
        let wire: WireUsage = serde_json::from_str(usage.get()).unwrap_or_else(|error| {
            tracing::debug!(%error, "the model's usage cannot be read");
            WireUsage::default()
        });
        let merge = |total: &mut Option<u64>, value: Option<u64>| *total = value.or(*total);
        merge(&mut self.usage.input_tokens, wire.input_tokens);
        merge(&mut self.usage.output_tokens, wire.output_tokens);
        merge(&mut self.usage.cache_read_tokens, wire.cache_read_input_tokens);
        merge(&mut self.usage.cache_write_tokens, wire.cache_creation_input_tokens);
        // A prompt that was counted and of which nothing is said about the cache had nothing to do with it.
        if self.usage.input_tokens.is_some() {
            self.usage.cache_read_tokens.get_or_insert(0);
            self.usage.cache_write_tokens.get_or_insert(0);
        }
    }
}

fn parse<'a, T: Deserialize<'a>>(data: &'a str) -> Result<T, String> {
    serde_json::from_str(data).map_err(|error| error.to_string())
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
        "compaction" => StopReason::Compaction,
        other => StopReason::Other(other.to_owned()),
    }
}
