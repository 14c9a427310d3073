//! Spans: what the runner does, from when to when, within what. Each ends when it is dropped, so that whatever ends the
//! work — a failure, a cancellation, a panic — ends its span.

use std::fmt;
use std::future::Future;
use std::time::Instant;

use opentelemetry::trace::{FutureExt, SpanBuilder, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue, Value};

use super::Telemetry;
use super::metrics::seconds;
use super::otlp::Exports;
use plue_redaction::Redactor;

/// The most of a text that an attribute holds, in bytes.
const MAX_TEXT: usize = 256;

/// Why an operation did not succeed: one of a few words.
pub(super) const ERROR_TYPE: &str = "error.type";

/// One operation. Without a collector it is nothing, and costs nothing.
#[must_use = "a span ends when it is dropped"]
pub struct Span(Option<Recorded>);

struct Recorded {
    context: Context,
    exports: &'static Exports,
}

impl Telemetry {
    /// Begins a span within the current one. What it says of itself is only asked for when there is a collector.
    pub(super) fn begin(&self, kind: SpanKind, says: impl FnOnce(&Exports) -> (String, Vec<KeyValue>)) -> Span {
        self.begin_within(|| self.current(), kind, says)
    }

    fn begin_within(
        &self,
        parent: impl FnOnce() -> Option<Context>,
        kind: SpanKind,
        says: impl FnOnce(&Exports) -> (String, Vec<KeyValue>),
    ) -> Span {
        let Some(exports) = self.exports else {
            return Span(None);
        };
        let (name, attributes) = says(exports);
        let builder = SpanBuilder::from_name(name).with_kind(kind).with_attributes(attributes);
        let parent = parent().unwrap_or_default();
        let span = exports.tracer.build_with_context(builder, &parent);
        let context = parent.with_span(span);
        Span(Some(Recorded { context, exports }))
    }

    /// The context of the innermost operation that runs here, else that of the task. `None` without a collector.
    pub(super) fn current(&self) -> Option<Context> {
        self.exports?;
        let here = Context::current();
        if here.has_active_span() {
            return Some(here);
        }
        self.trace.task().clone()
    }

    /// Begins the span of a task.
    pub fn task_span(&self, task_id: &str, request_id: Option<&str>) -> TaskSpan {
        let parent = || Some(self.trace.parent());
        let span = self.begin_within(parent, SpanKind::Consumer, |exports| {
            let mut attributes = vec![KeyValue::new("plue.task.id", exports.text(task_id))];
            attributes.extend(request_id.map(|id| KeyValue::new("plue.request.id", exports.text(id))));
            ("task".into(), attributes)
        });
        if let Some(Recorded { context, .. }) = &span.0 {
            *self.trace.task() = Some(context.clone());
        }
        let started = Instant::now();
        TaskSpan { span, started }
    }

    /// Begins the span of a workflow's step.
    pub fn step_span(&self, index: usize, step: &str) -> Span {
        self.begin(SpanKind::Internal, |exports| {
            let index = i64::try_from(index).unwrap_or(i64::MAX);
            let attributes = vec![
                KeyValue::new("plue.step.index", index),
                KeyValue::new("plue.step.name", exports.text(step)),
            ];
            (exports.name("step", step), attributes)
        })
    }
}

impl Span {
    /// Where it goes; `None` without a collector.
    pub(super) fn exports(&self) -> Option<&'static Exports> {
        self.0.as_ref().map(|recorded| recorded.exports)
    }

    /// Adds what became known.
    pub(super) fn say(&self, attributes: impl FnOnce(&Exports) -> Vec<KeyValue>) {
        if let Some(Recorded { context, exports }) = &self.0 {
            context.span().set_attributes(attributes(exports));
        }
    }

    /// The operation did not succeed. `error_type` is one of a few words: what exactly went wrong may be anybody's
    /// text.
    pub fn fail(&self, error_type: &str) {
        if let Some(Recorded { context, exports }) = &self.0 {
            let span = context.span();
            span.set_attribute(KeyValue::new(ERROR_TYPE, exports.text(error_type)));
            span.set_status(Status::error(""));
        }
    }

    /// The exit code of the command that the operation ran.
    pub fn exit_code(&self, code: Option<i32>) {
        if let Some(code) = code {
            self.say(|_| vec![KeyValue::new("process.exit.code", i64::from(code))]);
        }
    }

    /// Runs a future as part of this operation.
    pub async fn within<F: Future>(&self, future: F) -> F::Output {
        match &self.0 {
            Some(Recorded { context, .. }) => future.with_context(context.clone()).await,
            None => future.await,
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(Recorded { context, .. }) = &self.0 {
            context.span().end();
        }
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let context = self.0.as_ref().map(|recorded| &recorded.context);
        formatter.debug_tuple("Span").field(&context).finish()
    }
}

impl Exports {
    /// A text as an attribute.
    pub(super) fn text(&self, value: &str) -> Value {
        text(value, self.redactor)
    }

    /// A name for a span: `operation what`.
    pub(super) fn name(&self, operation: &str, what: &str) -> String {
        name(operation, what, self.redactor)
    }
}

/// A text as an attribute: without secrets, and not longer than an attribute may be.
pub(super) fn text(text: &str, redactor: &Redactor) -> Value {
    bounded(text, redactor).into()
}

fn bounded(text: &str, redactor: &Redactor) -> String {
    // Masked first: a secret that is cut is not found.
    let (mut masked, _) = redactor.redact(text.to_owned());
    if masked.len() > MAX_TEXT {
        masked.truncate(masked.floor_char_boundary(MAX_TEXT));
    }
    masked
}

fn name(operation: &str, what: &str, redactor: &Redactor) -> String {
    format!("{operation} {}", bounded(what, redactor))
}

/// The span of a whole task, in the trace that `TRACEPARENT` names. It is the parent of all others, and goes with every
/// event, until the next task begins.
#[must_use = "a span ends when it is dropped"]
#[derive(Debug)]
pub struct TaskSpan {
    span: Span,
    started: Instant,
}

impl TaskSpan {
    /// Runs a future as part of the task.
    pub async fn within<F: Future>(&self, future: F) -> F::Output {
        self.span.within(future).await
    }

    /// Ends it; `error` is the code of its `error` event.
    pub fn end(self, error: Option<&str>) {
        let Some(exports) = self.span.exports() else { return };
        if let Some(code) = error {
            self.span.fail(code);
        }
        let outcome = KeyValue::new("plue.task.outcome", exports.text(error.unwrap_or("success")));
        exports.metrics.task_duration.record(seconds(self.started), &[outcome]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let nothing = Redactor::default();
        let long = "é".repeat(MAX_TEXT);
        assert_eq!(bounded(&long, &nothing).len(), MAX_TEXT);
        assert_eq!(bounded(&format!("a{long}"), &nothing).len(), MAX_TEXT - 1);
        assert_eq!(name("step", "build", &nothing), "step build");
    }

    #[test]
    fn no_name_and_no_attribute_has_a_secret_also_where_it_would_be_cut() {
        let redactor = Redactor::new(["hunter2hunter2"]);
        assert_eq!(name("step", "use hunter2hunter2", &redactor), "step use ***");
        let cut = format!("{}hunter2hunter2", "a".repeat(MAX_TEXT - 5));
        assert_eq!(bounded(&cut, &redactor), format!("{}***", "a".repeat(MAX_TEXT - 5)));
    }

    #[tokio::test]
    async fn without_a_collector_a_span_is_nothing() {
        let telemetry = Telemetry::default();
        let span = telemetry.step_span(0, "build");
        assert!(span.0.is_none());
        assert_eq!(span.within(async { 7 }).await, 7);
        span.fail("step_failed");
        telemetry.task_span("7", None).end(None);
        assert!(telemetry.traceparent().is_none());
    }
}
