//! The JSON Schemas of `tests/schema`, compiled once: what an event and a log line may look like.

use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::Value;

static EVENT: LazyLock<Validator> = LazyLock::new(|| compile(include_str!("../schema/event.schema.json")));
static LOG_LINE: LazyLock<Validator> = LazyLock::new(|| compile(include_str!("../schema/log-line.schema.json")));

fn compile(text: &str) -> Validator {
    let schema: Value = serde_json::from_str(text).expect("the schema is JSON");
    jsonschema::draft202012::new(&schema).expect("the schema is a JSON Schema")
}

/// Everything that is wrong with an event, each with its path; empty when it is right.
pub fn event_errors(event: &Value) -> Vec<String> {
    errors(&EVENT, event)
}

/// Everything that is wrong with a line of the runner's log.
pub fn log_line_errors(line: &Value) -> Vec<String> {
    errors(&LOG_LINE, line)
}

fn errors(validator: &Validator, value: &Value) -> Vec<String> {
    validator
        .iter_errors(value)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}
