//! The agent task.

use std::time::Duration;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::AgentTask;
use super::reader::{Reader, join};
use crate::config::TaskRules;
use plue_messages::{InitialMessage, Role};
use plue_tool_host::AnswerSchema;

/// What a task gets that names no model (fixed by the protocol; retired, so that an operator sets an alias).
const DEFAULT_MODEL: &str = "claude-sonnet-4-20250514";
pub(crate) const DEFAULT_MAX_TURNS: u32 = 20;
/// The largest `max_turns`.
pub(crate) const MAX_TURNS: u64 = 1_000;
/// The largest output of any model; what is over a model's own is cut down to it.
pub(crate) const MAX_TOKENS: u64 = 1_000_000;
/// More than any budget pays for.
pub(crate) const MAX_TOKENS_TOTAL: u64 = 1_000_000_000_000;
/// A week: more is a mistake.
pub(crate) const MAX_TIMEOUT_SECONDS: u64 = 7 * 24 * 3600;

const KEYS: &[&str] = &[
    "type",
    "model",
    "system_prompt",
    "messages",
    "tools",
    "max_turns",
    "max_tokens",
    "thinking",
    "effort",
    "max_cost_usd",
    "max_tokens_total",
    "output_schema",
    "timeout_seconds",
];
const EFFORTS: &[&str] = &["low", "medium", "high", "xhigh", "max"];
const THINKING_TYPES: &[&str] = &["adaptive", "disabled", "enabled", "between_tools"];

pub(super) fn read(object: &Map<String, Value>, rules: &TaskRules, reader: &mut Reader) -> Option<AgentTask> {
    reader.known_keys("", object, KEYS);
    let model = read_model(object.get("model"), rules, reader);
    let messages = read_messages(object.get("messages"), reader);
    let tools = read_tools(object.get("tools"), rules, reader);
    let system_prompt = reader
        .string("system_prompt", object.get("system_prompt"))
        .map(str::to_owned);
    let max_turns = reader.integer("max_turns", object.get("max_turns"), 1, MAX_TURNS);
    let max_tokens = reader.integer("max_tokens", object.get("max_tokens"), 1, MAX_TOKENS);
    let effort = reader
        .one_of("effort", object.get("effort"), EFFORTS)
        .map(str::to_owned);
    let thinking = read_thinking(object.get("thinking"), reader);
    let max_cost_usd = read_cost(object.get("max_cost_usd"), reader);
    let max_tokens_total = reader.integer("max_tokens_total", object.get("max_tokens_total"), 1, MAX_TOKENS_TOTAL);
    let output_schema = read_output_schema(object.get("output_schema"), reader);
    let timeout = reader.integer("timeout_seconds", object.get("timeout_seconds"), 1, MAX_TIMEOUT_SECONDS);
    Some(AgentTask {
        model: model?,
        system_prompt,
        messages: messages?,
        tools,
        max_turns: max_turns.map_or(DEFAULT_MAX_TURNS, |turns| turns as u32),
        max_tokens: max_tokens.map(|tokens| tokens as u32),
        thinking,
        effort,
        max_cost_usd,
        max_tokens_total,
        output_schema,
        timeout: timeout.map(Duration::from_secs),
    })
}

fn read_model(value: Option<&Value>, rules: &TaskRules, reader: &mut Reader) -> Option<String> {
    let Some(value) = value else {
        return Some(DEFAULT_MODEL.to_owned());
    };
    let name = reader.text("model", Some(value))?;
    if !rules.models.iter().any(|model| model == name) {
        let list = rules.models.join(", ");
        reader.problem(
            "model",
            format!("{name:?} is not allowed; allowed are {list} (the operator adds others with ALLOWED_MODELS)"),
        );
        return None;
    }
    Some(name.to_owned())
}

fn read_messages(value: Option<&Value>, reader: &mut Reader) -> Option<Vec<InitialMessage>> {
    let items = reader.array("messages", value, "messages")?;
    let messages: Vec<_> = items
        .iter()
        .enumerate()
        .filter_map(|(index, item)| read_message(&format!("messages[{index}]"), item, reader))
        .collect();
    if messages.len() == items.len() && messages.last().is_some_and(|message| message.role != Role::User) {
        let path = format!("messages[{}].role", messages.len() - 1);
        reader.problem(
            &path,
            "the last message must be the user's: the model cannot be made to go on with its own",
        );
    }
    Some(messages)
}

fn read_message(path: &str, value: &Value, reader: &mut Reader) -> Option<InitialMessage> {
    let object = reader.object(path, value)?;
    reader.known_keys(path, object, &["role", "content"]);
    let role_path = join(path, "role");
    if !object.contains_key("role") {
        reader.problem(&role_path, "is missing: it must be one of user, assistant");
    }
    let role = reader.one_of(&role_path, object.get("role"), &["user", "assistant"]);
    let content_path = join(path, "content");
    let content = match object.get("content") {
        None => {
            reader.problem(
                &content_path,
                "is missing: it must be a string or an array of content blocks",
            );
            None
        }
        Some(Value::String(text)) if text.trim().is_empty() => {
            reader.problem(&content_path, "must not be empty");
            None
        }
        Some(content @ Value::String(_)) => Some(content),
        Some(content @ Value::Array(blocks)) if !blocks.is_empty() => {
            read_blocks(&content_path, blocks, reader).then_some(content)
        }
        Some(other) => {
            reader.wrong(
                &content_path,
                other,
                "a string or an array of content blocks, at least one",
            );
            None
        }
    };
    let role = if role? == "user" { Role::User } else { Role::Assistant };
    // A JSON value always has a JSON text.
    let content = RawValue::from_string(content?.to_string()).ok()?;
    Some(InitialMessage { role, content })
}

/// Content blocks are the API's business; that they are objects with a type is all that is asked here.
fn read_blocks(path: &str, blocks: &[Value], reader: &mut Reader) -> bool {
    let mut good = true;
    for (index, block) in blocks.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let Some(object) = reader.object(&path, block) else {
            good = false;
            continue;
        };
        let type_path = join(&path, "type");
        if !object.contains_key("type") {
            reader.problem(&type_path, "is missing: a content block has a type, such as \"text\"");
        }
        let kind = reader.text(&type_path, object.get("type"));
        let text_path = join(&path, "text");
        let text_is_good = kind != Some("text") || {
            if !object.contains_key("text") {
                reader.problem(&text_path, "is missing: a text block has a text");
            }
            match reader.string(&text_path, object.get("text")) {
                Some(text) if text.trim().is_empty() => {
                    reader.problem(&text_path, "must not be empty");
                    false
                }
                text => text.is_some(),
            }
        };
        good &= kind.is_some() && text_is_good;
    }
    good
}

fn read_tools(value: Option<&Value>, rules: &TaskRules, reader: &mut Reader) -> Vec<String> {
    let items = match value {
        None => return Vec::new(),
        Some(Value::Array(items)) => items,
        Some(other) => {
            reader.wrong("tools", other, "an array of tool names");
            return Vec::new();
        }
    };
    let mut tools: Vec<String> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let path = format!("tools[{index}]");
        let Some(name) = reader.text(&path, Some(item)) else {
            continue;
        };
        if !rules.tools.iter().any(|tool| tool == name) {
            let allowed = match rules.tools.join(", ") {
                none if none.is_empty() => "none is".to_owned(),
                names => format!("allowed are {names}"),
            };
            reader.problem(&path, format!("the tool {name:?} is not allowed; {allowed}"));
        } else if tools.iter().any(|tool| tool == name) {
            reader.problem(&path, format!("the tool {name:?} is named twice"));
        } else {
            tools.push(name.to_owned());
        }
    }
    tools
}

fn read_thinking(value: Option<&Value>, reader: &mut Reader) -> Option<Box<RawValue>> {
    let value = value?;
    let object = reader.object("thinking", value)?;
    if !object.contains_key("type") {
        reader.problem(
            "thinking.type",
            format!("is missing: it must be one of {}", THINKING_TYPES.join(", ")),
        );
    }
    reader.one_of("thinking.type", object.get("type"), THINKING_TYPES)?;
    RawValue::from_string(value.to_string()).ok()
}

fn read_output_schema(value: Option<&Value>, reader: &mut Reader) -> Option<Box<RawValue>> {
    let value = value?;
    reader.object("output_schema", value)?;
    let text = value.to_string();
    if let Err(problem) = AnswerSchema::new(&text) {
        reader.problem("output_schema", problem);
        return None;
    }
    RawValue::from_string(text).ok()
}

fn read_cost(value: Option<&Value>, reader: &mut Reader) -> Option<f64> {
    let value = value?;
    let cost = value.as_f64().filter(|cost| *cost > 0.0);
    if cost.is_none() {
        reader.wrong("max_cost_usd", value, "a number of US dollars above 0");
    }
    cost
}
