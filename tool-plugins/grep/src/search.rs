//! Searching one file: a small one as a slice in memory, a large one as a stream.

use std::fmt::Display;
use std::io;

use grep_matcher::{LineTerminator, Matcher};
use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use grep_searcher::{Searcher, SearcherBuilder, Sink, SinkMatch};
use plue_tool::{File, READ_SIZE};

use crate::content::{MAX_SEARCHED_LINE, is_utf16};
use crate::deadline::Deadline;
use crate::pieces::{Pieces, StreamState};
use crate::report::Report;

/// Up to this size, in bytes, a file is searched in one piece. ripgrep's memory for a line is of the same order.
pub const MAX_SLICE: u64 = 4 * 1024 * 1024;

/// What the searcher may keep of a file, in bytes: the longest line, and what is read with its end.
const MAX_BUFFER: usize = MAX_SEARCHED_LINE as usize + 2 * READ_SIZE as usize;

/// Most memory that the compiled expression, and the automata made from it while it runs, may each take, in bytes.
const MAX_REGEX: usize = 16 * 1024 * 1024;

/// An expression, ready to search file after file.
pub struct Search {
    matcher: RegexMatcher,
    searcher: Searcher,
}

/// How the search of a file ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done with it; go on with the next.
    Done,
    /// The report is full.
    Full,
    /// The time is up.
    Late,
    /// It could not be read to its end.
    Unreadable(String),
}

impl Search {
    /// Lines are what matches; `^` and `$` are the ends of a line, in files with CR LF too.
    pub fn new(pattern: &str, ignore_case: bool) -> Result<Self, String> {
        // The matcher puts a group around the pattern: `a)(b` would pass, and errors would point into that group.
        regex_syntax::ast::parse::Parser::new()
            .parse(pattern)
            .map_err(|error| invalid(&error))?;
        let matcher = RegexMatcherBuilder::new()
            .case_insensitive(ignore_case)
            .multi_line(true)
            .crlf(true)
            .size_limit(MAX_REGEX)
            .dfa_size_limit(MAX_REGEX)
            .build(pattern)
            .map_err(|error| invalid(&error))?;
        let searcher = SearcherBuilder::new()
            .line_terminator(LineTerminator::crlf())
            .line_number(true)
            .heap_limit(Some(MAX_BUFFER))
            .build();
        Ok(Self { matcher, searcher })
    }

    /// Searches the content of a file.
    pub fn slice(&mut self, path: &str, content: &[u8], report: &mut Report) -> Outcome {
        let is_binary = || !is_utf16(content) && memchr::memchr(0, content).is_some();
        let mut lines = Lines::new(&self.matcher, path, report, is_binary);
        let ended = self.searcher.search_slice(&self.matcher, content, &mut lines);
        outcome(ended, report)
    }

    /// Searches a file piece by piece.
    pub fn stream(&mut self, path: &str, file: &File, report: &mut Report, deadline: &Deadline) -> Outcome {
        let state = StreamState::default();
        let reader = Pieces::new(file, deadline, &state);
        let mut lines = Lines::new(&self.matcher, path, report, || state.binary.get());
        let ended = self.searcher.search_reader(&self.matcher, reader, &mut lines);
        // What no reader said is the searcher's own refusal: a line that does not fit, of UTF-16 for instance.
        let too_long = ended.is_err() && !state.failed.get();
        if state.line_cut.get() || too_long {
            report.partly_searched(path);
        }
        if state.late.get() {
            return Outcome::Late;
        }
        outcome(if too_long { Ok(()) } else { ended }, report)
    }
}

fn outcome(ended: io::Result<()>, report: &Report) -> Outcome {
    match ended {
        Ok(()) if report.cut => Outcome::Full,
        Ok(()) => Outcome::Done,
        Err(error) => Outcome::Unreadable(error.to_string()),
    }
}

fn invalid(error: &dyn Display) -> String {
    format!("The pattern is not a valid regular expression: {error}")
}

/// Puts the lines that match into the report; of a binary file, only that it matches.
struct Lines<'a, IsBinary> {
    matcher: &'a RegexMatcher,
    path: &'a str,
    report: &'a mut Report,
    is_binary: IsBinary,
    /// No line of this file matched so far.
    first: bool,
}

impl<'a, IsBinary: Fn() -> bool> Lines<'a, IsBinary> {
    fn new(matcher: &'a RegexMatcher, path: &'a str, report: &'a mut Report, is_binary: IsBinary) -> Self {
        Self {
            matcher,
            path,
            report,
            is_binary,
            first: true,
        }
    }
}

impl<IsBinary: Fn() -> bool> Sink for Lines<'_, IsBinary> {
    type Error = io::Error;

    fn matched(&mut self, _searcher: &Searcher, found: &SinkMatch<'_>) -> Result<bool, io::Error> {
        if std::mem::take(&mut self.first) && (self.is_binary)() {
            self.report.binary(self.path);
            return Ok(false);
        }
        let line = found.bytes();
        let at = || {
            self.matcher
                .find(line)
                .ok()
                .flatten()
                .map_or(0..0, |at| at.start()..at.end())
        };
        Ok(self.report.line(self.path, found.line_number().unwrap_or(0), line, at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(pattern: &str, ignore_case: bool, content: &[u8]) -> Result<String, String> {
        let mut report = Report::new(100);
        let outcome = Search::new(pattern, ignore_case)?.slice("f", content, &mut report);
        assert_eq!(outcome, Outcome::Done);
        Ok(report.text)
    }

    #[test]
    fn a_pattern_finds_the_lines_that_grep_would() {
        for (pattern, content, found) in [
            ("b", "a\nb\nabc\n", "f:2:b\nf:3:abc\n"),
            ("", "a\n\nb", "f:1:a\nf:2:\nf:3:b\n"),
            ("^$", "a\n\nb\n", "f:2:\n"),
            ("a$", "a\r\nab\r\nba\n", "f:1:a\nf:3:ba\n"),
            ("^a.c$", "abc\nabcd\n", "f:1:abc\n"),
            ("-x", "run -x\n", "f:1:run -x\n"),
            ("--", "--\n", "f:1:--\n"),
            ("a.b", "a\nb\n", ""),
            (r"\bfn\b", "fn x\nfnx\n", "f:1:fn x\n"),
            ("ä", "ÄÖ\nä\n", "f:2:ä\n"),
            (r"\s", "a b\nab\n", "f:1:a b\n"),
            ("x", "", ""),
        ] {
            assert_eq!(
                search(pattern, false, content.as_bytes()),
                Ok(found.to_owned()),
                "{pattern:?} in {content:?}"
            );
        }
        assert_eq!(search("ä", true, "ÄÖ\n".as_bytes()), Ok("f:1:ÄÖ\n".to_owned()));
        assert_eq!(search("caf.", false, b"caf\xe9\n"), Ok(String::new()));
        assert_eq!(search("caf", false, b"caf\xe9\n"), Ok("f:1:caf\u{fffd}\n".to_owned()));
    }

    #[test]
    fn a_binary_file_is_named_and_not_shown() {
        assert_eq!(
            search("b", false, b"a\nb\n\0\nb\n"),
            Ok("Binary file f matches\n".to_owned())
        );
        assert_eq!(search("x", false, b"a\nb\n\0\n"), Ok(String::new()));
        assert_eq!(search("b", false, b"\xff\xfea\0\n\0b\0\n\0"), Ok("f:2:b\n".to_owned()));
    }

    #[test]
    fn a_pattern_that_is_no_expression_is_explained() {
        for (pattern, reason) in [
            ("(", "unclosed group"),
            ("[a", "unclosed character class"),
            ("*", "repetition operator missing expression"),
            (r"\", "incomplete escape sequence"),
            ("a)(b", "unopened group"),
            ("a\nb", "not allowed in a regex"),
            (r"(?=a)", "look-around"),
            (r"\w{1000}{1000}", "size limit"),
        ] {
            let refused = Search::new(pattern, false).err();
            assert!(
                refused.as_ref().is_some_and(|error| error.contains(reason)),
                "{pattern}: {refused:?}"
            );
        }
    }
}
