//! What the scripted model answers: a turn of blocks with its stop reason and its ending, or an HTTP error.

use std::time::Duration;

use axum::body::Bytes;
use serde_json::{Value, json};

/// One content block: how it begins, the deltas that follow, and what it is when it is whole. The whole block is what
/// the client must send back unchanged.
#[derive(Clone, Debug)]
pub struct Block {
    pub start: Value,
    pub deltas: Vec<Value>,
    pub whole: Value,
}

impl Block {
    /// Text that comes in these pieces.
    pub fn text(pieces: &[&str]) -> Self {
        Self {
            start: json!({ "type": "text", "text": "" }),
            deltas: pieces
                .iter()
                .map(|piece| json!({ "type": "text_delta", "text": piece }))
                .collect(),
            whole: json!({ "type": "text", "text": pieces.concat() }),
        }
    }

    /// A tool call with these arguments, whose JSON comes in small pieces.
    pub fn call(id: &str, name: &str, input: &Value) -> Self {
        let text = input.to_string();
        let characters: Vec<char> = text.chars().collect();
        // Long ones come in a thousand larger pieces: a megabyte in pieces of seven would be all that a test does.
        let size = characters.len().div_ceil(1000).max(7);
        let pieces: Vec<String> = characters.chunks(size).map(|piece| piece.iter().collect()).collect();
        Self::call_in_pieces(id, name, &pieces.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// A tool call whose arguments come in exactly these pieces. Together they may be no JSON object, which is all that
    /// the API takes back; then the whole block holds `null` as its input, and any object may stand for it.
    pub fn call_in_pieces(id: &str, name: &str, pieces: &[&str]) -> Self {
        let text = pieces.concat();
        let input = match text.as_str() {
            "" => json!({}),
            text => serde_json::from_str(text)
                .ok()
                .filter(Value::is_object)
                .unwrap_or(Value::Null),
        };
        Self {
            start: json!({ "type": "tool_use", "id": id, "name": name, "input": {} }),
            deltas: pieces
                .iter()
                .map(|piece| json!({ "type": "input_json_delta", "partial_json": piece }))
                .collect(),
            whole: json!({ "type": "tool_use", "id": id, "name": name, "input": input }),
        }
    }

    /// Thinking, with the signature that makes it valid. No pieces: thinking whose display is omitted.
    pub fn thinking(pieces: &[&str], signature: &str) -> Self {
        let mut deltas: Vec<Value> = pieces
            .iter()
            .map(|piece| json!({ "type": "thinking_delta", "thinking": piece }))
            .collect();
        deltas.push(json!({ "type": "signature_delta", "signature": signature }));
        Self {
            start: json!({ "type": "thinking", "thinking": "", "signature": "" }),
            deltas,
            whole: json!({ "type": "thinking", "thinking": pieces.concat(), "signature": signature }),
        }
    }

    /// A summary of the API's own.
    pub fn compaction(summary: &str) -> Self {
        let whole = json!({ "type": "compaction", "content": summary, "signature": "c2lnbmF0dXJl" });
        Self {
            start: json!({ "type": "compaction", "content": null, "signature": "" }),
            deltas: vec![json!({ "type": "compaction_delta", "content": summary, "signature": "c2lnbmF0dXJl" })],
            whole,
        }
    }

    /// A block that comes whole in its start, of a kind that the client need not know.
    pub fn whole(block: Value) -> Self {
        Self {
            start: block.clone(),
            deltas: Vec::new(),
            whole: block,
        }
    }

    /// Adds a field that the client need not know, and has to send back.
    pub fn with(mut self, field: &str, value: Value) -> Self {
        self.start[field] = value.clone();
        self.whole[field] = value;
        self
    }

    pub(super) fn is_call(&self) -> bool {
        self.whole["type"] == "tool_use"
    }

    pub(super) fn is_blank_text(&self) -> bool {
        self.whole["type"] == "text" && self.whole["text"].as_str().is_none_or(|text| text.trim().is_empty())
    }
}

/// How the stream of a turn ends.
#[derive(Clone, Debug, PartialEq)]
pub enum Ending {
    /// With `message_stop`.
    Complete,
    /// With an `error` event of this type after the last delta, inside the last block.
    Error(&'static str),
    /// The connection breaks after the last delta.
    Cut,
    /// The body ends in good order, and `message_stop` never came.
    NoStop,
    /// Nothing more comes, and the connection stays open.
    Stall,
    /// Nothing but pings comes.
    Pings,
    /// An event that nobody can read, and the end of the body.
    Malformed,
}

/// One turn of the model.
#[derive(Clone, Debug)]
pub struct Turn {
    pub blocks: Vec<Block>,
    pub stop_reason: Value,
    pub stop_sequence: Option<String>,
    pub stop_details: Option<Value>,
    pub ending: Ending,
    /// So many events come before the ending; `None`: all up to the end of the last block.
    pub cut_after: Option<usize>,
    /// Input, output, read from cache, written to cache: tokens.
    pub usage: [u64; 4],
    /// Whether `ping`s and events of unknown kinds come in between.
    pub noise: bool,
    /// The wait before each event.
    pub pace: Duration,
    /// Sends the bytes in pieces of this size, which cut through lines and characters.
    pub piece: Option<usize>,
}

impl Default for Turn {
    fn default() -> Self {
        Self {
            blocks: Vec::new(),
            stop_reason: Value::Null,
            stop_sequence: None,
            stop_details: None,
            ending: Ending::Complete,
            cut_after: None,
            usage: [100, 20, 0, 0],
            noise: false,
            pace: Duration::ZERO,
            piece: None,
        }
    }
}

impl Turn {
    pub fn new() -> Self {
        Self::default()
    }

    /// A turn that says this and ends.
    pub fn says(text: &str) -> Self {
        Self::new().say(text)
    }

    /// Adds text, which comes word by word.
    /// Text that comes in these pieces.
    pub fn text<T: AsRef<str>>(pieces: &[T]) -> Self {
        let pieces: Vec<&str> = pieces.iter().map(AsRef::as_ref).collect();
        Self::new().block(Block::text(&pieces))
    }

    pub fn say(self, text: &str) -> Self {
        let pieces: Vec<&str> = text.split_inclusive(' ').collect();
        self.block(Block::text(&pieces))
    }

    /// Adds a tool call.
    pub fn call(self, id: &str, name: &str, input: Value) -> Self {
        self.block(Block::call(id, name, &input))
    }

    pub fn block(mut self, block: Block) -> Self {
        self.blocks.push(block);
        self
    }

    /// Sets the stop reason. Without it, it is `tool_use` when the turn has a call, and `end_turn` otherwise.
    pub fn stop(mut self, reason: &str) -> Self {
        self.stop_reason = reason.into();
        self
    }

    pub fn stop_details(mut self, details: Value) -> Self {
        self.stop_details = Some(details);
        self
    }

    pub fn stop_sequence(mut self, sequence: &str) -> Self {
        self.stop_sequence = Some(sequence.to_owned());
        self.stop("stop_sequence")
    }

    pub fn ending(mut self, ending: Ending) -> Self {
        self.ending = ending;
        self
    }

    /// Breaks off after so many of its events, the first and the last included.
    pub fn cut_after(mut self, events: usize, ending: Ending) -> Self {
        self.cut_after = Some(events);
        self.ending = ending;
        self
    }

    /// How many events it has.
    pub fn length(&self) -> usize {
        super::sse::length(self)
    }

    /// Whether all that a client needs of it is sent: what comes after the stop reason says nothing new.
    pub fn is_complete(&self) -> bool {
        match self.cut_after {
            None => self.ending == Ending::Complete,
            Some(events) => events + 1 >= self.length(),
        }
    }

    pub fn usage(mut self, input: u64, output: u64, cache_read: u64, cache_write: u64) -> Self {
        self.usage = [input, output, cache_read, cache_write];
        self
    }

    pub fn noise(mut self) -> Self {
        self.noise = true;
        self
    }

    pub fn pace(mut self, pace: Duration) -> Self {
        self.pace = pace;
        self
    }

    pub fn in_pieces_of(mut self, bytes: usize) -> Self {
        self.piece = Some(bytes);
        self
    }

    /// The stop reason that is sent.
    pub fn effective_stop(&self) -> Value {
        match &self.stop_reason {
            Value::Null if self.blocks.iter().any(Block::is_call) => "tool_use".into(),
            Value::Null => "end_turn".into(),
            reason => reason.clone(),
        }
    }
}

/// The answer to one request.
#[derive(Clone, Debug)]
pub enum Reply {
    Turn(Box<Turn>),
    /// An HTTP error in the API's shape.
    Error {
        status: u16,
        kind: &'static str,
        message: String,
        headers: Vec<(&'static str, String)>,
    },
    /// An answer that did not come from the API, as proxies give them.
    Raw {
        status: u16,
        content_type: &'static str,
        body: String,
    },
    /// An event stream of these bytes, whatever they are: the head, the piece so many times (`None`: until the client
    /// goes), the tail.
    Stream {
        head: Bytes,
        piece: Bytes,
        times: Option<u64>,
        tail: Bytes,
    },
    /// An event stream of the head and then of this piece, so far apart, for as long as the client waits.
    Slow {
        head: Bytes,
        piece: Bytes,
        apart: Duration,
    },
    /// The connection ends without an answer.
    Cut,
    /// The script finds that the request is not what it has to be: the request is refused, and the test fails.
    Wrong(String),
}

impl Reply {
    /// An HTTP error in the API's shape, with the type that belongs to the status.
    pub fn error(status: u16) -> Self {
        let kind = match status {
            401 => "authentication_error",
            402 => "billing_error",
            403 => "permission_error",
            404 => "not_found_error",
            409 => "conflict_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            504 => "timeout_error",
            529 => "overloaded_error",
            500..=599 => "api_error",
            _ => "invalid_request_error",
        };
        Self::Error {
            status,
            kind,
            message: format!("scripted {kind}"),
            headers: Vec::new(),
        }
    }

    /// Adds a header to an error, `retry-after` for instance.
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        if let Self::Error { headers, .. } = &mut self {
            headers.push((name, value.to_owned()));
        }
        self
    }
}

impl From<Turn> for Reply {
    fn from(turn: Turn) -> Self {
        Self::Turn(Box::new(turn))
    }
}
