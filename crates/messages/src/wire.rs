//! JSON strings, as both directions need them: read without a copy where they have no escapes, and written straight
//! into a buffer.

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};
use serde::Deserialize;

/// A JSON string: borrowed from the document unless it has escapes. (A plain `Option<Cow<str>>` always copies: serde
/// borrows only for a field whose type is exactly `Cow`.)
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// A string as JSON, in quotes and escaped.
pub(super) fn json_string(text: String) -> String {
    serde_json::Value::String(text).to_string()
}

/// Writes JSON into a buffer.
pub(super) trait JsonText {
    /// Writes a string in quotes, escaped.
    fn put_json_string(&mut self, text: &str);
}

impl JsonText for BytesMut {
    fn put_json_string(&mut self, text: &str) {
        let written = serde_json::to_writer(self.writer(), text);
        // Memory is the only thing that is written to, and a string is always JSON.
        debug_assert!(written.is_ok(), "a string could not be written to memory");
    }
}
