//! Spans: what the runner does, from when to when, within what. Each ends when it is dropped, so that whatever ends the
//! work — a failure, a cancellation, a panic — ends its span.

use std::borrow::Cow;
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use opentelemetry::trace::{FutureExt, SpanBuilder, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue, Value};

use super::metrics::seconds;
use super::{otlp, trace_context};

/// The most of a text that an attribute holds, in bytes.
const MAX_TEXT: usize = 256;

/// Why an operation did not succeed: one of a few words.
pub(super) const ERROR_TYPE: &str = "error.type";

/// The span of the task that runs in this process. What is done for it elsewhere, such as its delivery, belongs to it.
static TASK: Mutex<Option<Context>> = Mutex::new(None);

/// One operation. Without a collector it is nothing, and costs nothing.
#[must_use = "a span ends when it is dropped"]
#[derive(Debug)]
pub struct Span(Option<Context>);

impl Span {
    /// Begins one within the current span. What it says of itself is only asked for when there is a collector.
    pub(super) fn begin(kind: SpanKind, says: impl FnOnce() -> (String, Vec<KeyValue>)) -> Self {
        Self::within_context(current, kind, says)
    }

    fn within_context(
        parent: impl FnOnce() -> Option<Context>,
        kind: SpanKind,
        says: impl FnOnce() -> (String, Vec<KeyValue>),
    ) -> Self {
        let Some(exports) = otlp::exports() else {
            return Self(None);
        };
        let (name, attributes) = says();
        let builder = SpanBuilder::from_name(name).with_kind(kind).with_attributes(attributes);
        let parent = parent().unwrap_or_default();
        let span = exports.tracer.build_with_context(builder, &parent);
        Self(Some(parent.with_span(span)))
    }

    /// Adds what became known.
    pub(super) fn say(&self, attributes: impl FnOnce() -> Vec<KeyValue>) {
        if let Some(context) = &self.0 {
            context.span().set_attributes(attributes());
        }
    }

    /// The operation did not succeed. `error_type` is one of a few words: what exactly went wrong may be anybody's text.
    pub fn fail(&self, error_type: &str) {
        if let Some(context) = &self.0 {
            let span = context.span();
            span.set_attribute(KeyValue::new(ERROR_TYPE, text(error_type)));
            span.set_status(Status::error(""));
        }
    }

    /// Runs a future as part of this operation.
    pub async fn within<F: Future>(&self, future: F) -> F::Output {
        match &self.0 {
            Some(context) => future.with_context(context.clone()).await,
            None => future.await,
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(context) = &self.0 {
            context.span().end();
        }
    }
}

/// The context of the innermost operation that runs here, else that of the task. `None` without a collector.
pub(super) fn current() -> Option<Context> {
    otlp::exports()?;
    let here = Context::current();
    if here.has_active_span() {
        return Some(here);
    }
    TASK.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// A text as an attribute: without secrets, and not longer than an attribute may be.
pub(super) fn text(text: &str) -> Value {
    bounded(text).into_owned().into()
}

fn bounded(text: &str) -> Cow<'_, str> {
    // Masked first: a secret that is cut is not found.
    let (mut masked, _) = plue_redaction::current().redact(text.to_owned());
    if masked.len() > MAX_TEXT {
        masked.truncate(masked.floor_char_boundary(MAX_TEXT));
    }
    masked.into()
}

/// A name for a span: `operation what`.
pub(super) fn name(operation: &str, what: &str) -> String {
    format!("{operation} {}", bounded(what))
}

/// The span of a whole task, in the trace that `TRACEPARENT` names. It is the parent of all others, and goes with every
/// event, until the next task begins.
#[must_use = "a span ends when it is dropped"]
#[derive(Debug)]
pub struct TaskSpan {
    span: Span,
    started: Instant,
}

/// Begins the span of a task.
pub fn task_span(task_id: &str, request_id: Option<&str>) -> TaskSpan {
    let parent = || Some(trace_context::parent());
    let span = Span::within_context(parent, SpanKind::Consumer, || {
        let mut attributes = vec![KeyValue::new("plue.task.id", text(task_id))];
        attributes.extend(request_id.map(|id| KeyValue::new("plue.request.id", text(id))));
        ("task".into(), attributes)
    });
    if span.0.is_some() {
        *TASK.lock().unwrap_or_else(PoisonError::into_inner) = span.0.clone();
    }
    let started = Instant::now();
    TaskSpan { span, started }
}

impl TaskSpan {
    /// Runs a future as part of the task.
    pub async fn within<F: Future>(&self, future: F) -> F::Output {
        self.span.within(future).await
    }

    /// Ends it; `error` is the code of its `error` event.
    pub fn end(self, error: Option<&str>) {
        let Some(exports) = otlp::exports() else { return };
        if let Some(code) = error {
            self.span.fail(code);
        }
        let outcome = KeyValue::new("plue.task.outcome", text(error.unwrap_or("success")));
        exports.metrics.task_duration.record(seconds(self.started), &[outcome]);
    }
}

/// Begins the span of a workflow's step.
pub fn step_span(index: usize, step: &str) -> Span {
    Span::begin(SpanKind::Internal, || {
        let index = i64::try_from(index).unwrap_or(i64::MAX);
        let attributes = vec![
            KeyValue::new("plue.step.index", index),
            KeyValue::new("plue.step.name", text(step)),
        ];
        (name("step", step), attributes)
    })
}

impl Span {
    /// The exit code of the command that the operation ran.
    pub fn exit_code(&self, code: Option<i32>) {
        if let Some(code) = code {
            self.say(|| vec![KeyValue::new("process.exit.code", i64::from(code))]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let long = "é".repeat(MAX_TEXT);
        assert_eq!(bounded(&long).len(), MAX_TEXT);
        assert_eq!(bounded(&format!("a{long}")).len(), MAX_TEXT - 1);
        assert_eq!(name("step", "build"), "step build");
    }

    #[tokio::test]
    async fn without_a_collector_a_span_is_nothing() {
        let span = step_span(0, "build");
        assert!(span.0.is_none());
        assert_eq!(span.within(async { 7 }).await, 7);
        span.fail("step_failed");
        task_span("7", None).end(None);
        assert!(trace_context().is_none());
    }
}
