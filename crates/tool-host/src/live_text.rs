//! Bytes that come in pieces, as text that can be shown at once.

/// Makes text of a stream of bytes: bytes that are no UTF-8 become U+FFFD, and so does NUL, which PostgreSQL cannot
/// store. A character that is split over two pieces is held back until it is whole.
#[derive(Default)]
pub(crate) struct LiveText {
    /// The beginning of a character: at most three bytes.
    held: Vec<u8>,
}

impl LiveText {
    /// The text that is complete with this piece.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> String {
        let mut joined = std::mem::take(&mut self.held);
        joined.extend_from_slice(bytes);
        let mut text = String::with_capacity(joined.len());
        let mut chunks = joined.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            let invalid = chunk.invalid();
            let unfinished = || std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
            if !invalid.is_empty() && chunks.peek().is_none() && unfinished() {
                self.held = invalid.to_vec();
            } else if !invalid.is_empty() {
                text.push('\u{FFFD}');
            }
        }
        without_nul(text)
    }

    /// What is left when the stream is over.
    pub(crate) fn finish(&mut self) -> String {
        let left = std::mem::take(&mut self.held);
        if left.is_empty() {
            String::new()
        } else {
            "\u{FFFD}".to_owned()
        }
    }
}

/// PostgreSQL, where the API server keeps the text, cannot store NUL.
pub(crate) fn without_nul(text: String) -> String {
    if text.contains('\0') {
        text.replace('\0', "\u{FFFD}")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_give_the_same_text_wherever_they_are_cut() {
        let bytes = b"a\xc3\xa9\0\xf0\x9f\x98\x80\xff\xe2\x82z\xf0\x9f";
        let whole = "a\u{e9}\u{FFFD}\u{1F600}\u{FFFD}\u{FFFD}z\u{FFFD}";
        for first in 0..=bytes.len() {
            for second in first..=bytes.len() {
                let mut text = LiveText::default();
                let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                let shown: String = pieces.iter().map(|piece| text.push(piece)).collect();
                assert_eq!(shown + &text.finish(), whole, "cut at {first} and {second}");
            }
        }
    }
}
