//! Server-sent events: from the chunks of a response's body to events, without a copy for an event that came in one
//! chunk. Follows the WHATWG HTML standard, §9.2.6 "Interpreting an event stream", except that the data stays bytes:
//! whoever parses it says what is wrong with it.
//!
//! Why not the crate `eventsource-stream` 0.2.3: what comes from the network is not trusted, and that crate panics on a
//! stream that begins with a byte order mark, keeps the runtime's thread busy for 32 s with a body of 256 KiB of
//! newlines (it moves the rest of its buffer for every line), reads an event of N bytes N²/chunk times, and knows no
//! bound. It serves as the reference in this module's property test.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The largest event, in bytes of its fields. The largest that is known are results of server tools, well under 1 MiB.
pub const MAX_EVENT_BYTES: usize = 16 * 1024 * 1024;

/// The most bytes of one response, all events together. An answer of 128,000 tokens with one event for each is 16 MiB.
pub const MAX_TURN_BYTES: usize = 64 * 1024 * 1024;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Its `event` field; empty when there was none.
    pub event: Bytes,
    /// Its `data` fields, joined by newlines.
    pub data: Bytes,
}

/// A stream that is larger than anything the API is known to send.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// One event has more than [`MAX_EVENT_BYTES`].
    #[error("one event of the model's stream is larger than {MAX_EVENT_BYTES} bytes")]
    EventTooLarge,
    /// All of them have more than [`MAX_TURN_BYTES`].
    #[error("the model's stream for one turn is larger than {MAX_TURN_BYTES} bytes")]
    TurnTooLarge,
}

/// Splits a body into events. Chunks go in by [`Framer::push`]; then [`Framer::next_frame`] until it gives `None`.
#[derive(Debug, Default)]
pub struct Framer {
    /// What is unread of the last chunk.
    chunk: Bytes,
    /// The beginning of a line whose end did not come yet.
    partial_line: BytesMut,
    /// The last line ended with a carriage return: a line feed right behind it is part of that ending.
    skip_line_feed: bool,
    /// The first line was read: a byte order mark is one only before that.
    first_line_read: bool,
    /// All bytes so far.
    turn_bytes: usize,
    event: Bytes,
    data: Data,
}

/// The data of the event that is being read. One line, the usual case, stays a slice of its chunk.
#[derive(Debug, Default)]
enum Data {
    #[default]
    None,
    Line(Bytes),
    Lines(BytesMut),
}

impl Data {
    fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Line(line) => line.len(),
            Self::Lines(lines) => lines.len(),
        }
    }

    fn add(&mut self, value: Bytes) {
        *self = match std::mem::take(self) {
            Self::None => Self::Line(value),
            Self::Line(first) => {
                let mut lines = BytesMut::with_capacity(first.len() + value.len() + 1);
                lines.put(first);
                lines.put_u8(b'\n');
                lines.put(value);
                Self::Lines(lines)
            }
            Self::Lines(mut lines) => {
                lines.put_u8(b'\n');
                lines.put(value);
                Self::Lines(lines)
            }
        };
    }
}

impl Framer {
    /// Takes the next chunk. All frames of the chunk before must have been taken: what is unread would be lost
    /// otherwise, so it is kept, at the cost of a copy.
    pub fn push(&mut self, chunk: Bytes) -> Result<(), FramingError> {
        self.turn_bytes = self.turn_bytes.saturating_add(chunk.len());
        if self.turn_bytes > MAX_TURN_BYTES {
            return Err(FramingError::TurnTooLarge);
        }
        if self.chunk.is_empty() {
            self.chunk = chunk;
        } else {
            let mut joined = BytesMut::from(std::mem::take(&mut self.chunk));
            joined.put(chunk);
            self.chunk = joined.freeze();
        }
        Ok(())
    }

    /// The next event that has come in whole. An event that the end of the body cuts off is dropped, as the standard
    /// says.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FramingError> {
        while let Some(line) = self.next_line()? {
            if line.is_empty() {
                let event = std::mem::take(&mut self.event);
                match std::mem::take(&mut self.data) {
                    Data::None => {}
                    Data::Line(data) => return Ok(Some(Frame { event, data })),
                    Data::Lines(data) => {
                        return Ok(Some(Frame {
                            event,
                            data: data.freeze(),
                        }));
                    }
                }
            } else {
                self.add_field(line);
            }
        }
        Ok(None)
    }

    /// The event that the end of the body cuts off, as far as it came: for whoever would rather read too much than too
    /// little. `None` when there is none.
    pub fn unfinished(&mut self) -> Option<Frame> {
        let line = std::mem::take(&mut self.partial_line).freeze();
        if !line.is_empty() {
            self.add_field(line);
        }
        let event = std::mem::take(&mut self.event);
        match std::mem::take(&mut self.data) {
            Data::None => None,
            Data::Line(data) => Some(Frame { event, data }),
            Data::Lines(data) => Some(Frame {
                event,
                data: data.freeze(),
            }),
        }
    }

    /// The next line, without its ending: a line feed, a carriage return, or both.
    fn next_line(&mut self) -> Result<Option<Bytes>, FramingError> {
        if self.skip_line_feed && !self.chunk.is_empty() {
            self.skip_line_feed = false;
            if self.chunk.first() == Some(&b'\n') {
                self.chunk.advance(1);
            }
        }
        let Some(end) = self.chunk.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
            self.check_event_size(self.partial_line.len() + self.chunk.len())?;
            self.partial_line.put(std::mem::take(&mut self.chunk));
            return Ok(None);
        };
        self.check_event_size(self.partial_line.len() + end)?;
        let mut line = self.chunk.split_to(end);
        self.skip_line_feed = self.chunk.first() == Some(&b'\r');
        self.chunk.advance(1);
        if !self.partial_line.is_empty() {
            self.partial_line.put(line);
            line = self.partial_line.split().freeze();
        }
        if !self.first_line_read {
            self.first_line_read = true;
            if line.starts_with("\u{feff}".as_bytes()) {
                line.advance("\u{feff}".len());
            }
        }
        Ok(Some(line))
    }

    fn add_field(&mut self, mut line: Bytes) {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let name = line.split_to(colon);
        if !line.is_empty() {
            line.advance(1);
        }
        if line.first() == Some(&b' ') {
            line.advance(1);
        }
        match name.as_ref() {
            b"data" => self.data.add(line),
            b"event" => self.event = line,
            // A comment (no name), `id`, `retry`, or what a later standard adds.
            _ => {}
        }
    }

    /// Whether the event may have so many bytes more. Every line is checked before it is kept.
    fn check_event_size(&self, more: usize) -> Result<(), FramingError> {
        if self.event.len() + self.data.len() + more > MAX_EVENT_BYTES {
            return Err(FramingError::EventTooLarge);
        }
        Ok(())
    }
}
