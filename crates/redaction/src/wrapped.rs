//! Base64 is often broken into lines (`base64`, PEM, MIME), wherever the line happens to be full, and lines are
//! indented. The search for it looks at a text as if it had no line breaks.
//!
//! A break may stand anywhere but within the first two characters: what ends with the single character that a secret
//! begins with, at the end of a line, would have to be kept back until the next line comes, and that is too often
//! nothing. The form without its first character is looked for, too ([`forms`]).

use std::borrow::Cow;
use std::ops::Range;

use aho_corasick::Input;

use super::patterns::Patterns;

/// A form that is shorter would be found by chance.
const MIN_WRAPPED: usize = 16;

/// See the module.
#[derive(Clone)]
pub(super) struct Wrapped(Patterns);

/// A text without its line breaks. Places in it are numbers of characters that are none.
pub(super) struct Unbroken<'a> {
    text: Cow<'a, [u8]>,
    /// Where the breaks are in the text as it is.
    breaks: Vec<usize>,
}

impl<'a> Unbroken<'a> {
    pub(super) fn of(text: &'a [u8]) -> Self {
        // A line's indentation belongs to the break before it.
        let mut breaks = Vec::new();
        for at in memchr::memchr2_iter(b'\n', b'\r', text) {
            let indent = text[at + 1..]
                .iter()
                .take_while(|byte| matches!(byte, b' ' | b'\t'))
                .count();
            breaks.extend(at..=at + indent);
        }
        if breaks.is_empty() {
            let text = Cow::Borrowed(text);
            return Self { text, breaks };
        }
        let mut unbroken = Vec::with_capacity(text.len());
        let mut from = 0;
        for at in &breaks {
            unbroken.extend_from_slice(&text[from..*at]);
            from = at + 1;
        }
        unbroken.extend_from_slice(&text[from..]);
        let text = Cow::Owned(unbroken);
        Self { text, breaks }
    }

    /// Whether there is anything to find that is not found without this.
    pub(super) fn is_broken(&self) -> bool {
        !self.breaks.is_empty()
    }

    /// The place of what stands at `at`, or behind the break there.
    fn place(&self, at: usize) -> usize {
        at - self.breaks.partition_point(|found| *found < at)
    }

    /// Where a place is in the text as it is.
    fn at(&self, place: usize) -> usize {
        let mut before = 0;
        let mut most = self.breaks.len();
        // The number of breaks before the place.
        while before < most {
            let middle = (before + most) / 2;
            if self.breaks[middle] - middle <= place {
                before = middle + 1;
            } else {
                most = middle;
            }
        }
        place + before
    }

    /// Whether the first two characters from here on stand together.
    fn begins_together(&self, place: usize) -> bool {
        self.at(place + 1) == self.at(place) + 1
    }
}

/// What is looked for of these base64 forms, broken or not: those that are long enough, whole and without their first
/// character.
pub(super) fn forms(in_base64: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let long = in_base64.iter().filter(|form| form.len() >= MIN_WRAPPED);
    long.flat_map(|form| [form.clone(), form[1..].to_vec()]).collect()
}

impl Wrapped {
    /// For these forms; `None` when there are none.
    pub(super) fn new(forms: Vec<Vec<u8>>) -> Option<Self> {
        Patterns::new(forms).map(Self)
    }

    /// The next one that is broken, from `from` on, in the text as it is. The others are found without this.
    pub(super) fn find(&self, text: &Unbroken<'_>, from: usize) -> Option<Range<usize>> {
        let mut place = text.place(from);
        loop {
            let found = self.0.automaton.find(Input::new(&text.text).range(place..))?;
            let range = text.at(found.start())..text.at(found.end() - 1) + 1;
            if range.len() > found.len() && text.begins_together(found.start()) {
                return Some(range);
            }
            place = found.start() + 1;
        }
    }

    /// Where the last characters begin that may go on as one, in the text as it is, from `from` on.
    pub(super) fn beginning(&self, text: &Unbroken<'_>, from: usize) -> Option<usize> {
        let end = text.text.len();
        // A break at the very end stands behind the last character.
        let ends_with_break = text
            .breaks
            .last()
            .is_some_and(|last| *last == end + text.breaks.len() - 1);
        let together = |place: usize| match end - place {
            1 => !ends_with_break,
            _ => text.begins_together(place),
        };
        let place = self.0.beginning(&text.text, text.place(from), together)?;
        Some(text.at(place))
    }
}
