//! Picking lines out of a file that comes in pieces.

/// Lines from `first` to `last`, counted from 1, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineRange {
    pub first: u64,
    pub last: u64,
}

impl LineRange {
    /// `None` when the whole file is asked for.
    pub fn new(start: Option<u64>, end: Option<u64>) -> Result<Option<Self>, String> {
        if start.is_none() && end.is_none() {
            return Ok(None);
        }
        let range = Self {
            first: start.unwrap_or(1),
            last: end.unwrap_or(u64::MAX),
        };
        if range.last < range.first {
            return Err(format!("end_line {} is before start_line {}.", range.last, range.first));
        }
        Ok(Some(range))
    }
}

/// What of the pieces so far lies in the range, up to a number of bytes.
pub struct Selection {
    range: LineRange,
    max_bytes: usize,
    /// How many newlines came so far.
    newlines: u64,
    /// Whether the last byte so far was a newline, or none came.
    at_line_start: bool,
    bytes: Vec<u8>,
}

impl Selection {
    pub fn new(range: LineRange, max_bytes: usize) -> Self {
        Self {
            range,
            max_bytes,
            newlines: 0,
            at_line_start: true,
            bytes: Vec::new(),
        }
    }

    /// Takes the next piece of the file.
    pub fn push(&mut self, piece: &[u8]) {
        let Some(&last) = piece.last() else { return };
        self.at_line_start = last == b'\n';
        let to_skip = self.range.first - 1;
        let mut start = 0;
        if self.newlines < to_skip {
            let here = memchr::memchr_iter(b'\n', piece).count() as u64;
            if self.newlines + here < to_skip {
                self.newlines += here;
                return;
            }
            let nth = (to_skip - self.newlines - 1) as usize;
            start = memchr::memchr_iter(b'\n', piece)
                .nth(nth)
                .map_or(piece.len(), |at| at + 1);
            self.newlines = to_skip;
        }
        for at in memchr::memchr_iter(b'\n', &piece[start..]) {
            self.newlines += 1;
            if self.newlines >= self.range.last {
                self.take(&piece[start..=start + at]);
                return;
            }
        }
        self.take(&piece[start..]);
    }

    fn take(&mut self, bytes: &[u8]) {
        let room = self.max_bytes - self.bytes.len();
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// More bytes were asked for than are kept.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= self.max_bytes
    }

    /// Nothing that comes later matters.
    pub fn is_complete(&self) -> bool {
        self.is_full() || self.newlines >= self.range.last
    }

    /// At the end of the file: how many lines it has, when the first of the range is not among them. A file without a
    /// line still has the beginning of its first.
    pub fn ended_before_first(&self) -> Option<u64> {
        let lines = self.newlines + u64::from(!self.at_line_start);
        (lines.max(1) < self.range.first).then_some(lines)
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn select(text: &str, first: u64, last: u64, piece: usize) -> (String, Option<u64>) {
        let mut selection = Selection::new(LineRange { first, last }, 1000);
        for piece in text.as_bytes().chunks(piece) {
            if selection.is_complete() {
                break;
            }
            selection.push(piece);
        }
        (
            String::from_utf8_lossy(selection.bytes()).into_owned(),
            selection.ended_before_first(),
        )
    }

    #[test]
    fn lines_are_counted_from_one_and_both_ends_are_included() {
        for (text, first, last, selected, beyond) in [
            ("a\nb\nc\n", 1, 1, "a\n", None),
            ("a\nb\nc\n", 2, 3, "b\nc\n", None),
            ("a\nb\nc\n", 1, u64::MAX, "a\nb\nc\n", None),
            ("a\nb\nc", 3, 9, "c", None),
            ("a\r\nb\r\n", 2, 2, "b\r\n", None),
            ("a\n\n\nb", 2, 3, "\n\n", None),
            ("a\nb\nc\n", 4, 4, "", Some(3)),
            ("a\nb\nc", 4, 9, "", Some(3)),
            ("a\nb\nc", u64::MAX, u64::MAX, "", Some(3)),
            ("", 1, 5, "", None),
            ("", 2, 5, "", Some(0)),
            ("\n", 2, 2, "", Some(1)),
        ] {
            for piece in [1, 2, 3, 100] {
                let found = select(text, first, last, piece);
                assert_eq!(
                    found,
                    (selected.to_owned(), beyond),
                    "{text:?} {first}-{last} in pieces of {piece}"
                );
            }
        }
    }

    #[test]
    fn a_range_needs_a_beginning_before_its_end() {
        for (start, end, range) in [
            (None, None, Ok(None)),
            (
                Some(2),
                None,
                Ok(Some(LineRange {
                    first: 2,
                    last: u64::MAX,
                })),
            ),
            (None, Some(2), Ok(Some(LineRange { first: 1, last: 2 }))),
            (Some(3), Some(2), Err("end_line 2 is before start_line 3.".to_owned())),
        ] {
            assert_eq!(LineRange::new(start, end), range);
        }
    }

    #[test]
    fn no_more_is_kept_than_may_be() {
        let mut selection = Selection::new(
            LineRange {
                first: 1,
                last: u64::MAX,
            },
            5,
        );
        selection.push(b"abc\ndef\n");
        assert_eq!((selection.bytes(), selection.is_full()), (&b"abc\nd"[..], true));
    }
}
