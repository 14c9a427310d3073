//! The shapes of the events (protocol, §3). Types are exact: the API server crashes a request on a `null`, so a field
//! without a value is left out.

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use plue_contract::ToolErrorCode;
use plue_contract::closed_set;
use plue_redaction::Redactor;

/// The task as the API server names it.
///
/// A number when the register reply gave a number, a string when it came from `TASK_ID`; it goes back as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskId {
    Number(i64),
    Text(String),
}

impl TaskId {
    /// As JSON.
    pub fn to_value(&self) -> serde_json::Value {
        match self {
            TaskId::Number(number) => (*number).into(),
            TaskId::Text(text) => text.as_str().into(),
        }
    }
}

impl std::fmt::Display for TaskId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            TaskId::Number(number) => write!(f, "{number}"),
            TaskId::Text(text) => f.write_str(text),
        }
    }
}

impl Serialize for TaskId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            TaskId::Number(number) => serializer.serialize_i64(*number),
            TaskId::Text(text) => serializer.serialize_str(text),
        }
    }
}

/// Whether a tool call succeeded, from the caller's point of view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolState {
    Success,
    Error,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    Success,
    /// The command failed, or ran longer than it may.
    Failure,
    /// The command could not be run, or was cancelled.
    Error,
}

/// Where a log event comes from. The protocol has `error`, too; what fails is an event of its own here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    Stdout,
    Stderr,
    Info,
}

impl LogLevel {
    /// The name in events.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Info => "info",
        }
    }
}

closed_set! {
    /// Why a task failed. The names are fixed.
    pub enum TaskErrorCode {
        InvalidTask = "invalid_task", "the task document is wrong; the message lists every problem with its path";
        MaxTurns = "max_turns", "the agent used all its turns without finishing";
        MaxTokens = "max_tokens", "the model's answer did not fit its output limit, also after asking it to go on";
        Refusal = "refusal", "the model refused; the message has the category";
        ContextExceeded = "context_exceeded", "the conversation is larger than the model's context window";
        Budget = "budget", "the task used its max_cost_usd or max_tokens_total";
        Stuck = "stuck", "the agent repeated itself, also after it was told so";
        Timeout = "timeout", "the task, or a workflow step, ran longer than its time limit";
        Cancelled = "cancelled", "the runner was told to stop (SIGTERM or SIGINT), or the API server asked for it";
        ModelError = "model_error", "the Messages API refused, or had no answer for as long as the operator waits";
        ModelRetired = "model_retired", "the Messages API does not know the model; set MODEL_ALIASES";
        ModelAuth = "model_auth", "the API key is missing, or was refused";
        StepFailed = "step_failed", "a workflow step failed";
        Sandbox = "sandbox", "a layer of the sandbox is missing";
        WorkerLost = "worker_lost", "the process that ran the task died or hung, or the runner was started again \
            (standby)";
        Internal = "internal", "the configuration, a plugin or the runner itself is at fault";
    }
}

/// What the model used, added up over all turns. What the API did not tell is left out: it is not nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct UsageReport {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_read_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_write_tokens: Option<u64>,
}

/// What both terminal events say about the task as a whole.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Absent for a workflow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<UsageReport>,
    /// US dollars at list prices; absent when the model's price is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    /// Model turns; absent for a workflow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turns: Option<u32>,
    pub duration_ms: u64,
    /// How far commands were confined.
    pub sandbox: &'static str,
}

/// One event, without what every event carries (`task_id`, `seq`, `timestamp`).
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    Token {
        message_id: String,
        text: String,
        token_index: u64,
    },
    /// Only with `CALLBACK_EXTRA_EVENTS=1`.
    Thinking {
        message_id: String,
        text: String,
    },
    ToolStart {
        message_id: String,
        tool_id: String,
        tool_name: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        args: Option<Box<RawValue>>,
    },
    /// Only with `CALLBACK_EXTRA_EVENTS=1`.
    ToolOutput {
        tool_id: String,
        text: String,
    },
    ToolEnd {
        tool_id: String,
        tool_state: ToolState,
        #[serde(skip_serializing_if = "String::is_empty")]
        output: String,
        duration_ms: u64,
        truncated: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<ToolErrorCode>,
    },
    StepStart {
        step_name: String,
        step_index: usize,
    },
    StepEnd {
        step_name: String,
        step_index: usize,
        step_state: StepState,
        #[serde(skip_serializing_if = "Option::is_none")]
        output: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        exit_code: Option<i32>,
        duration_ms: u64,
    },
    Log {
        level: LogLevel,
        message: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        step_index: Option<usize>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        partial: bool,
    },
    /// Only with `CALLBACK_EXTRA_EVENTS=1`: what one model turn used.
    Usage {
        message_id: String,
        #[serde(flatten)]
        usage: UsageReport,
    },
    /// Only with `CALLBACK_EXTRA_EVENTS=1`: an answer broke off, and is asked for again as another message.
    MessageReset {
        message_id: String,
        replaced_by: String,
        reason: String,
    },
    /// Only with `CALLBACK_EXTRA_EVENTS=1`: nothing else was sent for a while, and the task goes on.
    Alive,
    Done {
        /// The final text of an agent, or the object that its `output_schema` asks for.
        #[serde(skip_serializing_if = "Option::is_none")]
        result: Option<Box<RawValue>>,
        #[serde(flatten)]
        summary: Summary,
    },
    Error {
        #[serde(skip_serializing_if = "String::is_empty")]
        message: String,
        code: TaskErrorCode,
        #[serde(flatten)]
        summary: Summary,
    },
}

impl Event {
    /// Takes secrets out of everything that anybody but the runner may have written.
    pub fn redact(&mut self, redactor: &Redactor) {
        let text = |text: &mut String| *text = redactor.redact(std::mem::take(text)).0;
        match self {
            Event::Token { text: field, .. }
            | Event::Thinking { text: field, .. }
            | Event::ToolOutput { text: field, .. }
            | Event::Log { message: field, .. }
            | Event::MessageReset { reason: field, .. }
            | Event::Error { message: field, .. } => text(field),
            Event::Done { result, .. } => {
                if let Some(result) = result {
                    redact_json(result, redactor);
                }
            }
            Event::ToolStart {
                tool_id,
                tool_name,
                args,
                ..
            } => {
                text(tool_id);
                text(tool_name);
                if let Some(args) = args {
                    redact_json(args, redactor);
                }
            }
            Event::ToolEnd { tool_id, output, .. } => {
                text(tool_id);
                text(output);
            }
            Event::StepStart { step_name, .. } => text(step_name),
            Event::StepEnd { step_name, output, .. } => {
                text(step_name);
                output.iter_mut().for_each(text);
            }
            Event::Usage { .. } | Event::Alive => {}
        }
    }
}

/// The same for an object that is written already. Where a mask breaks it, what is left is shown as a text.
fn redact_json(object: &mut Box<RawValue>, redactor: &Redactor) {
    // Escapes would hide a secret from whoever reads the text, and from nobody else: each text is looked at as it is.
    let plain = match object.get().contains('\\') {
        true => serde_json::from_str::<serde_json::Value>(object.get()).ok(),
        false => None,
    };
    let (text, in_texts) = match plain {
        Some(mut value) => {
            let masked = redact_texts(&mut value, redactor);
            (value.to_string(), masked)
        }
        None => (object.get().to_owned(), 0),
    };
    let (text, masked) = redactor.redact(text);
    if masked + in_texts == 0 {
        return;
    }
    *object = RawValue::from_string(text.clone())
        .or_else(|_| serde_json::value::to_raw_value(&serde_json::json!({ "redacted": text })))
        .unwrap_or_else(|_| RawValue::NULL.to_owned());
}

/// Takes secrets out of each text of a value; how many there were.
fn redact_texts(value: &mut serde_json::Value, redactor: &Redactor) -> usize {
    match value {
        serde_json::Value::String(text) => {
            let (plain, masked) = redactor.redact(std::mem::take(text));
            *text = plain;
            masked
        }
        serde_json::Value::Array(values) => values.iter_mut().map(|value| redact_texts(value, redactor)).sum(),
        serde_json::Value::Object(members) => members.values_mut().map(|value| redact_texts(value, redactor)).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_code_is_serialized_under_its_name() {
        for (code, name, meaning) in TaskErrorCode::TABLE {
            assert_eq!(
                (serde_json::to_value(code).unwrap(), code.as_str()),
                ((*name).into(), *name)
            );
            assert!(!meaning.is_empty());
        }
    }

    #[test]
    fn secrets_are_taken_out_of_arguments_that_stay_an_object() {
        let redactor = Redactor::new(["12345678", "sec\"ret-"]);
        for (args, expected) in [
            (r#"{"a":"x sec\"ret- y"}"#, r#"{"a":"x *** y"}"#),
            (r#"{"a":12345678}"#, r#"{"redacted":"{\"a\":***}"}"#),
            (r#"{"a":1}"#, r#"{"a":1}"#),
            // Escaped for no reason.
            (r#"{"a":"\u0073ec\"ret-"}"#, r#"{"a":"***"}"#),
        ] {
            let mut event = Event::ToolStart {
                message_id: "msg_a".into(),
                tool_id: "t".into(),
                tool_name: "grep".into(),
                args: Some(RawValue::from_string(args.into()).unwrap()),
            };
            event.redact(&redactor);
            let Event::ToolStart { args: Some(args), .. } = event else {
                unreachable!()
            };
            assert_eq!(args.get(), expected);
        }
    }
}
