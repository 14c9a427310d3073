//! The agent's spans and metrics, by the semantic conventions of OpenTelemetry for generative AI (development status, as
//! published with the semantic conventions 1.41). What the model is asked and answers, and what tools are given and give,
//! is in none of them: it belongs to the task.

use std::time::Instant;

use opentelemetry::trace::SpanKind;
use opentelemetry::{Array, KeyValue, StringValue, Value};

use super::metrics::seconds;
use super::otlp;
use super::span::{ERROR_TYPE, Span, name, text};

const OPERATION: &str = "gen_ai.operation.name";
const PROVIDER: &str = "gen_ai.provider.name";
const REQUEST_MODEL: &str = "gen_ai.request.model";
const RESPONSE_MODEL: &str = "gen_ai.response.model";
const TOKEN_TYPE: &str = "gen_ai.token.type";
const ANTHROPIC: &str = "anthropic";

/// Tokens as the API counts them: those of the cache apart.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tokens {
    pub input: u64,
    pub output: u64,
    pub cache_read: u64,
    pub cache_written: u64,
}

impl Tokens {
    /// All that went in: the conventions want those of the cache in the sum.
    fn all_input(self) -> u64 {
        self.input
            .saturating_add(self.cache_read)
            .saturating_add(self.cache_written)
    }

    fn attributes(self) -> [KeyValue; 4] {
        let count = |name: &'static str, tokens: u64| KeyValue::new(name, i64::try_from(tokens).unwrap_or(i64::MAX));
        [
            count("gen_ai.usage.input_tokens", self.all_input()),
            count("gen_ai.usage.output_tokens", self.output),
            count("gen_ai.usage.cache_read.input_tokens", self.cache_read),
            count("gen_ai.usage.cache_creation.input_tokens", self.cache_written),
        ]
    }
}

/// What a model answered, without its words.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// The model that served.
    pub model: &'a str,
    /// The answer's id.
    pub id: Option<&'a str>,
    /// Why it stopped, as the API names it.
    pub finish_reason: &'a str,
    pub tokens: Tokens,
}

/// Begins the span of an agent task.
pub fn agent_span(model: &str) -> Span {
    Span::begin(SpanKind::Internal, || {
        ("invoke_agent".into(), asked("invoke_agent", model))
    })
}

/// Begins the span of a tool call.
pub fn tool_span(tool: &str, call_id: &str) -> Span {
    Span::begin(SpanKind::Internal, || {
        let attributes = vec![
            KeyValue::new(OPERATION, "execute_tool"),
            KeyValue::new("gen_ai.tool.name", text(tool)),
            KeyValue::new("gen_ai.tool.call.id", text(call_id)),
            KeyValue::new("gen_ai.tool.type", "function"),
        ];
        (name("execute_tool", tool), attributes)
    })
}

/// The span of one model turn: the request, all its attempts, and the answer to its end.
#[must_use = "a span ends when it is dropped"]
#[derive(Debug)]
pub struct ChatSpan {
    span: Span,
    started: Instant,
}

/// Begins the span of a model turn.
pub fn chat_span(model: &str, max_tokens: u32) -> ChatSpan {
    let span = Span::begin(SpanKind::Client, || {
        let mut attributes = asked("chat", model);
        attributes.push(KeyValue::new("gen_ai.request.max_tokens", i64::from(max_tokens)));
        attributes.push(KeyValue::new("gen_ai.request.stream", true));
        (name("chat", model), attributes)
    });
    let started = Instant::now();
    ChatSpan { span, started }
}

impl ChatSpan {
    /// The operation itself.
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// Ends it, with what came of it: the answer, or the code of the failure.
    pub fn end(self, model: &str, outcome: Result<Answer<'_>, &str>) {
        let Some(exports) = otlp::exports() else { return };
        let mut dimensions = asked("chat", model);
        match outcome {
            Ok(answer) => {
                self.span.say(|| answered(&answer));
                dimensions.push(KeyValue::new(RESPONSE_MODEL, text(answer.model)));
                let tokens = [("input", answer.tokens.all_input()), ("output", answer.tokens.output)];
                for (kind, tokens) in tokens {
                    let mut dimensions = dimensions.clone();
                    dimensions.push(KeyValue::new(TOKEN_TYPE, kind));
                    exports.metrics.token_usage.record(tokens, &dimensions);
                }
            }
            Err(code) => {
                self.span.fail(code);
                dimensions.push(KeyValue::new(ERROR_TYPE, text(code)));
            }
        }
        let duration = &exports.metrics.operation_duration;
        duration.record(seconds(self.started), &dimensions);
    }
}

impl Span {
    /// What all model turns of the operation used together.
    pub fn used(&self, tokens: Tokens) {
        self.say(|| tokens.attributes().into());
    }
}

fn asked(operation: &'static str, model: &str) -> Vec<KeyValue> {
    vec![
        KeyValue::new(OPERATION, operation),
        KeyValue::new(PROVIDER, ANTHROPIC),
        KeyValue::new(REQUEST_MODEL, text(model)),
    ]
}

fn answered(answer: &Answer<'_>) -> Vec<KeyValue> {
    let reasons = vec![StringValue::from(text(answer.finish_reason).to_string())];
    let mut attributes = vec![
        KeyValue::new(RESPONSE_MODEL, text(answer.model)),
        KeyValue::new("gen_ai.response.finish_reasons", Value::Array(Array::String(reasons))),
    ];
    attributes.extend(answer.id.map(|id| KeyValue::new("gen_ai.response.id", text(id))));
    attributes.extend(answer.tokens.attributes());
    attributes
}
