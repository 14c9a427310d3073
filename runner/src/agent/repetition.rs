//! Whether an agent goes round in circles: the same calls with the same results, turn after turn, or two turns in turn.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

/// How many turns in a row are the same before it is said.
const SAME: usize = 5;

/// How many rounds of two turns are.
const ROUNDS: usize = 3;

/// What the last turn makes of those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    /// Nothing that was seen so often.
    New,
    /// The same again and again, for the first time.
    Repeats,
    /// Still the same, after it was said.
    Stuck,
}

/// The calls of the last turns, by what they asked and what came of it.
#[derive(Debug, Default)]
pub(super) struct Repetition {
    last: VecDeque<u64>,
    /// The circle that was spoken of.
    said: Option<[u64; 2]>,
}

impl Repetition {
    /// Takes the calls of a turn: names, arguments and results.
    pub(super) fn note<'a>(&mut self, calls: impl Iterator<Item = (&'a str, &'a str, &'a str)>) -> Pattern {
        let mut hasher = DefaultHasher::new();
        for call in calls {
            call.hash(&mut hasher);
        }
        let turn = hasher.finish();
        if self.said.is_some_and(|said| !said.contains(&turn)) {
            self.said = None;
        }
        self.last.push_back(turn);
        if self.last.len() > SAME.max(2 * ROUNDS) {
            self.last.pop_front();
        }
        let Some(circle) = self.circle() else {
            return Pattern::New;
        };
        self.last.clear();
        match self.said.replace(circle) {
            Some(_) => Pattern::Stuck,
            None => Pattern::Repeats,
        }
    }

    /// The two turns that the last ones are made of; the same one twice when they are all alike.
    fn circle(&self) -> Option<[u64; 2]> {
        let mut newest = self.last.iter().rev();
        let (last, before) = (*newest.next()?, *newest.next()?);
        let alternates = |length: usize| {
            let turns = self.last.iter().rev().take(length);
            self.last.len() >= length
                && turns
                    .zip([last, before].into_iter().cycle())
                    .all(|(turn, expected)| *turn == expected)
        };
        let length = if last == before { SAME } else { 2 * ROUNDS };
        alternates(length).then_some([last, before])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(turns: &[&str]) -> Vec<Pattern> {
        let mut repetition = Repetition::default();
        turns
            .iter()
            .map(|turn| repetition.note([("grep", *turn, "nothing")].into_iter()))
            .collect()
    }

    fn count(patterns: &[Pattern], wanted: Pattern) -> usize {
        patterns.iter().filter(|pattern| **pattern == wanted).count()
    }

    #[test]
    fn the_same_turn_five_times_is_said_once_and_then_it_is_stuck() {
        let seen = patterns(&["a"; 10]);
        assert_eq!(seen[4], Pattern::Repeats);
        assert_eq!(seen[9], Pattern::Stuck);
        assert_eq!(count(&seen, Pattern::New), 8);
        assert_eq!(
            count(&patterns(&["a", "a", "a", "a", "b", "a", "a", "a", "a"]), Pattern::New),
            9
        );
    }

    #[test]
    fn two_turns_in_turn_are_a_circle_too() {
        let seen = patterns(&["a", "b"].repeat(6));
        assert_eq!(seen[5], Pattern::Repeats);
        assert_eq!(seen[11], Pattern::Stuck);
    }

    #[test]
    fn who_does_something_else_begins_anew() {
        let turns = [&["a"; 5][..], &["b"], &["a"; 5]].concat();
        let seen = patterns(&turns);
        assert_eq!((count(&seen, Pattern::Repeats), count(&seen, Pattern::Stuck)), (2, 0));
    }

    #[test]
    fn other_results_are_progress() {
        let mut repetition = Repetition::default();
        for number in 0..20 {
            let result = number.to_string();
            let call = ("read_file", "{}", result.as_str());
            assert_eq!(repetition.note([call].into_iter()), Pattern::New);
        }
    }
}
