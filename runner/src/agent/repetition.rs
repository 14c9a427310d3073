//! Whether an agent goes round in circles: the same calls with the same results, turn after turn, or two turns in turn.

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;

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
    /// The circles that were spoken of.
    said: HashSet<[u64; 2]>,
}

impl Repetition {
    /// Takes the calls of a turn: names, arguments and results.
    pub(super) fn note<'a>(&mut self, calls: impl Iterator<Item = (&'a str, &'a str, &'a str)>) -> Pattern {
        let mut hasher = DefaultHasher::new();
        for (name, input, result) in calls {
            // The same arguments, however they are written.
            match serde_json::from_str(input) {
                Ok(input) => hash_value(&input, &mut hasher),
                Err(_) => input.hash(&mut hasher),
            }
            (name, result).hash(&mut hasher);
        }
        let turn = hasher.finish();
        self.last.push_back(turn);
        if self.last.len() > SAME.max(2 * ROUNDS) {
            self.last.pop_front();
        }
        let Some(circle) = self.circle() else {
            return Pattern::New;
        };
        self.last.clear();
        match self.said.insert(circle) {
            true => Pattern::Repeats,
            false => Pattern::Stuck,
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
        alternates(length).then(|| [last.min(before), last.max(before)])
    }
}

/// Hashes a value, whatever the order of its members.
fn hash_value(value: &Value, hasher: &mut impl Hasher) {
    match value {
        Value::Object(members) => {
            (0_u8, members.len()).hash(hasher);
            let mut members: Vec<(&String, &Value)> = members.iter().collect();
            members.sort_unstable_by_key(|(key, _)| *key);
            for (key, value) in members {
                key.hash(hasher);
                hash_value(value, hasher);
            }
        }
        Value::Array(values) => {
            (1_u8, values.len()).hash(hasher);
            values.iter().for_each(|value| hash_value(value, hasher));
        }
        other => (2_u8, other.to_string()).hash(hasher),
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
    fn who_does_something_else_begins_anew_and_who_comes_back_to_it_does_not() {
        let turns = [&["a"; 5][..], &["b"; 5]].concat();
        let seen = patterns(&turns);
        assert_eq!((count(&seen, Pattern::Repeats), count(&seen, Pattern::Stuck)), (2, 0));
        let turns = [&["a"; 5][..], &["b"], &["a"; 5]].concat();
        let seen = patterns(&turns);
        assert_eq!((count(&seen, Pattern::Repeats), count(&seen, Pattern::Stuck)), (1, 1));
    }

    #[test]
    fn the_order_of_arguments_and_their_spaces_make_no_difference() {
        let mut repetition = Repetition::default();
        let inputs = [r#"{"a":1,"b":[2]}"#, r#"{ "b": [2], "a": 1 }"#];
        let seen: Vec<Pattern> = (0..5)
            .map(|n| repetition.note([("grep", inputs[n % 2], "x")].into_iter()))
            .collect();
        assert_eq!(seen[4], Pattern::Repeats);
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

    #[test]
    fn what_is_nested_deep_costs_no_more_than_its_size() {
        let deep = format!("{}\"\\\"\"{}", r#"{"a":["#.repeat(50), "]}".repeat(50));
        let mut repetition = Repetition::default();
        for _ in 0..4 {
            assert_eq!(
                repetition.note([("grep", deep.as_str(), "x")].into_iter()),
                Pattern::New
            );
        }
    }
}
