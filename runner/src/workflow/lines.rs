//! From bytes as they come to lines as the log wants them.

use std::time::Duration;

/// How long a line without an end is kept back.
pub const FLUSH_AFTER: Duration = Duration::from_secs(1);
/// How long a line may become before it is sent in parts.
pub(crate) const MAX_LINE_BYTES: usize = 16 * 1024;

/// A line without its newline, or a part of one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) text: String,
    /// Whether the line goes on.
    pub(super) partial: bool,
}

/// Splits a stream of bytes into lines. Bytes that are no UTF-8, and NUL, become U+FFFD; a character that is split over
/// two chunks does not.
pub(super) struct LineSplitter {
    pending: Vec<u8>,
}

impl LineSplitter {
    pub(super) fn new() -> Self {
        Self { pending: Vec::new() }
    }

    /// Whether nothing waits for its newline.
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Takes a chunk, gives the lines that it completes, and the parts of one that is too long.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.pending.extend_from_slice(piece);
            if self.pending.last() == Some(&b'\n') {
                self.pending.pop();
                self.split_long(&mut lines);
                lines.push(Line {
                    text: text(&self.pending),
                    partial: false,
                });
                self.pending.clear();
            } else {
                self.split_long(&mut lines);
            }
        }
        lines
    }

    /// Gives what waits, as a part; a character that is not complete stays.
    pub(super) fn flush(&mut self) -> Option<Line> {
        let end = complete(&self.pending);
        (end > 0).then(|| self.take(end))
    }

    /// Gives the last line, when it has no newline.
    pub(super) fn finish(&mut self) -> Option<Line> {
        (!self.pending.is_empty()).then(|| Line {
            text: text(&std::mem::take(&mut self.pending)),
            partial: false,
        })
    }

    fn split_long(&mut self, lines: &mut Vec<Line>) {
        while self.pending.len() > MAX_LINE_BYTES {
            let end = match complete(&self.pending[..MAX_LINE_BYTES]) {
                0 => MAX_LINE_BYTES,
                end => end,
            };
            lines.push(self.take(end));
        }
    }

    fn take(&mut self, end: usize) -> Line {
        let rest = self.pending.split_off(end);
        let part = std::mem::replace(&mut self.pending, rest);
        Line {
            text: text(&part),
            partial: true,
        }
    }
}

/// How many of the bytes end with a whole character: a character cut at the end is left for the next chunk.
fn complete(bytes: &[u8]) -> usize {
    let tail = bytes.len().saturating_sub(3);
    for (index, byte) in bytes.iter().enumerate().skip(tail).rev() {
        let needed = match byte {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            0x80..=0xbf => continue,
            _ => return bytes.len(),
        };
        return if bytes.len() - index < needed {
            index
        } else {
            bytes.len()
        };
    }
    bytes.len()
}

fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    if text.contains('\0') {
        text.replace('\0', "\u{fffd}")
    } else {
        text.into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(chunks: &[&[u8]]) -> Vec<(String, bool)> {
        let mut splitter = LineSplitter::new();
        let mut lines: Vec<Line> = chunks.iter().flat_map(|chunk| splitter.push(chunk)).collect();
        lines.extend(splitter.finish());
        lines.into_iter().map(|line| (line.text, line.partial)).collect()
    }

    #[test]
    fn lines_are_the_same_however_the_bytes_are_cut() {
        let bytes = "one\n\nzwölf €\n🦀 end".as_bytes();
        let expected = all(&[bytes]);
        assert_eq!(expected.len(), 4);
        for cut in 0..bytes.len() {
            assert_eq!(all(&[&bytes[..cut], &bytes[cut..]]), expected, "cut at {cut}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_become_the_replacement_character() {
        assert_eq!(all(&[b"a\xffb\0c\n"]), [("a\u{fffd}b\u{fffd}c".into(), false)]);
        assert_eq!(all(&[b"\xe2\x82"]), [("\u{fffd}".into(), false)]);
    }

    #[test]
    fn a_flush_gives_what_is_complete_and_keeps_half_a_character() {
        let mut splitter = LineSplitter::new();
        assert!(splitter.push(b"go: \xe2\x82").is_empty());
        assert_eq!(
            splitter.flush(),
            Some(Line {
                text: "go: ".into(),
                partial: true
            })
        );
        assert_eq!(splitter.flush(), None);
        assert_eq!(
            splitter.push(b"\xac\n"),
            [Line {
                text: "€".into(),
                partial: false
            }]
        );
    }

    #[test]
    fn a_long_line_comes_in_parts_and_loses_nothing() {
        let long = "é".repeat(MAX_LINE_BYTES);
        let mut bytes = long.clone().into_bytes();
        bytes.push(b'\n');
        let lines = all(&[&bytes]);
        assert!(lines.len() > 1 && lines.iter().all(|(text, _)| text.len() <= MAX_LINE_BYTES));
        assert_eq!(lines.iter().map(|(text, _)| text.as_str()).collect::<String>(), long);
        let partial: Vec<bool> = lines.iter().map(|(_, partial)| *partial).collect();
        assert_eq!(
            partial.iter().filter(|partial| !**partial).count(),
            1,
            "only the last part ends the line"
        );
    }
}
