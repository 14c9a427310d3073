//! A tool's input schema: checked when the plugin is loaded, and every input against it before the tool sees it.

use std::sync::Arc;

use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{arguments, strict_type};

/// Problems that one message lists; the model needs no more to see what is wrong.
const MAX_PROBLEMS: usize = 20;

/// The compiled schema of a tool.
pub(crate) struct InputSchema {
    validator: Validator,
    /// As the model gets it.
    pub(crate) text: Arc<RawValue>,
}

impl InputSchema {
    /// Compiles a schema; the error says what it is instead, as the end of "the input schema …".
    pub(crate) fn new(text: String, most_bytes: u64) -> Result<Self, String> {
        if text.len() as u64 > most_bytes {
            return Err(format!("has {} bytes; at most {most_bytes} are allowed", text.len()));
        }
        let schema: Value = serde_json::from_str(&text).map_err(|error| format!("is not JSON: {error}"))?;
        if !schema.is_object() || schema.get("type").and_then(Value::as_str) != Some("object") {
            return Err("is not of `type: object`; the input of a tool is always an object".to_owned());
        }
        // The schema is the plugin's: it must not make the runner fetch anything, and its patterns must run in linear
        // time whatever the model writes.
        let validator = jsonschema::options()
            .with_draft(Draft::Draft202012)
            .offline()
            .with_pattern_options(PatternOptions::regex())
            .with_keyword("type", strict_type::keyword)
            .build(&schema)
            .map_err(|error| {
                format!(
                    "is no JSON Schema of draft 2020-12: {error} (at {:?})",
                    path(error.instance_path())
                )
            })?;
        let text = RawValue::from_string(text).map_err(|error| format!("is not JSON: {error}"))?;
        Ok(Self {
            validator,
            text: Arc::from(text),
        })
    }

    /// Validates an input; the error is for the model, and lists each problem with its path.
    pub(crate) fn check(&self, input: &str) -> Result<(), String> {
        let value = arguments::parse(input)?;
        if !value.is_object() {
            return Err(format!(
                "The arguments must be a JSON object, and are {}.",
                kind(&value)
            ));
        }
        let mut errors = self.validator.iter_errors(&value);
        let problems: Vec<String> = errors
            .by_ref()
            .take(MAX_PROBLEMS)
            .map(|error| format!("- {}: {}", path(error.instance_path()), shortened(error.to_string())))
            .collect();
        if problems.is_empty() {
            return Ok(());
        }
        let more = if errors.next().is_some() { "\n- and more" } else { "" };
        Err(format!(
            "The arguments do not fit the tool's schema:\n{}{more}",
            problems.join("\n")
        ))
    }
}

/// A place in a document; the document itself has a name too.
fn path(location: &jsonschema::paths::Location) -> String {
    match location.as_str() {
        "" => "(arguments)".to_owned(),
        path => path.to_owned(),
    }
}

/// A message may quote the value that is wrong, and that may be a whole file.
fn shortened(mut message: String) -> String {
    const MAX_BYTES: usize = 300;
    if message.len() > MAX_BYTES {
        message.truncate(message.floor_char_boundary(MAX_BYTES));
        message.push('…');
    }
    message
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
