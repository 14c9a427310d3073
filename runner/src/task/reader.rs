//! Reads typed values out of a document, and collects what is wrong on the way.

use std::collections::BTreeMap;
use std::fmt;

use plue_sandbox::MAX_STRING;
use serde_json::{Map, Value};

/// How much of a wrong value an error shows.
const SHOWN: usize = 60;

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The place in the document: `messages[0].role`. Empty for the document itself.
    pub path: String,
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.path.is_empty() {
            "(the document)"
        } else {
            &self.path
        };
        write!(f, "{place}: {}", self.message)
    }
}

/// See the module. Every method that answers `None` for a present value has noted a problem.
pub(super) struct Reader {
    problems: Vec<Problem>,
    unknown_keys: Vec<Problem>,
}

/// The path of a key in an object.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

impl Reader {
    pub(super) fn new() -> Self {
        Self {
            problems: Vec::new(),
            unknown_keys: Vec::new(),
        }
    }

    pub(super) fn finish(self) -> (Vec<Problem>, Vec<Problem>) {
        (self.problems, self.unknown_keys)
    }

    pub(super) fn problem(&mut self, path: &str, message: impl Into<String>) {
        self.problems.push(Problem {
            path: path.to_owned(),
            message: message.into(),
        });
    }

    /// Notes a value that is not what it should be.
    pub(super) fn wrong(&mut self, path: &str, found: &Value, expected: &str) {
        self.problem(path, format!("must be {expected}, found {}", describe(found)));
    }

    pub(super) fn object<'v>(&mut self, path: &str, value: &'v Value) -> Option<&'v Map<String, Value>> {
        let object = value.as_object();
        if object.is_none() {
            self.wrong(path, value, "an object");
        }
        object
    }

    /// A required array with at least one item.
    pub(super) fn array<'v>(&mut self, path: &str, value: Option<&'v Value>, of: &str) -> Option<&'v Vec<Value>> {
        match value {
            None => self.problem(path, format!("is missing: it must be an array of {of}, at least one")),
            Some(Value::Array(items)) if !items.is_empty() => return Some(items),
            Some(other) => self.wrong(path, other, &format!("an array of {of}, at least one")),
        }
        None
    }

    pub(super) fn string<'v>(&mut self, path: &str, value: Option<&'v Value>) -> Option<&'v str> {
        match value? {
            Value::String(text) => Some(text),
            other => {
                self.wrong(path, other, "a string");
                None
            }
        }
    }

    /// A string that is not blank and that the system can take as an argument.
    pub(super) fn text<'v>(&mut self, path: &str, value: Option<&'v Value>) -> Option<&'v str> {
        let text = self.string(path, value)?;
        if text.trim().is_empty() {
            self.problem(path, "must not be empty");
            return None;
        }
        self.without_nul(path, text)
    }

    pub(super) fn without_nul<'v>(&mut self, path: &str, text: &'v str) -> Option<&'v str> {
        if text.contains('\0') {
            self.problem(path, "must not contain a NUL character");
            return None;
        }
        Some(text)
    }

    /// A whole number in a range; `true` is none, and neither is `1.0`.
    pub(super) fn integer(&mut self, path: &str, value: Option<&Value>, min: u64, max: u64) -> Option<u64> {
        let value = value?;
        let number = value.as_u64().filter(|number| (min..=max).contains(number));
        if number.is_none() {
            self.wrong(path, value, &format!("a whole number from {min} to {max}"));
        }
        number
    }

    pub(super) fn one_of<'v>(&mut self, path: &str, value: Option<&'v Value>, allowed: &[&str]) -> Option<&'v str> {
        let value = value?;
        let text = value.as_str().filter(|text| allowed.contains(text));
        if text.is_none() {
            self.wrong(path, value, &format!("one of {}", allowed.join(", ")));
        }
        text
    }

    /// Environment variables: names that a shell could set, and scalar values.
    pub(super) fn environment(&mut self, path: &str, value: Option<&Value>) -> BTreeMap<String, String> {
        let mut variables = BTreeMap::new();
        let Some(object) = value.and_then(|value| self.object(path, value)) else {
            return variables;
        };
        for (name, value) in object {
            let path = join(path, name);
            if name.is_empty() || name.contains(['=', '\0']) {
                self.problem(
                    &path,
                    "is no name for an environment variable: it is empty, or has `=` or NUL in it",
                );
                continue;
            }
            let text = match value {
                Value::String(text) => text.clone(),
                // YAML turns `CI: true` and `PORT: 80` into these.
                Value::Bool(_) | Value::Number(_) => value.to_string(),
                other => {
                    self.wrong(&path, other, "a string");
                    continue;
                }
            };
            if name.len() + "=".len() + text.len() > MAX_STRING {
                let problem = format!(
                    "is longer than {MAX_STRING} bytes with its name, and the system hands no longer variable to a \
                     program: put the value into a file of the workspace"
                );
                self.problem(&path, problem);
                continue;
            }
            if self.without_nul(&path, &text).is_some() {
                variables.insert(name.clone(), text);
            }
        }
        variables
    }

    /// Notes the keys that are not known, each with the known one that is nearest to it.
    pub(super) fn known_keys(&mut self, path: &str, object: &Map<String, Value>, known: &[&str]) {
        for key in object.keys().filter(|key| !known.contains(&key.as_str())) {
            self.unknown_key(&join(path, key), unknown(key, known));
        }
    }

    /// The same where a key that is not known is a problem.
    pub(super) fn only_known_keys(&mut self, path: &str, object: &Map<String, Value>, known: &[&str]) {
        for key in object.keys().filter(|key| !known.contains(&key.as_str())) {
            self.problem(&join(path, key), unknown(key, known));
        }
    }

    /// Notes a key that means nothing where it stands.
    pub(super) fn unknown_key(&mut self, path: &str, message: String) {
        self.unknown_keys.push(Problem {
            path: path.to_owned(),
            message,
        });
    }
}

/// Says that a key is not known, and which one may be meant.
fn unknown(key: &str, known: &[&str]) -> String {
    let hint = match nearest(key, known).as_slice() {
        [] => format!("known here: {}", known.join(", ")),
        near => format!("did you mean {}?", near.join(" or ")),
    };
    format!("is not known; {hint}")
}

/// The known key that looks like this one, in backticks; or those of which it is a part, as `timeout` is.
pub(super) fn nearest(key: &str, known: &[&str]) -> Vec<String> {
    let quoted = |key: &str| format!("`{key}`");
    let alike = known
        .iter()
        .map(|known| (strsim::normalized_damerau_levenshtein(key, known), known))
        .filter(|(similarity, _)| *similarity > 0.6)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    if let Some((_, known)) = alike {
        return vec![quoted(known)];
    }
    let has_part = |known: &&&str| known.split('_').any(|part| part == key);
    known.iter().filter(has_part).map(|known| quoted(known)).collect()
}

/// A value in an error: its kind, and as much of it as helps.
fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Array(items) if items.is_empty() => "an empty array".into(),
        Value::Array(_) => "an array".into(),
        Value::Object(_) => "an object".into(),
        Value::String(text) if text.chars().count() > SHOWN => {
            format!("the string {:?}…", text.chars().take(SHOWN).collect::<String>())
        }
        Value::String(text) => format!("the string {text:?}"),
        Value::Number(number) => format!("the number {number}"),
        Value::Bool(value) => format!("the boolean {value}"),
    }
}
