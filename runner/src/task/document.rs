//! From text to one JSON value, with bounds.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::de::DeserializeSeed;
use serde_json::Value;
use sha2::{Digest, Sha256};

use plue_contract::unique_keys::UniqueKeys;

/// The largest task document. The Messages API takes requests of at most 32 MB, so a larger one could not be run.
pub const MAX_DOCUMENT_BYTES: usize = 32 * 1024 * 1024;

/// How a task document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Yaml,
}

/// A document that could be read; whether it is a task is for [`super::validate`] to say.
#[derive(Debug)]
pub struct Document {
    pub(super) value: Value,
}

/// Why a text is no document.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error("is no regular file")]
    NotRegular,
    #[error("the task is longer than {MAX_DOCUMENT_BYTES} bytes, and no more are read")]
    TooLarge,
    #[error("the task is empty: it is read from TASK_CONFIG, from the file TASK_FILE, or else from standard input")]
    Empty,
    #[error("the task is no valid JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the task is no valid YAML: {0}")]
    Yaml(#[from] serde_yaml::Error),
}

impl Document {
    /// Reads from a source that may have no end. Its name, which may be empty, helps to tell the format.
    ///
    /// # Errors
    /// When it cannot be read or is no UTF-8, and as [`Document::parse`].
    pub fn read(source: impl Read, name: &str) -> Result<Self, DocumentError> {
        let mut text = String::new();
        // One byte more than is allowed is enough to see that it is too large.
        source.take(MAX_DOCUMENT_BYTES as u64 + 1).read_to_string(&mut text)?;
        Self::parse(&text, Format::guess(name, &text))
    }

    /// Reads a regular file; a FIFO or a device, which may keep its reader waiting for ever, is not opened.
    ///
    /// # Errors
    /// When it is none, and as [`Document::read`].
    pub fn read_file(path: &Path) -> Result<Self, DocumentError> {
        if !path.metadata()?.is_file() {
            return Err(DocumentError::NotRegular);
        }
        Self::read(File::open(path)?, &path.to_string_lossy())
    }

    /// What tells it from another one.
    pub fn digest(&self) -> String {
        let digest = Sha256::digest(self.value.to_string().as_bytes());
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What the document is taken for when it does not say itself: whoever hands it over may know.
    pub fn assume_type(&mut self, kind: &str) {
        if let Value::Object(object) = &mut self.value {
            object.entry("type").or_insert_with(|| kind.into());
        }
    }

    /// Reads a text. A key that stands twice in one object is an error: one of the two would be lost without a word.
    ///
    /// # Errors
    /// When it is too large, empty, or not of its format (depth is bounded by the parsers, aliases too).
    pub fn parse(text: &str, format: Format) -> Result<Self, DocumentError> {
        if text.len() > MAX_DOCUMENT_BYTES {
            return Err(DocumentError::TooLarge);
        }
        if text.trim().is_empty() {
            return Err(DocumentError::Empty);
        }
        let value = match format {
            Format::Json => {
                let mut json = serde_json::Deserializer::from_str(text);
                let value = UniqueKeys.deserialize(&mut json)?;
                json.end()?;
                value
            }
            Format::Yaml => UniqueKeys.deserialize(serde_yaml::Deserializer::from_str(text))?,
        };
        Ok(Self { value })
    }
}

impl Format {
    /// By a file's name; a name that says nothing is JSON when the text begins like it.
    pub fn guess(name: &str, text: &str) -> Self {
        let lower = name.to_ascii_lowercase();
        if lower.ends_with(".yaml") || lower.ends_with(".yml") {
            Self::Yaml
        } else if lower.ends_with(".json") || text.trim_start().starts_with('{') {
            Self::Json
        } else {
            Self::Yaml
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn json_and_yaml_give_the_same_value() {
        let json = r#"{"type":"workflow","steps":[{"run":"true","timeout_seconds":5,"env":{"A":"1"}}]}"#;
        let yaml = "type: workflow\nsteps:\n  - run: \"true\"\n    timeout_seconds: 5\n    env: {A: '1'}\n";
        let parse = |text, format| Document::parse(text, format).unwrap().value;
        assert_eq!(parse(json, Format::Json), parse(yaml, Format::Yaml));
    }

    #[test]
    fn a_source_without_an_end_is_read_only_as_far_as_a_document_may_go() {
        let error = Document::read(io::repeat(b'a'), "task.json").unwrap_err();
        assert!(matches!(error, DocumentError::TooLarge), "{error}");
        let error = Document::read(&b"\xff"[..], "").unwrap_err();
        assert!(matches!(error, DocumentError::Read(_)), "{error}");
    }

    #[test]
    fn a_number_that_json_has_not_keeps_its_digits() {
        for number in ["18446744073709551616", "-9223372036854775809"] {
            let document = Document::parse(&format!("a: {number}"), Format::Yaml).unwrap();
            assert_eq!(document.value["a"], number);
        }
    }

    #[test]
    fn what_is_no_document_is_refused_with_a_reason() {
        let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
        let laughs = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned()
            + &('b'..='j')
                .zip('a'..)
                .map(|(name, before)| format!("{name}: &{name} [{}]\n", vec![format!("*{before}"); 9].join(",")))
                .collect::<String>();
        let huge = " ".repeat(MAX_DOCUMENT_BYTES + 1);
        let cases = [
            ("", Format::Json, "empty"),
            (" \n", Format::Yaml, "empty"),
            ("{", Format::Json, "no valid JSON"),
            (r#"{"a":1} x"#, Format::Json, "no valid JSON"),
            (r#"{"a":1,"a":2}"#, Format::Json, "stands twice"),
            ("a: 1\na: 2\n", Format::Yaml, "no valid YAML"),
            ("a: [", Format::Yaml, "no valid YAML"),
            (deep.as_str(), Format::Json, "no valid JSON"),
            (deep.as_str(), Format::Yaml, "no valid YAML"),
            (laughs.as_str(), Format::Yaml, "no valid YAML"),
            ("a: .nan", Format::Yaml, "finite"),
            (huge.as_str(), Format::Json, "longer than"),
        ];
        for (text, format, reason) in cases {
            let error = Document::parse(text, format).unwrap_err().to_string();
            assert!(
                error.contains(reason),
                "{} {format:?}: {error}",
                &text[..text.len().min(20)]
            );
        }
    }
}
