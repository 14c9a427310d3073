//! What is looked for, all at once, and what may be the beginning of it.

use aho_corasick::{AhoCorasick, MatchKind};

/// See the module.
#[derive(Clone)]
pub(super) struct Patterns {
    /// Of two that begin at the same place the longer one counts: the shorter would leave the rest of it.
    pub(super) automaton: AhoCorasick,
    patterns: Vec<Vec<u8>>,
    /// Which bytes a pattern begins with.
    first: [bool; 256],
    longest: usize,
}

impl Patterns {
    /// `None` when there are none.
    pub(super) fn new(mut patterns: Vec<Vec<u8>>) -> Option<Self> {
        patterns.sort();
        patterns.dedup();
        let longest = patterns.iter().map(Vec::len).max()?;
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(&patterns)
            .ok()?;
        let mut first = [false; 256];
        patterns
            .iter()
            .for_each(|pattern| first[usize::from(pattern[0])] = true);
        Some(Self {
            automaton,
            patterns,
            first,
            longest,
        })
    }

    /// The first place from `from` on at which the last bytes may go on as a pattern, and that `counts`.
    pub(super) fn beginning(&self, bytes: &[u8], from: usize, counts: impl Fn(usize) -> bool) -> Option<usize> {
        let from = from.max(bytes.len().saturating_sub(self.longest - 1));
        (from..bytes.len()).find(|&at| {
            let rest = &bytes[at..];
            self.first[usize::from(rest[0])]
                && self
                    .patterns
                    .iter()
                    .any(|pattern| pattern.len() > rest.len() && pattern.starts_with(rest))
                && counts(at)
        })
    }
}
