//! The lines that the model reads.

use std::ops::Range;

use plue_tool::quote;

use crate::content::MAX_SEARCHED_LINE;

/// Longest line of a file that is shown, in characters. What is cut is minified code or data.
const MAX_LINE: usize = 500;

/// How much of a long line is shown before the match, in bytes.
const BEFORE_MATCH: usize = 200;

/// Longest result, in bytes, whatever `max_results` allows.
const MAX_TEXT: usize = 256 * 1024;

/// The result as it grows.
pub struct Report {
    pub text: String,
    /// How many matches are in the text.
    pub matches: u64,
    /// There was a match more than may be shown.
    pub cut: bool,
    /// What else there is to say, at the end.
    pub notes: Vec<String>,
    /// How many files have a line that is too long to be searched whole.
    partly_searched: u64,
    /// The first of them.
    first_partly_searched: String,
    max_matches: u64,
}

impl Report {
    pub fn new(max_matches: u64) -> Self {
        Self {
            text: String::new(),
            matches: 0,
            cut: false,
            notes: Vec::new(),
            partly_searched: 0,
            first_partly_searched: String::new(),
            max_matches,
        }
    }

    /// Whether there is room for one match more; if not, notes that one was left out.
    fn has_room(&mut self) -> bool {
        self.cut = self.matches >= self.max_matches || self.text.len() >= MAX_TEXT;
        !self.cut
    }

    /// Adds a line that matches, `at` being where in it. False when there is no room for it.
    pub fn line(&mut self, path: &str, number: u64, line: &[u8], at: impl FnOnce() -> Range<usize>) -> bool {
        if !self.has_room() {
            return false;
        }
        self.matches += 1;
        self.text.push_str(&quote(path));
        self.text.push_str(&format!(":{number}:"));
        push_line(&mut self.text, line, at);
        self.text.push('\n');
        true
    }

    /// Adds a binary file that matches, as grep does. False when there is no room for it.
    pub fn binary(&mut self, path: &str) -> bool {
        if !self.has_room() {
            return false;
        }
        self.matches += 1;
        self.text.push_str(&format!("Binary file {} matches\n", quote(path)));
        true
    }

    /// Counts a file of which a line was searched only in its beginning, or that was left from such a line on.
    pub fn partly_searched(&mut self, path: &str) {
        self.partly_searched += 1;
        if self.partly_searched == 1 {
            self.first_partly_searched = quote(path).into_owned();
        }
    }

    /// All there is to say at the end.
    pub fn take_notes(&mut self) -> Vec<String> {
        let mut notes = std::mem::take(&mut self.notes);
        if self.partly_searched > 0 {
            notes.push(format!(
                "{} files have a line longer than {} MiB and were searched only in part: the rest of such a line was \
                 skipped, and what follows it may have been; the first is {}. To search it whole, break its lines up.",
                self.partly_searched,
                MAX_SEARCHED_LINE >> 20,
                self.first_partly_searched
            ));
        }
        notes
    }

    /// Adds a note in brackets.
    pub fn note(&mut self, note: &str) {
        self.text.push_str(&format!("[{note}]\n"));
    }
}

/// Adds the text of a line without its end; of a long one, the part around the match.
fn push_line(text: &mut String, line: &[u8], at: impl FnOnce() -> Range<usize>) {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() <= MAX_LINE {
        text.push_str(&String::from_utf8_lossy(line));
        return;
    }
    let found = at();
    let mut start = 0;
    if found.end > MAX_LINE {
        start = found.start.min(line.len()).saturating_sub(BEFORE_MATCH);
        while start > 0 && is_inside_character(line[start]) {
            start -= 1;
        }
        if start > 0 {
            text.push('…');
        }
    }
    // As many bytes as may be needed for the characters that are shown, and one character more, cut or not.
    let window = &line[start..line.len().min(start + (MAX_LINE + 2) * 4)];
    let shown = String::from_utf8_lossy(window);
    match shown.char_indices().nth(MAX_LINE) {
        None => text.push_str(&shown),
        Some((end, _)) => {
            text.push_str(&shown[..end]);
            text.push_str(&format!("… [line of {} bytes]", line.len()));
        }
    }
}

fn is_inside_character(byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str, at: usize) -> String {
        let mut text = String::new();
        push_line(&mut text, line.as_bytes(), || at..at + 5);
        text
    }

    #[test]
    fn a_long_line_is_shown_around_its_match() {
        let long = format!("{}match{}", "a".repeat(1000), "b".repeat(1000));
        assert_eq!(shown("short match\r\n", 6), "short match");
        assert_eq!(
            shown(&long, 1000),
            format!("…{}match{}… [line of 2005 bytes]", "a".repeat(200), "b".repeat(295))
        );
        assert_eq!(shown(&long, 3), format!("{}… [line of 2005 bytes]", "a".repeat(500)));
        let end = format!("{}match", "é".repeat(500));
        assert_eq!(shown(&end, 1000), format!("…{}match", "é".repeat(100)));
        let wide = "é".repeat(500);
        assert_eq!(shown(&wide, 0), wide);
    }

    #[test]
    fn what_does_not_fit_is_noticed() {
        let mut report = Report::new(2);
        assert!(report.line("a", 1, b"x\n", || 0..1));
        assert!(report.binary("b c"));
        assert!(!report.cut);
        assert!(!report.line("d", 1, b"x\n", || 0..1));
        assert!(report.cut);
        assert_eq!(report.text, "a:1:x\nBinary file b c matches\n");
    }
}
