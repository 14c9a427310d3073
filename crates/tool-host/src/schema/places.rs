//! Where the parts of a schema stand, for messages: kept as parents, since the places themselves may be long.

use std::collections::HashMap;
use std::ptr::from_ref;

use serde_json::Value;

/// How much of a place a message shows, in bytes.
const SHOWN: usize = 120;

pub(super) struct Places<'a>(HashMap<*const Value, Place<'a>>);

#[derive(Clone, Copy)]
struct Place<'a> {
    parent: Option<(*const Value, Step<'a>)>,
    /// Of the whole place.
    bytes: u64,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

impl<'a> Places<'a> {
    /// Of all objects, arrays and booleans in a document.
    pub(super) fn of(document: &'a Value) -> Self {
        let mut places = Self(HashMap::new());
        let root = Place { parent: None, bytes: 0 };
        let mut waiting = vec![(document, root)];
        while let Some((value, place)) = waiting.pop() {
            let mut below = |value: &'a Value, step: Step<'a>, bytes: usize, from: &'a Value| {
                let place = Place {
                    parent: Some((from_ref(from), step)),
                    bytes: place.bytes + 1 + bytes as u64,
                };
                waiting.push((value, place));
            };
            match value {
                Value::Object(members) => {
                    for (key, member) in members {
                        below(member, Step::Key(key), key.len(), value);
                    }
                }
                Value::Array(items) => {
                    for (index, item) in items.iter().enumerate() {
                        below(item, Step::Index(index), 4, value);
                    }
                }
                Value::Bool(_) => {}
                Value::Null | Value::Number(_) | Value::String(_) => continue,
            }
            places.0.insert(from_ref(value), place);
        }
        places
    }

    /// Whether the value stands in the document, and not in one that it names.
    pub(super) fn has(&self, value: &Value) -> bool {
        self.0.contains_key(&from_ref(value))
    }

    /// How long the place of a value is, in bytes.
    pub(super) fn bytes(&self, value: &Value) -> u64 {
        self.0.get(&from_ref(value)).map_or(0, |place| place.bytes)
    }

    /// The place as a JSON pointer with `#` before it, cut when it is long.
    pub(super) fn show(&self, value: &Value) -> String {
        let mut steps = Vec::new();
        let mut at = self.0.get(&from_ref(value));
        if at.is_none() {
            return "a schema outside of it".to_owned();
        }
        while let Some((parent, step)) = at.and_then(|place| place.parent) {
            steps.push(step);
            at = self.0.get(&parent);
        }
        let mut text = "#".to_owned();
        for step in steps.iter().rev() {
            match step {
                Step::Key(key) => {
                    text.push('/');
                    text.extend(key.chars().take(SHOWN));
                }
                Step::Index(index) => text.push_str(&format!("/{index}")),
            }
            if text.len() > SHOWN {
                text.truncate(text.floor_char_boundary(SHOWN));
                text.push('…');
                break;
            }
        }
        text
    }
}
