//! What the model says, on its way to whoever watches, and what it is told: without secrets, also when one comes in
//! several deltas.

use crate::events::Event;
use plue_redaction::{Redactor, Stream};

/// The text of one message.
#[derive(Debug)]
pub(super) struct MaskedDeltas {
    stream: Stream,
    /// The first delta of what was not passed on.
    first: Option<u64>,
    /// The next delta's index.
    next: u64,
}

impl MaskedDeltas {
    pub(super) fn new(redactor: &'static Redactor) -> Self {
        Self {
            stream: redactor.stream(),
            first: None,
            next: 0,
        }
    }

    /// Takes a delta. Gives what can be shown, and the index of the first delta in it; nothing when all of it may be
    /// the beginning of a secret.
    pub(super) fn push(&mut self, delta: &str) -> Option<(String, u64)> {
        self.first.get_or_insert(self.next);
        self.next += 1;
        let text = self.stream.push_text(delta);
        self.shown(text)
    }

    /// Gives what was kept back.
    pub(super) fn finish(&mut self) -> Option<(String, u64)> {
        let text = self.stream.finish_text();
        if !text.is_empty() && self.first.is_none() {
            // A part of the last delta was shown: the rest is as a delta of its own.
            self.first = Some(self.next);
            self.next += 1;
        }
        self.shown(text)
    }

    fn shown(&mut self, text: String) -> Option<(String, u64)> {
        if text.is_empty() {
            return None;
        }
        self.first.take().map(|first| (text, first))
    }
}

/// The longest delta that is told in one piece, in bytes: with every character escaped it is an event that the server
/// takes.
const MAX_DELTA: usize = 128 << 10;

/// A delta in pieces that are not too large for an event; a gateway that collects a stream may send all of it as one
/// delta.
pub(super) fn pieces(mut delta: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let (piece, rest) = delta.split_at(delta.floor_char_boundary(MAX_DELTA));
        delta = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Takes secrets out of a result, for the model too, and says how many.
pub(super) fn mask(text: &mut String, redactor: &Redactor) {
    let (masked_text, masked) = redactor.redact(std::mem::take(text));
    *text = masked_text;
    match masked {
        0 => {}
        1 => text.push_str("\n\n[1 secret value was masked]"),
        _ => text.push_str(&format!("\n\n[{masked} secret values were masked]")),
    }
}

pub(super) fn token(message_id: &str, (text, token_index): (String, u64)) -> Event {
    Event::Token {
        message_id: message_id.to_owned(),
        text,
        token_index,
    }
}

pub(super) fn thought(message_id: &str, (text, _): (String, u64)) -> Event {
    Event::Thinking {
        message_id: message_id.to_owned(),
        text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delta_is_told_whole_however_long_it_is() {
        for delta in [String::new(), "a".into(), "é€🦀".repeat(100_000), "x".repeat(MAX_DELTA)] {
            let pieces: Vec<&str> = pieces(&delta).collect();
            assert_eq!(pieces.concat(), delta);
            assert!(pieces.iter().all(|piece| piece.len() <= MAX_DELTA && !piece.is_empty()));
            assert_eq!(pieces.len(), delta.len().div_ceil(MAX_DELTA), "as few as can be");
        }
    }
}
