//! The task documents (protocol, §2): what they may say, their limits, and how a wrong one is told.
//!
//! JSON and YAML both become one JSON value, and one validator ([`agent`], [`workflow`]) reads it. It reports every
//! problem at once, each with its path in the document.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::config::TaskRules;
use plue_messages::InitialMessage;

pub(crate) mod agent;
mod document;
mod reader;
mod workflow;

pub use document::{Document, DocumentError, Format, MAX_DOCUMENT_BYTES};
pub use reader::Problem;

use reader::Reader;

/// A task that may be run.
#[derive(Debug)]
pub enum Task {
    Agent(AgentTask),
    Workflow(WorkflowTask),
}

/// A conversation that the agent continues.
#[derive(Debug)]
pub struct AgentTask {
    /// The model as the task asks for it, before the operator's aliases.
    pub model: String,
    pub system_prompt: Option<String>,
    /// At least one; the last is the user's.
    pub messages: Vec<InitialMessage>,
    /// Names of tools, each once.
    pub tools: Vec<String>,
    /// How often the model may be asked.
    pub max_turns: u32,
    /// The limit of one answer in tokens, thinking included. `None`: chosen by the model.
    pub max_tokens: Option<u32>,
    /// The request's `thinking`, as it is sent.
    pub thinking: Option<Box<RawValue>>,
    pub effort: Option<String>,
    /// US dollars at list prices.
    pub max_cost_usd: Option<f64>,
    /// Tokens of all turns together, of prompts and answers.
    pub max_tokens_total: Option<u64>,
    /// The JSON Schema of the final answer. `None`: it is text.
    pub output_schema: Option<Box<RawValue>>,
    /// For the task as a whole.
    pub timeout: Option<Duration>,
}

/// Steps that are run in order.
#[derive(Debug)]
pub struct WorkflowTask {
    pub steps: Vec<Step>,
    /// For the task as a whole.
    pub timeout: Option<Duration>,
}

/// One step of a workflow.
#[derive(Debug)]
pub struct Step {
    pub name: String,
    pub kind: StepKind,
}

/// What a step does.
#[derive(Debug)]
pub enum StepKind {
    /// Runs a script with `/bin/sh -e -c`.
    Run {
        script: String,
        env: BTreeMap<String, String>,
        /// Relative to the workspace, and in it as far as its text tells.
        working_directory: String,
        timeout: Duration,
    },
    /// The repository is in the workspace already.
    Checkout,
    /// Sets variables for the steps that follow.
    Env(BTreeMap<String, String>),
}

/// A task that is valid, and what is odd about it all the same.
#[derive(Debug)]
pub struct Valid {
    pub task: Task,
    /// Keys that mean nothing to us, of an agent's task and at the top of a workflow. In a pod they are warnings, since
    /// the server may know more than we do.
    pub unknown_keys: Vec<Problem>,
}

/// Every problem of a task, and the unknown keys, which often explain the problems.
#[derive(Debug, thiserror::Error)]
#[error("{}", list(problems))]
pub struct InvalidTask {
    pub problems: Vec<Problem>,
    pub unknown_keys: Vec<Problem>,
}

/// The problems as one text: each on a line, after a line that counts them.
fn list(problems: &[Problem]) -> String {
    let count = match problems.len() {
        1 => "1 problem".to_owned(),
        n => format!("{n} problems"),
    };
    let lines: String = problems.iter().map(|problem| format!("\n  {problem}")).collect();
    format!("the task is invalid, {count}:{lines}")
}

/// Reads a task out of a document.
///
/// # Errors
/// All problems at once.
pub fn validate(document: &Document, rules: &TaskRules) -> Result<Valid, InvalidTask> {
    let mut reader = Reader::new();
    let task = read(&document.value, rules, &mut reader);
    let (problems, unknown_keys) = reader.finish();
    match task {
        Some(task) if problems.is_empty() => Ok(Valid { task, unknown_keys }),
        _ => Err(InvalidTask { problems, unknown_keys }),
    }
}

fn read(value: &Value, rules: &TaskRules, reader: &mut Reader) -> Option<Task> {
    let object = reader.object("", value)?;
    match object.get("type") {
        None if !object.contains_key("messages") && (object.contains_key("steps") || object.contains_key("jobs")) => {
            workflow::read(object, rules, reader).map(Task::Workflow)
        }
        None => agent::read(object, rules, reader).map(Task::Agent),
        Some(Value::String(kind)) if kind == "agent" => agent::read(object, rules, reader).map(Task::Agent),
        Some(Value::String(kind)) if kind == "workflow" => workflow::read(object, rules, reader).map(Task::Workflow),
        Some(other) => {
            reader.wrong("type", other, r#""agent" or "workflow""#);
            None
        }
    }
}
