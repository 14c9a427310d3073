//! The JSON Schemas of `protocol/`, compiled once: what the runner and the API server may say to each other.

use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::Value;

macro_rules! schemas {
    ($($(#[$meaning:meta])* $name:ident: $file:literal;)*) => {
        $(
            $(#[$meaning])*
            ///
            /// Each with its path; empty when it is right.
            pub fn $name(value: &Value) -> Vec<String> {
                static SCHEMA: LazyLock<Validator> =
                    LazyLock::new(|| compile(include_str!(concat!("../../protocol/", $file, ".schema.json"))));
                errors(&SCHEMA, value)
            }
        )*
    };
}

schemas! {
    /// What is wrong with an event.
    event_errors: "event";
    /// What is wrong with a line of the runner's log.
    log_line_errors: "log-line";
    /// What is wrong with the form of a task document.
    task_errors: "task";
    /// What is wrong with a registration.
    register_request_errors: "register-request";
    /// What is wrong with the answer to a registration.
    register_reply_errors: "register-reply";
    /// What is wrong with a heartbeat.
    heartbeat_request_errors: "heartbeat-request";
    /// What is wrong with the answer to a heartbeat or an event.
    heartbeat_reply_errors: "heartbeat-reply";
}

fn compile(text: &str) -> Validator {
    let schema: Value = serde_json::from_str(text).expect("the schema is JSON");
    jsonschema::draft202012::new(&schema).expect("the schema is a JSON Schema")
}

fn errors(validator: &Validator, value: &Value) -> Vec<String> {
    validator
        .iter_errors(value)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}
