//! What the Messages API refuses, as far as a client with tools can get it wrong. Sources: the pages on versioning,
//! thinking, tool use and errors of platform.claude.com, November 2026. The messages are in the words of the API where
//! those are known.

use std::collections::HashSet;

use axum::http::HeaderMap;
use serde_json::Value;

use super::models::{self, Model};

/// The version that the runner speaks.
pub const API_VERSION: &str = "2026-10-21";

/// The fields that a request may have without a beta header.
const FIELDS: &[&str] = &[
    "model",
    "max_tokens",
    "messages",
    "stream",
    "system",
    "tools",
    "tool_choice",
    "thinking",
    "output_config",
    "compaction",
    "cache_control",
    "metadata",
    "service_tier",
    "stop_sequences",
    "inference_geo",
];

/// A refusal: what the API answers with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    pub kind: &'static str,
    pub message: String,
}

impl Refusal {
    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self {
            status: 400,
            kind: "invalid_request_error",
            message: message.into(),
        }
    }
}

type Check = Result<(), Refusal>;

fn bad(message: impl Into<String>) -> Check {
    Err(Refusal::bad(message))
}

/// The headers: version, type, and exactly one key.
pub fn headers(headers: &HeaderMap, key: &str) -> Check {
    let header = |name: &str| {
        headers
            .get(name)
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    match (header("x-api-key"), header("authorization")) {
        (None, None) => return unauthorized("x-api-key header is required"),
        (Some(_), Some(_)) => return bad("both x-api-key and Authorization are set: send exactly one"),
        (Some(sent), None) if sent != key => return unauthorized("invalid x-api-key"),
        (None, Some(sent)) if sent != format!("Bearer {key}") => return unauthorized("invalid bearer token"),
        _ => {}
    }
    match header("anthropic-version").as_deref() {
        Some(API_VERSION) => {}
        Some(other) => {
            return bad(format!(
                "anthropic-version: {other:?} is not the version this double speaks"
            ));
        }
        None => return bad("anthropic-version: header is required"),
    }
    match header("content-type").as_deref() {
        Some(kind) if kind.starts_with("application/json") => Ok(()),
        kind => bad(format!("content-type: {kind:?} is not application/json")),
    }
}

/// Summaries of the API's own are asked for, and sent back, with a header of their own.
pub fn beta(headers: &HeaderMap, body: &Value) -> Check {
    let has_summary = body["messages"]
        .as_array()
        .into_iter()
        .flatten()
        .any(begins_with_summary);
    let says = headers
        .get("anthropic-beta")
        .is_some_and(|beta| beta == "compact-2026-09-04");
    match has_summary || body.get("compaction").is_some() {
        true if !says => bad("compaction: needs the header anthropic-beta: compact-2026-09-04"),
        _ => Ok(()),
    }
}

fn unauthorized(message: &str) -> Check {
    Err(Refusal {
        status: 401,
        kind: "authentication_error",
        message: message.to_owned(),
    })
}

/// Everything in the body that does not depend on earlier requests. `continues` says that the turn before was paused:
/// only then may the last message be the assistant's.
pub fn body(body: &Value, continues: bool) -> Check {
    let Some(fields) = body.as_object() else {
        return bad("the body is not an object");
    };
    for name in ["temperature", "top_p", "top_k"] {
        if fields.contains_key(name) {
            return bad(format!(
                "{name}: sampling parameters are not supported in API version {API_VERSION}"
            ));
        }
    }
    if let Some(unknown) = fields.keys().find(|name| !FIELDS.contains(&name.as_str())) {
        return bad(format!("{unknown}: Extra inputs are not permitted"));
    }
    let Some(name) = fields.get("model").and_then(Value::as_str) else {
        return bad("model: Field required");
    };
    let Some(model) = models::find(name) else {
        return Err(Refusal {
            status: 404,
            kind: "not_found_error",
            message: format!("model: {name}"),
        });
    };
    if fields.get("stream") != Some(&Value::Bool(true)) {
        return bad("stream: the runner always streams");
    }
    match fields.get("max_tokens").and_then(Value::as_u64) {
        None | Some(0) => return bad("max_tokens: must be an integer of at least 1"),
        Some(tokens) if tokens > model.max_output => {
            return bad(format!(
                "max_tokens: {tokens} > {}, which is the maximum allowed number of output tokens for {name}",
                model.max_output
            ));
        }
        Some(_) => {}
    }
    if fields
        .get("compaction")
        .is_some_and(|asked| asked["type"] != "summarize")
    {
        return bad("compaction.type: Input should be 'summarize'");
    }
    if let Some(format) = body.get("output_config").and_then(|config| config.get("format"))
        && (format["type"] != "json_schema" || !format["schema"].is_object())
    {
        return bad("output_config.format: Input should be a json_schema with its schema");
    }
    system(fields.get("system"))?;
    thinking(body, model)?;
    tools(body)?;
    messages(body, continues)?;
    match cache_breakpoints(body) {
        count if count > 4 => bad(format!(
            "A maximum of 4 blocks with cache_control may be provided. Found {count}."
        )),
        _ => Ok(()),
    }
}

fn system(system: Option<&Value>) -> Check {
    match system {
        None | Some(Value::String(_)) => Ok(()),
        Some(Value::Array(blocks)) => {
            for (index, block) in blocks.iter().enumerate() {
                text_block(block, &format!("system.{index}"))?;
            }
            Ok(())
        }
        Some(_) => bad("system: must be a string or a list of text blocks"),
    }
}

fn thinking(body: &Value, model: &Model) -> Check {
    if let Some(thinking) = body.get("thinking") {
        let kind = thinking["type"].as_str().unwrap_or_default();
        if !model.thinking.takes(kind) {
            return bad(format!("\"thinking.type.{kind}\" is not supported for this model."));
        }
        if kind == "enabled" {
            let budget = thinking["budget_tokens"].as_u64().unwrap_or(0);
            if budget < 1024 || budget >= body["max_tokens"].as_u64().unwrap_or(0) {
                return bad("thinking.budget_tokens: must be at least 1024 and less than max_tokens");
            }
        }
    }
    match body.get("output_config").and_then(|config| config.get("effort")) {
        None => Ok(()),
        Some(_) if !model.effort => bad("output_config.effort: not supported for this model"),
        Some(effort)
            if ["low", "medium", "high", "xhigh", "max"]
                .iter()
                .any(|known| effort == known) =>
        {
            Ok(())
        }
        Some(effort) => bad(format!("output_config.effort: {effort} is unknown")),
    }
}

fn tools(body: &Value) -> Check {
    let Some(tools) = body.get("tools") else {
        return match body.get("tool_choice") {
            None => Ok(()),
            Some(_) => bad("tool_choice may only be specified while providing tools"),
        };
    };
    let tools = tools.as_array().filter(|tools| !tools.is_empty());
    let Some(tools) = tools else {
        return bad("tools: must be a non-empty list, or left out");
    };
    let mut names = HashSet::new();
    for (index, tool) in tools.iter().enumerate() {
        let name = tool["name"].as_str().unwrap_or_default();
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if name.is_empty() || name.len() > 64 || !name.chars().all(legal) {
            return bad(format!(
                "tools.{index}.name: String should match pattern '^[a-zA-Z0-9_-]{{1,64}}$'"
            ));
        }
        if !names.insert(name) {
            return bad("tools: Tool names must be unique.");
        }
        if tool["input_schema"]["type"] != "object" {
            return bad(format!("tools.{index}.input_schema.type: Input should be 'object'"));
        }
        if tool
            .get("description")
            .is_some_and(|description| !description.is_string())
        {
            return bad(format!("tools.{index}.description: Input should be a valid string"));
        }
    }
    Ok(())
}

fn messages(body: &Value, continues: bool) -> Check {
    let messages = body["messages"].as_array().filter(|messages| !messages.is_empty());
    let Some(messages) = messages else {
        return bad("messages: at least one message is required");
    };
    let mut ids = HashSet::new();
    let mut open: Vec<&str> = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        let path = format!("messages.{index}");
        let role = message["role"].as_str().unwrap_or_default();
        if let Some(extra) = message
            .as_object()
            .into_iter()
            .flatten()
            .find(|(key, _)| *key != "role" && *key != "content")
        {
            return bad(format!("{path}.{}: Extra inputs are not permitted", extra.0));
        }
        match role {
            "user" => answers(message, &open, &path)?,
            "assistant" | "system" if !open.is_empty() => return missing_results(&path, &open),
            "assistant" if index == 0 && begins_with_summary(message) => {}
            "assistant" | "system" if index == 0 => return bad("messages: first message must use the \"user\" role"),
            "assistant" | "system" => {}
            other => return bad(format!("{path}.role: {other:?} is not user, assistant or system")),
        }
        open = content(message, role, &path, &mut ids)?;
    }
    if !open.is_empty() {
        return missing_results(&format!("messages.{}", messages.len() - 1), &open);
    }
    if !continues && messages.last().is_some_and(|message| message["role"] == "assistant") {
        return bad(
            "This model does not support assistant message prefill. The conversation must end with a user message.",
        );
    }
    Ok(())
}

/// A summary of the API's own stands in the place of what was said.
fn begins_with_summary(message: &Value) -> bool {
    message["content"][0]["type"] == "compaction"
}

fn missing_results(path: &str, open: &[&str]) -> Check {
    bad(format!(
        "{path}: `tool_use` ids were found without `tool_result` blocks immediately after: {}. Each `tool_use` block \
         must have a corresponding `tool_result` block in the next message.",
        open.join(", ")
    ))
}

/// A user message begins with one result for each open call, in any order, and has no others.
fn answers(message: &Value, open: &[&str], path: &str) -> Check {
    let blocks = message["content"].as_array().map_or(&[][..], Vec::as_slice);
    let is_result = |block: &&Value| block["type"] == "tool_result";
    let leading: Vec<&str> = blocks
        .iter()
        .take_while(is_result)
        .filter_map(|block| block["tool_use_id"].as_str())
        .collect();
    if blocks.iter().filter(is_result).count() != leading.len() {
        return bad(format!(
            "{path}: `tool_result` blocks must come before all other content"
        ));
    }
    if let Some(stray) = leading.iter().find(|id| !open.contains(id)) {
        return bad(format!(
            "{path}: unexpected `tool_use_id` found in `tool_result` blocks: {stray}"
        ));
    }
    if leading.iter().collect::<HashSet<_>>().len() != leading.len() {
        return bad(format!("{path}: each `tool_use` must have a single result"));
    }
    let missing: Vec<&str> = open.iter().copied().filter(|id| !leading.contains(id)).collect();
    if missing.is_empty() {
        Ok(())
    } else {
        missing_results(path, &missing)
    }
}

/// Checks the content of one message, and gives the ids of the calls in it that need an answer.
fn content<'a>(
    message: &'a Value,
    role: &str,
    path: &str,
    ids: &mut HashSet<&'a str>,
) -> Result<Vec<&'a str>, Refusal> {
    let blocks = match &message["content"] {
        Value::String(text) if text.trim().is_empty() => {
            return Err(Refusal::bad(format!("{path}: text content blocks must be non-empty")));
        }
        Value::String(_) => return Ok(Vec::new()),
        Value::Array(blocks) if blocks.is_empty() => {
            return Err(Refusal::bad(format!(
                "{path}: all messages must have non-empty content"
            )));
        }
        Value::Array(blocks) => blocks,
        _ => {
            return Err(Refusal::bad(format!(
                "{path}.content: Input should be a string or a list of blocks"
            )));
        }
    };
    let mut open = Vec::new();
    for (index, block) in blocks.iter().enumerate() {
        let path = format!("{path}.content.{index}");
        match block["type"].as_str() {
            Some("text") => {
                text_block(block, &path)?;
                if role == "user"
                    && block["citations"]
                        .as_array()
                        .is_some_and(|citations| !citations.is_empty())
                {
                    return Err(Refusal::bad(format!("{path}.citations: not allowed on user content")));
                }
            }
            Some("document") if role == "assistant" => {
                return Err(Refusal::bad(format!(
                    "{path}: document blocks are not allowed in assistant messages"
                )));
            }
            Some("tool_use") => {
                let id = block["id"].as_str().unwrap_or_default();
                if role != "assistant" || id.is_empty() || !block["input"].is_object() || !block["name"].is_string() {
                    return Err(Refusal::bad(format!("{path}: malformed `tool_use` block: {block}")));
                }
                if !ids.insert(id) {
                    return Err(Refusal::bad(format!("{path}: `tool_use` ids must be unique")));
                }
                open.push(id);
            }
            Some("tool_result") => tool_result(block, role, &path)?,
            Some("thinking" | "redacted_thinking") if role != "assistant" => {
                return Err(Refusal::bad(format!("{path}: thinking blocks are the assistant's")));
            }
            Some(_) => {}
            None => return Err(Refusal::bad(format!("{path}.type: Field required"))),
        }
    }
    Ok(open)
}

fn text_block(block: &Value, path: &str) -> Check {
    match block["text"].as_str() {
        Some("") => bad(format!("{path}: text content blocks must be non-empty")),
        Some(text) if text.trim().is_empty() => {
            bad(format!("{path}: text content blocks must contain non-whitespace text"))
        }
        Some(_) => Ok(()),
        None => bad(format!("{path}.text: Field required")),
    }
}

fn tool_result(block: &Value, role: &str, path: &str) -> Check {
    if role != "user" || !block["tool_use_id"].is_string() {
        return bad(format!("{path}: malformed `tool_result` block"));
    }
    match block.get("content") {
        None | Some(Value::String(_)) => Ok(()),
        Some(Value::Array(blocks)) => {
            for (index, inner) in blocks.iter().enumerate() {
                match inner["type"].as_str() {
                    Some("text") => text_block(inner, &format!("{path}.content.{index}"))?,
                    _ if block["is_error"] == true => {
                        return bad(format!("{path}: all content must be type `text` if `is_error` is true"));
                    }
                    _ => {}
                }
            }
            Ok(())
        }
        Some(_) => bad(format!("{path}.content: Input should be a string or a list of blocks")),
    }
}

/// Explicit breakpoints anywhere, and the automatic one.
fn cache_breakpoints(value: &Value) -> usize {
    match value {
        // The input of a call and a schema are the user's data, where the word means nothing.
        Value::Object(fields) => fields
            .iter()
            .filter(|(key, _)| *key != "input" && *key != "input_schema")
            .map(|(key, value)| usize::from(key == "cache_control") + cache_breakpoints(value))
            .sum(),
        Value::Array(items) => items.iter().map(cache_breakpoints).sum(),
        _ => 0,
    }
}
