//! The agent's spans and metrics, by the semantic conventions of OpenTelemetry for generative AI (development status,
//! as published with the semantic conventions 1.41). What the model is asked and answers, and what tools are given and
//! give, is in none of them: it belongs to the task.

use std::time::Instant;

use opentelemetry::trace::SpanKind;
use opentelemetry::{Array, KeyValue, StringValue, Value};

use super::Telemetry;
use super::metrics::seconds;
use super::otlp::Exports;
use super::span::{ERROR_TYPE, Span};

const OPERATION: &str = "gen_ai.operation.name";
const PROVIDER: &str = "gen_ai.provider.name";
const REQUEST_MODEL: &str = "gen_ai.request.model";
const RESPONSE_MODEL: &str = "gen_ai.response.model";
const TOKEN_TYPE: &str = "gen_ai.token.type";
const ANTHROPIC: &str = "anthropic";

/// Tokens as the API counts them: those of the cache apart. What it did not tell is not there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tokens {
    pub input: Option<u64>,
    pub output: Option<u64>,
    pub cache_read: Option<u64>,
    pub cache_written: Option<u64>,
}

impl Tokens {
    /// All that went in: the conventions want those of the cache in the sum.
    fn all_input(self) -> Option<u64> {
        let cached = self.cache_read?.saturating_add(self.cache_written?);
        Some(self.input?.saturating_add(cached))
    }

    fn attributes(self) -> impl Iterator<Item = KeyValue> {
        let count = |(name, tokens): (&'static str, Option<u64>)| {
            Some(KeyValue::new(name, i64::try_from(tokens?).unwrap_or(i64::MAX)))
        };
        [
            ("gen_ai.usage.input_tokens", self.all_input()),
            ("gen_ai.usage.output_tokens", self.output),
            ("gen_ai.usage.cache_read.input_tokens", self.cache_read),
            ("gen_ai.usage.cache_creation.input_tokens", self.cache_written),
        ]
        .into_iter()
        .filter_map(count)
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

/// The span of one model turn: the request, all its attempts, and the answer to its end.
#[must_use = "a span ends when it is dropped"]
#[derive(Debug)]
pub struct ChatSpan {
    span: Span,
    started: Instant,
}

impl Telemetry {
    /// Begins the span of an agent task.
    pub fn agent_span(&self, model: &str) -> Span {
        self.begin(SpanKind::Internal, |exports| {
            ("invoke_agent".into(), asked("invoke_agent", model, exports))
        })
    }

    /// Begins the span of a tool call.
    pub fn tool_span(&self, tool: &str, call_id: &str) -> Span {
        self.begin(SpanKind::Internal, |exports| {
            let attributes = vec![
                KeyValue::new(OPERATION, "execute_tool"),
                KeyValue::new("gen_ai.tool.name", exports.text(tool)),
                KeyValue::new("gen_ai.tool.call.id", exports.text(call_id)),
                KeyValue::new("gen_ai.tool.type", "function"),
            ];
            (exports.name("execute_tool", tool), attributes)
        })
    }

    /// Begins the span of a model turn.
    pub fn chat_span(&self, model: &str, max_tokens: u32) -> ChatSpan {
        let span = self.begin(SpanKind::Client, |exports| {
            let mut attributes = asked("chat", model, exports);
            attributes.push(KeyValue::new("gen_ai.request.max_tokens", i64::from(max_tokens)));
            attributes.push(KeyValue::new("gen_ai.request.stream", true));
            (exports.name("chat", model), attributes)
        });
        let started = Instant::now();
        ChatSpan { span, started }
    }
}

impl ChatSpan {
    /// The operation itself.
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// Ends it, with what came of it: the answer, or the code of the failure.
    pub fn end(self, model: &str, outcome: Result<Answer<'_>, &str>) {
        let Some(exports) = self.span.exports() else { return };
        let mut dimensions = asked("chat", model, exports);
        match outcome {
            Ok(answer) => {
                self.span.say(|exports| answered(&answer, exports));
                dimensions.push(KeyValue::new(RESPONSE_MODEL, exports.text(answer.model)));
                let tokens = [("input", answer.tokens.all_input()), ("output", answer.tokens.output)];
                for (kind, tokens) in tokens {
                    let Some(tokens) = tokens else { continue };
                    let mut dimensions = dimensions.clone();
                    dimensions.push(KeyValue::new(TOKEN_TYPE, kind));
                    exports.metrics.token_usage.record(tokens, &dimensions);
                }
            }
            Err(code) => {
                self.span.fail(code);
                dimensions.push(KeyValue::new(ERROR_TYPE, exports.text(code)));
            }
        }
        let duration = &exports.metrics.operation_duration;
        duration.record(seconds(self.started), &dimensions);
    }
}

impl Span {
    /// What all model turns of the operation used together.
    pub fn used(&self, tokens: Tokens) {
        self.say(|_| tokens.attributes().collect());
    }
}

fn asked(operation: &'static str, model: &str, exports: &Exports) -> Vec<KeyValue> {
    vec![
        KeyValue::new(OPERATION, operation),
        KeyValue::new(PROVIDER, ANTHROPIC),
        KeyValue::new(REQUEST_MODEL, exports.text(model)),
    ]
}

fn answered(answer: &Answer<'_>, exports: &Exports) -> Vec<KeyValue> {
    let reasons = vec![StringValue::from(exports.text(answer.finish_reason).to_string())];
    let mut attributes = vec![
        KeyValue::new(RESPONSE_MODEL, exports.text(answer.model)),
        KeyValue::new("gen_ai.response.finish_reasons", Value::Array(Array::String(reasons))),
    ];
    attributes.extend(
        answer
            .id
            .map(|id| KeyValue::new("gen_ai.response.id", exports.text(id))),
    );
    attributes.extend(answer.tokens.attributes());
    attributes
}
