//! One request to the Messages API, as the script reads it.

use std::time::Instant;

use axum::http::HeaderMap;
use serde_json::Value;

/// A request that passed every check.
#[derive(Clone, Debug)]
pub struct Request {
    pub headers: HeaderMap,
    pub body: Value,
    /// How many requests came before this one, refused ones not counted.
    pub index: usize,
    pub at: Instant,
}

/// What the client answers to one tool call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolResult {
    pub id: String,
    pub text: String,
    pub is_error: bool,
}

impl Request {
    pub fn messages(&self) -> &[Value] {
        self.body["messages"].as_array().map_or(&[], Vec::as_slice)
    }

    /// The names of the tools that are offered.
    pub fn tools(&self) -> Vec<&str> {
        let tools = self.body["tools"].as_array().map_or(&[][..], Vec::as_slice);
        tools.iter().filter_map(|tool| tool["name"].as_str()).collect()
    }

    /// The tool results of the last message, in order.
    pub fn results(&self) -> Vec<ToolResult> {
        let blocks = self.messages().last().and_then(|message| message["content"].as_array());
        let results = blocks
            .into_iter()
            .flatten()
            .filter(|block| block["type"] == "tool_result");
        results
            .map(|block| ToolResult {
                id: block["tool_use_id"].as_str().unwrap_or_default().to_owned(),
                text: text_of(&block["content"]),
                is_error: block["is_error"] == true,
            })
            .collect()
    }

    /// The result of this call in the last message, or why there is none to work with.
    pub fn success(&self, id: &str) -> Result<String, String> {
        match self.results().into_iter().find(|result| result.id == id) {
            Some(result) if result.is_error => Err(format!("call {id} failed: {}", result.text)),
            Some(result) => Ok(result.text),
            None => Err(format!("the result of call {id} is missing")),
        }
    }

    /// The header with the key: its name, and its value.
    pub fn auth(&self) -> Option<(&'static str, String)> {
        ["x-api-key", "authorization"].into_iter().find_map(|name| {
            let value = self.headers.get(name)?;
            Some((name, String::from_utf8_lossy(value.as_bytes()).into_owned()))
        })
    }
}

/// The text of a content that is a string or a list of blocks.
pub(super) fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => blocks.iter().filter_map(|block| block["text"].as_str()).collect(),
        _ => String::new(),
    }
}
