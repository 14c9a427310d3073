//! A large file as a stream, in which no line is too long to be kept.

use std::cell::Cell;
use std::io;
use std::ops::Range;

use plue_tool::{File, READ_SIZE};

use crate::content::{MAX_SEARCHED_LINE, is_utf16};
use crate::deadline::Deadline;

/// How far the end of a line that is too long is looked for, in bytes. A sparse file of a terabyte is one line, too.
const MAX_SKIPPED: u64 = 256 * 1024 * 1024;

/// What the reader of a stream found out.
#[derive(Default)]
pub struct StreamState {
    pub binary: Cell<bool>,
    /// The time was up.
    pub late: Cell<bool>,
    /// The reader ended with an error.
    pub failed: Cell<bool>,
    /// A line was cut off at [`MAX_SEARCHED_LINE`].
    pub line_cut: Cell<bool>,
}

/// A file as a stream of pieces. Of a line that is too long, the rest is left out; where its end is too far away, the
/// stream ends.
pub struct Pieces<'a> {
    file: &'a File,
    deadline: &'a Deadline<'a>,
    state: &'a StreamState,
    offset: u64,
    piece: Vec<u8>,
    /// What of the piece was not yet handed out.
    left: Range<usize>,
    /// How long the line is that the piece is in, so far.
    line: u64,
    /// UTF-16: a byte that looks like the end of a line may be half of a character, so lines are left whole.
    utf16: bool,
}

impl<'a> Pieces<'a> {
    pub fn new(file: &'a File, deadline: &'a Deadline<'a>, state: &'a StreamState) -> Self {
        Self {
            file,
            deadline,
            state,
            offset: 0,
            piece: Vec::new(),
            left: 0..0,
            line: 0,
            utf16: false,
        }
    }

    /// Reads the next piece; an empty one is the end.
    fn next_piece(&mut self) -> io::Result<()> {
        // Asking for the time at every sixteenth piece costs nothing and keeps the end in sight.
        if (self.offset / READ_SIZE).is_multiple_of(16) && self.deadline.is_over() {
            self.state.late.set(true);
            self.state.failed.set(true);
            return Err(io::Error::other("the time is up"));
        }
        self.piece = self.file.read(self.offset).map_err(|error| {
            self.state.failed.set(true);
            io::Error::other(error.to_string())
        })?;
        if self.offset == 0 {
            self.utf16 = is_utf16(&self.piece);
        }
        if memchr::memchr(0, &self.piece).is_some() && !(self.offset == 0 && self.utf16) {
            self.state.binary.set(true);
        }
        self.offset += self.piece.len() as u64;
        self.left = 0..self.piece.len();
        Ok(())
    }

    /// Leaves out what is too much of the line that goes on in this piece. A piece is far shorter than the longest
    /// line, so no line that also begins in it can be too long yet.
    fn cut_line(&mut self) {
        let first_end = memchr::memchr(b'\n', &self.piece);
        let over = |line: u64| line > MAX_SEARCHED_LINE;
        if over(self.line + first_end.unwrap_or(self.piece.len()) as u64) {
            self.state.line_cut.set(true);
            self.left.start = first_end.unwrap_or(self.piece.len());
        }
        self.line = match memchr::memrchr(b'\n', &self.piece) {
            Some(last_end) => (self.piece.len() - last_end - 1) as u64,
            None => self.line + self.piece.len() as u64,
        };
    }
}

impl io::Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.left.is_empty() {
            if self.line > MAX_SEARCHED_LINE + MAX_SKIPPED {
                return Ok(0);
            }
            self.next_piece()?;
            if self.piece.is_empty() {
                return Ok(0);
            }
            if !self.utf16 {
                self.cut_line();
            }
        }
        let length = buffer.len().min(self.left.len());
        buffer[..length].copy_from_slice(&self.piece[self.left.start..self.left.start + length]);
        self.left.start += length;
        Ok(length)
    }
}
