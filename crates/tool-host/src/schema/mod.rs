//! A tool's input schema: checked when the plugin is loaded, and every input against it before the tool sees it.
//!
//! The schema is the plugin's and the input is the model's, and both are read in the runner's own process, where no
//! limit of a component holds. So either is counted before it is used: the paths of the schema (`graph`) before a
//! validator is built, and the visits of a check (`cost`) before it is made.

use std::sync::Arc;
use std::thread;

use jsonschema::{Draft, Validator};
use serde_json::Value;
use serde_json::value::RawValue;

use super::arguments;
use super::limits::{Limits, limit};
use graph::Graph;

mod cost;
mod graph;
mod pattern;
mod places;
mod strict_type;

/// Problems that one message lists; the model needs no more to see what is wrong.
const MAX_PROBLEMS: usize = 20;

/// How much a check may cost of which the problems are listed: the validator collects all of them first.
const MAX_LISTED: u64 = 200_000;

/// The stack on which the validator is built: it calls itself for each subschema within another one, and the text of a
/// schema alone may have 127 of them, in eight definitions that it follows at a time. Only what is used takes memory.
const BUILD_STACK: usize = 32 << 20;

/// The compiled schema of an answer that somebody asks of the model: of any type, and within the bounds that hold for a
/// tool's.
pub struct AnswerSchema(InputSchema);

impl AnswerSchema {
    /// Compiles a schema; the error says what it is instead, as the end of "the schema …".
    ///
    /// # Errors
    /// When it is no JSON Schema, or one that would take too much to check.
    pub fn new(text: &str) -> Result<Self, String> {
        InputSchema::compile(text.to_owned(), &Limits::default(), false).map(Self)
    }

    /// Validates a JSON text; the error is for the model, and lists each problem with its path.
    ///
    /// # Errors
    /// When it is no JSON, or does not fit.
    pub fn check(&self, answer: &str) -> Result<(), String> {
        let value =
            serde_json::from_str(answer).map_err(|error| format!("The answer is not one JSON value: {error}"))?;
        self.0.check_value(&value, "answer does", "schema that was asked for")
    }
}

/// The compiled schema of a tool.
pub(crate) struct InputSchema {
    validator: Validator,
    graph: Graph,
    max_steps: u64,
    /// As the model gets it.
    pub(crate) text: Arc<RawValue>,
}

impl InputSchema {
    /// Compiles a schema; the error says what it is instead, as the end of "the input schema …".
    pub(crate) fn new(text: String, limits: &Limits) -> Result<Self, String> {
        Self::compile(text, limits, true)
    }

    fn compile(text: String, limits: &Limits, is_object: bool) -> Result<Self, String> {
        let most_bytes = limits.schema;
        if text.len() as u64 > most_bytes {
            return Err(format!("has {} bytes; at most {most_bytes} are allowed", text.len()));
        }
        let schema: Value = serde_json::from_str(&text).map_err(|error| format!("is not JSON: {error}"))?;
        if is_object && schema.get("type").and_then(Value::as_str) != Some("object") {
            return Err("is not of `type: object`; the input of a tool is always an object".to_owned());
        }
        let graph = Graph::read(&schema, limits.schema_paths)?;
        let validator = build(&schema)?;
        let text = RawValue::from_string(text).map_err(|error| format!("is not JSON: {error}"))?;
        Ok(Self {
            validator,
            graph,
            max_steps: limits.schema_steps,
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
        self.check_value(&value, "arguments do", "tool's schema")
    }

    /// `what` is what is checked, with its verb, and `against` whose schema this is.
    fn check_value(&self, value: &Value, what: &str, against: &str) -> Result<(), String> {
        let Ok(cost) = cost::of(&self.graph, value, self.max_steps) else {
            return Err(format!(
                "The {what} not fit: too large or nested too deep for the {against}, to check it would take more than \
                 {} steps (limit `{}`). Send less at a time.",
                self.max_steps,
                limit::schema_steps.name
            ));
        };
        if self.validator.is_valid(value) {
            return Ok(());
        }
        if cost.errors > MAX_LISTED {
            return Err(format!(
                "The {what} not fit the {against}; too large to list what is wrong."
            ));
        }
        let mut errors = self.validator.iter_errors(value);
        let problems: Vec<String> = errors
            .by_ref()
            .take(MAX_PROBLEMS)
            .map(|error| format!("- {}: {}", path(error.instance_path()), shortened(error.to_string())))
            .collect();
        let more = if errors.next().is_some() { "\n- and more" } else { "" };
        Err(format!(
            "The {what} not fit the {against}:\n{}{more}",
            problems.join("\n")
        ))
    }
}

/// Builds the validator of a schema that was counted.
fn build(schema: &Value) -> Result<Validator, String> {
    let build = || {
        // The schema must not make the runner fetch anything, and its patterns must run in linear time whatever the
        // model writes. A format is a note, in each draft.
        jsonschema::options()
            .with_draft(Draft::Draft202012)
            .offline()
            .with_pattern_options(pattern::largest_engine())
            .should_validate_formats(false)
            .with_keyword("type", strict_type::keyword)
            .build(schema)
            .map_err(|error| {
                let place = path(error.instance_path());
                format!("is no JSON Schema of draft 2020-12: {error} (at {place:?})")
            })
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("schema".to_owned()).stack_size(BUILD_STACK);
        let running = thread.spawn_scoped(scope, build);
        let running = running.map_err(|error| format!("cannot be read: no thread can be started for it ({error})"))?;
        running
            .join()
            .unwrap_or_else(|_| Err("makes the validator panic; this is a defect of the runner".to_owned()))
    })
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
