//! One content block of a turn, kept as the raw JSON that came: what `content_block_start` gave, with its deltas merged
//! in. Blocks go back to the API unchanged (it checks signatures over them), so key order, the text of numbers and
//! fields that we do not know all stay as they were.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::wire::{Text, json_string};
use super::{INVALID_INPUT_KEY, ToolCall, TurnEvent, surrogates};

/// How many fields of one block deltas may change: known kinds change two. A bound, since each is searched for.
const MAX_CHANGED_FIELDS: usize = 64;

/// How deep the arguments of a call may be. serde_json, and so our own tools, stop at 128; the rest is the request
/// around.
const MAX_INPUT_DEPTH: usize = 100;

/// What a finished block is to the turn.
pub(super) struct FinishedBlock {
    pub raw: Box<RawValue>,
    /// Set when the block asks for a call of one of our tools.
    pub tool_call: Option<ToolCall>,
    /// A text block that is not blank.
    pub has_text: bool,
}

/// What the turn has to know about a block while it is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Thinking,
    /// A call of one of our tools. (Calls of the server's own tools are of the kind `Other`.)
    ToolUse {
        id: String,
        name: String,
    },
    Other,
}

/// A block between its start and its stop.
pub(super) struct OpenBlock {
    pub index: u64,
    pub kind: Kind,
    /// The first half of a surrogate pair that the last delta ended with.
    pub carried: Option<u16>,
    start: Box<RawValue>,
    changes: Vec<(Cow<'static, str>, Change)>,
    has_text: bool,
}

/// What deltas did to one field of the block.
enum Change {
    /// Its string grew by this text.
    Append(String),
    /// It became the JSON that these fragments join to.
    Fragments(String),
    /// Its array grew by these items.
    Push(Vec<Box<RawValue>>),
    /// It became this.
    Set(Box<RawValue>),
}

/// An object as pairs in their order, values untouched.
struct Fields<'a>(Vec<(Text<'a>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Fields<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry::<Text<'de>, &'de RawValue>()? {
                    pairs.push(pair);
                }
                Ok(Fields(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

impl<'a> Fields<'a> {
    fn get(&self, key: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(name, _)| name.0 == key).map(|(_, value)| *value)
    }

    fn string(&self, key: &str) -> Option<String> {
        self.get(key).and_then(|value| serde_json::from_str(value.get()).ok())
    }
}

impl OpenBlock {
    /// Opens the block of a `content_block_start`. The text it begins with, which is empty in all that the API is known
    /// to send, is given beside it.
    pub fn open(index: u64, start: &RawValue) -> Result<(Self, String), String> {
        let fields: Fields<'_> = serde_json::from_str(start.get())
            .map_err(|error| format!("content block {index} is no object: {error}"))?;
        let mut beginning = String::new();
        let kind = match fields.string("type").as_deref() {
            None => return Err(format!("content block {index} has no type")),
            Some("text") => {
                beginning = fields.string("text").unwrap_or_default();
                Kind::Text
            }
            Some("thinking") => {
                beginning = fields.string("thinking").unwrap_or_default();
                Kind::Thinking
            }
            // One without an id is given one by whoever makes the call.
            Some("tool_use") => match fields.string("name").filter(|name| !name.is_empty()) {
                Some(name) => Kind::ToolUse {
                    id: fields.string("id").unwrap_or_default(),
                    name,
                },
                None => return Err(format!("the tool call in content block {index} has no name")),
            },
            Some("tool_result") => {
                return Err(format!(
                    "content block {index} is the result of a call, which is not the model's to give"
                ));
            }
            Some(_) => Kind::Other,
        };
        let has_text = kind == Kind::Text && !beginning.trim().is_empty();
        Ok((
            Self {
                index,
                kind,
                carried: None,
                start: start.to_owned(),
                changes: Vec::new(),
                has_text,
            },
            beginning,
        ))
    }

    /// Adds text to a string field.
    pub fn append(&mut self, key: &'static str, text: &str) {
        self.has_text |= self.kind == Kind::Text && key == "text" && !text.trim().is_empty();
        match self.change(key) {
            Some(Change::Append(so_far)) => so_far.push_str(text),
            _ => self.replace(Cow::Borrowed(key), Change::Append(text.to_owned())),
        }
    }

    /// Adds a fragment of the JSON of the field `input`.
    pub fn append_input(&mut self, fragment: &str) {
        match self.change("input") {
            Some(Change::Fragments(so_far)) => so_far.push_str(fragment),
            _ => self.replace(Cow::Borrowed("input"), Change::Fragments(fragment.to_owned())),
        }
    }

    /// Adds an item to an array field.
    pub fn push(&mut self, key: &'static str, item: &RawValue) {
        match self.change(key) {
            Some(Change::Push(items)) => items.push(item.to_owned()),
            _ => self.replace(Cow::Borrowed(key), Change::Push(vec![item.to_owned()])),
        }
    }

    /// Gives a field a new value.
    pub fn set(&mut self, key: &'static str, value: Box<RawValue>) {
        self.replace(Cow::Borrowed(key), Change::Set(value));
    }

    /// The text that an end without the second half of a pair makes of the first.
    pub fn end_text(&mut self) -> Option<TurnEvent> {
        const LOST: &str = "\u{fffd}";
        self.carried.take()?;
        match self.kind {
            Kind::Text => self.append("text", LOST),
            Kind::Thinking => self.append("thinking", LOST),
            Kind::ToolUse { .. } => self.append_input(LOST),
            Kind::Other => {}
        }
        match self.kind {
            Kind::Text => Some(TurnEvent::Text(LOST.to_owned())),
            Kind::Thinking => Some(TurnEvent::Thinking(LOST.to_owned())),
            _ => None,
        }
    }

    /// Takes a delta of a kind that we do not know. A block that we know stays without it: what would come of the two
    /// together nobody can tell, and the API takes only what it knows back. Into another block it is merged by what all
    /// known kinds have in common: text is a piece and is added to the field of its name, anything else replaces it.
    pub fn take_unknown(&mut self, delta: &RawValue) -> Result<(), String> {
        if self.kind != Kind::Other {
            tracing::debug!(
                block = self.index,
                "a delta of an unknown kind is left out of a block of a known one"
            );
            return Ok(());
        }
        let fields: Fields<'_> = serde_json::from_str(delta.get())
            .map_err(|error| format!("a delta of content block {} is no object: {error}", self.index))?;
        for (key, value) in fields.0 {
            if key.0 == "type" {
                continue;
            }
            if self.changes.len() >= MAX_CHANGED_FIELDS {
                return Err(format!(
                    "deltas change more than {MAX_CHANGED_FIELDS} fields of content block {}",
                    self.index
                ));
            }
            match serde_json::from_str::<Text<'_>>(value.get()) {
                Ok(piece) => match self.change(&key.0) {
                    Some(Change::Append(so_far)) => so_far.push_str(&piece.0),
                    _ => self.replace(Cow::Owned(key.0.into_owned()), Change::Append(piece.0.into_owned())),
                },
                Err(_) if value.get() == "null" => {}
                Err(error) if value.get().starts_with('"') => {
                    return Err(format!(
                        "a delta of content block {} cannot be read: {error}",
                        self.index
                    ));
                }
                Err(_) => self.replace(Cow::Owned(key.0.into_owned()), Change::Set(value.to_owned())),
            }
        }
        Ok(())
    }

    /// Writes the block: the fields of its start in their order, changed where deltas changed them, then the fields
    /// that only deltas brought.
    pub fn finish(self) -> Result<FinishedBlock, String> {
        let Self {
            index,
            kind,
            start,
            mut changes,
            has_text,
            ..
        } = self;
        let broken = |error: serde_json::Error| format!("content block {index} cannot be put together: {error}");
        let fields: Fields<'_> = serde_json::from_str(start.get()).map_err(broken)?;
        // Arguments that stand in the start and are no object are as those that come in pieces.
        let has_pieces = |(key, change): &(Cow<'static, str>, Change)| {
            key == "input" && !matches!(change, Change::Fragments(text) if text.trim().is_empty())
        };
        if matches!(kind, Kind::ToolUse { .. })
            && let Some(input) = fields.get("input").filter(|input| !is_object(input.get()))
            && !changes.iter().any(has_pieces)
        {
            changes.retain(|(key, _)| key != "input");
            let text = match input.get() {
                "null" | "\"\"" => "{}",
                text => text,
            };
            changes.push((Cow::Borrowed("input"), Change::Fragments(text.to_owned())));
        }
        let tool_call = match kind {
            Kind::ToolUse { id, name } => {
                if let Some((_, Change::Fragments(text))) = changes.iter_mut().find(|(key, _)| key == "input")
                    && let Cow::Owned(mended) = surrogates::without_halves(text)
                {
                    *text = mended;
                }
                let input = call_input(&fields, &changes);
                Some(ToolCall {
                    id,
                    name,
                    is_complete: is_object(&input) && !is_untouched(&fields, &changes),
                    input,
                    block: 0,
                })
            }
            _ => None,
        };
        if changes.is_empty() && tool_call.is_none() {
            return Ok(FinishedBlock {
                raw: start,
                tool_call,
                has_text,
            });
        }
        let mut object = ObjectWriter::with_capacity(start.get().len() + 64);
        for (key, value) in &fields.0 {
            let change = changes
                .iter()
                .position(|(name, _)| *name == key.0)
                .map(|at| changes.remove(at).1);
            object.write(&key.0, &merged(Some(value), change));
        }
        for (key, change) in changes {
            object.write(&key, &merged(None, Some(change)));
        }
        let raw = RawValue::from_string(object.finish()).map_err(broken)?;
        Ok(FinishedBlock {
            raw,
            tool_call,
            has_text,
        })
    }

    fn change(&mut self, key: &str) -> Option<&mut Change> {
        self.changes
            .iter_mut()
            .find(|(name, _)| name == key)
            .map(|(_, change)| change)
    }

    fn replace(&mut self, key: Cow<'static, str>, new: Change) {
        match self.change(&key) {
            Some(change) => *change = new,
            None => self.changes.push((key, new)),
        }
    }
}

/// The arguments of a call as the model wrote them, or those that its start had when no fragments came.
fn call_input(fields: &Fields<'_>, changes: &[(Cow<'static, str>, Change)]) -> String {
    match changes.iter().find(|(key, _)| key == "input") {
        Some((_, Change::Fragments(text))) if !text.trim().is_empty() => text.clone(),
        _ => fields.get("input").map_or("{}", RawValue::get).to_owned(),
    }
}

/// Whether the model wrote nothing yet: the start of a call has an empty object for its arguments.
fn is_untouched(fields: &Fields<'_>, changes: &[(Cow<'static, str>, Change)]) -> bool {
    let wrote = changes
        .iter()
        .any(|(key, change)| key == "input" && matches!(change, Change::Fragments(text) if !text.trim().is_empty()));
    !wrote
        && fields
            .get("input")
            .is_none_or(|input| matches!(input.get(), "{}" | "null"))
}

/// The JSON of a field after its deltas. `value` is what the block started with.
fn merged<'a>(value: Option<&'a RawValue>, change: Option<Change>) -> Cow<'a, str> {
    let unchanged = |or: &'static str| Cow::Borrowed(value.map_or(or, RawValue::get));
    match change {
        None => unchanged("null"),
        Some(Change::Set(new)) => Cow::Owned(String::from(Box::<str>::from(new))),
        Some(Change::Append(more)) => {
            let beginning = value.and_then(|value| serde_json::from_str::<String>(value.get()).ok());
            Cow::Owned(json_string(match beginning {
                Some(text) if !text.is_empty() => text + &more,
                _ => more,
            }))
        }
        Some(Change::Fragments(text)) if text.trim().is_empty() => unchanged("{}"),
        Some(Change::Fragments(text)) if is_object(&text) => Cow::Owned(text),
        // The API takes only an object here. So that the model sees what it wrote, its text is wrapped, in the way the
        // documentation of fine-grained tool streaming recommends.
        Some(Change::Fragments(text)) => Cow::Owned(format!("{{\"{INVALID_INPUT_KEY}\":{}}}", json_string(text))),
        Some(Change::Push(new)) => {
            let beginning = value.and_then(|value| serde_json::from_str::<Vec<&RawValue>>(value.get()).ok());
            let items: Vec<&str> = beginning
                .iter()
                .flatten()
                .map(|item| item.get())
                .chain(new.iter().map(|item| item.get()))
                .collect();
            Cow::Owned(format!("[{}]", items.join(",")))
        }
    }
}

fn is_object(text: &str) -> bool {
    text.trim_start().starts_with('{') && !is_too_deep(text) && serde_json::from_str::<&RawValue>(text).is_ok()
}

/// Whether objects and arrays stand in each other deeper than a parser goes that counts: then the request with it would
/// be refused for good, and not only this call.
fn is_too_deep(text: &str) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > MAX_INPUT_DEPTH {
                    return true;
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// The same block of a tool call under another id.
pub(super) fn with_id(block: &RawValue, id: &str) -> Option<Box<RawValue>> {
    let fields: Fields<'_> = serde_json::from_str(block.get()).ok()?;
    let mut object = ObjectWriter::with_capacity(block.get().len() + id.len());
    for (key, value) in &fields.0 {
        match key.0.as_ref() {
            "id" => object.write("id", &json_string(id.to_owned())),
            key => object.write(key, value.get()),
        }
    }
    if fields.get("id").is_none() {
        object.write("id", &json_string(id.to_owned()));
    }
    RawValue::from_string(object.finish()).ok()
}

/// Whether a block is thinking without the signature that makes it valid.
pub(super) fn is_unsigned_thinking(block: &RawValue) -> bool {
    let Ok(fields) = serde_json::from_str::<Fields<'_>>(block.get()) else {
        return false;
    };
    let signature = fields.string("signature").unwrap_or_default();
    fields.string("type").as_deref() == Some("thinking") && signature.is_empty()
}

/// A message without its thinking blocks; `None` when it has none, or is nothing but thinking.
pub(super) fn without_thinking(message: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Message<'a> {
        #[serde(borrow)]
        role: Text<'a>,
        #[serde(borrow)]
        content: Vec<&'a RawValue>,
    }
    let message: Message<'_> = serde_json::from_str(message).ok()?;
    let kept: Vec<&str> = message
        .content
        .iter()
        .filter(|block| !is_thinking(block))
        .map(|block| block.get())
        .collect();
    let role = json_string(message.role.0.into_owned());
    (!kept.is_empty() && kept.len() < message.content.len())
        .then(|| format!("{{\"role\":{role},\"content\":[{}]}}", kept.join(",")))
}

fn is_thinking(block: &RawValue) -> bool {
    matches!(kind_of(block).as_deref(), Some("thinking" | "redacted_thinking"))
}

/// Whether a block is a call of one of our tools.
pub(super) fn is_call(block: &RawValue) -> bool {
    kind_of(block).as_deref() == Some("tool_use")
}

fn kind_of(block: &RawValue) -> Option<String> {
    serde_json::from_str::<Fields<'_>>(block.get()).ok()?.string("type")
}

/// Whether a block is a summary of the API's own with something in it.
pub(super) fn is_summary(block: &RawValue) -> bool {
    let Ok(fields) = serde_json::from_str::<Fields<'_>>(block.get()) else {
        return false;
    };
    let is_empty = |content: &RawValue| matches!(content.get(), "null" | "\"\"" | "[]");
    fields.string("type").as_deref() == Some("compaction")
        && fields.get("content").is_some_and(|content| !is_empty(content))
}

/// The text of a text block.
pub(super) fn text_of(block: &RawValue) -> Option<String> {
    let fields = serde_json::from_str::<Fields<'_>>(block.get()).ok()?;
    (fields.string("type").as_deref() == Some("text")).then(|| fields.string("text"))?
}

/// Writes an object whose values are JSON already.
struct ObjectWriter(String);

impl ObjectWriter {
    fn with_capacity(bytes: usize) -> Self {
        Self(String::with_capacity(bytes))
    }

    fn write(&mut self, key: &str, value: &str) {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        self.0.push_str(&json_string(key.to_owned()));
        self.0.push(':');
        self.0.push_str(value);
    }

    fn finish(mut self) -> String {
        self.0.push_str(if self.0.is_empty() { "{}" } else { "}" });
        self.0
    }
}
