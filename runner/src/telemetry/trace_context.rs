//! The trace that the task belongs to (W3C trace context): taken from `TRACEPARENT`, carried on with every request.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::TraceContextExt;
use opentelemetry::{Context, SpanId, TraceFlags, TraceId, trace};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use reqwest::header::HeaderValue;

use super::Telemetry;

/// The header that carries it.
pub const TRACEPARENT: &str = "traceparent";

/// Gives the value of the header `traceparent` for the request that is about to be sent; `None`: it belongs to no
/// trace.
pub type TraceSource = Arc<dyn Fn() -> Option<HeaderValue> + Send + Sync>;

/// Where a process stands between traces. Its parts lie in the order in which a request asks for them.
#[derive(Debug, Default)]
pub(super) struct Trace {
    /// The span of the task that runs here. What is done for it elsewhere, such as its delivery, belongs to it.
    task: Mutex<Option<Context>>,
    /// The trace of the task that another process runs for this one, which tells of it.
    carried: Mutex<Option<String>>,
    /// What came in `TRACEPARENT`, when it is one.
    parent: Option<String>,
}

impl Trace {
    /// In the trace that `TRACEPARENT` names. One that is malformed is warned of and forgotten: what others trace must
    /// not keep a task from running.
    pub(super) fn within(traceparent: Option<String>) -> Self {
        let parent = traceparent.filter(|text| {
            let is_one = parse(text).is_some();
            if !is_one {
                tracing::warn!(
                    traceparent = text,
                    "TRACEPARENT is malformed and ignored (example: \
                     00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01)"
                );
            }
            is_one
        });
        Self {
            parent,
            ..Self::default()
        }
    }

    /// The context in which the task's span begins.
    pub(super) fn parent(&self) -> Context {
        match self.parent.as_deref().and_then(parse) {
            Some(span) => Context::new().with_remote_span_context(span),
            None => Context::new(),
        }
    }

    /// The span of the task, once it has begun.
    pub(super) fn task(&self) -> MutexGuard<'_, Option<Context>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn carried(&self) -> MutexGuard<'_, Option<String>> {
        self.carried.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Telemetry {
    /// The value of the header `traceparent` for a request: the current span's when there is one, else the task's, else
    /// what came in `TRACEPARENT`.
    pub fn traceparent(&self) -> Option<String> {
        match self.current() {
            Some(context) => {
                let mut carrier = std::collections::HashMap::new();
                TraceContextPropagator::new().inject_context(&context, &mut carrier);
                carrier.remove(TRACEPARENT)
            }
            None => {
                let carried = self.trace.carried().clone();
                carried.or_else(|| self.trace.parent.clone())
            }
        }
    }

    /// The same for a client, which asks with each request.
    pub fn trace_source(&self) -> TraceSource {
        let telemetry = self.clone();
        Arc::new(move || HeaderValue::try_from(telemetry.traceparent()?).ok())
    }

    /// What has the requests of this process stand in the trace of a task that another process runs for it.
    pub fn carry(&self) -> CarriedTrace {
        CarriedTrace(Arc::clone(&self.trace))
    }
}

/// The trace of one task that another process runs. When it is dropped, the task is over, and what is sent then stands
/// in none but what came in `TRACEPARENT`.
#[must_use = "the trace is carried no longer than this lives"]
#[derive(Debug)]
pub struct CarriedTrace(Arc<Trace>);

impl CarriedTrace {
    /// Says in which trace the task stands, as soon as its process has told.
    pub fn set(&self, traceparent: String) {
        *self.0.carried() = Some(traceparent);
    }
}

impl Drop for CarriedTrace {
    fn drop(&mut self) {
        *self.0.carried() = None;
    }
}

/// Reads `version-trace-parent-flags`: hexadecimal, lower case, of exact lengths, and no id of zeros. A later version
/// may have more parts behind these four. `TraceContextPropagator` reads it, too, and takes ids of any length, with a
/// sign.
fn parse(text: &str) -> Option<trace::SpanContext> {
    let mut parts = text.split('-');
    let mut hex = |length: usize| {
        let part = parts.next()?;
        let is_hex = part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (part.len() == length && is_hex).then_some(part)
    };
    let version = hex(2)?;
    let trace_id = TraceId::from_hex(hex(32)?).ok()?;
    let span_id = SpanId::from_hex(hex(16)?).ok()?;
    let flags = u8::from_str_radix(hex(2)?, 16).ok()?;
    if version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    // It goes into a header, as it came.
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let flags = TraceFlags::new(flags) & TraceFlags::SAMPLED;
    let context = trace::SpanContext::new(trace_id, span_id, flags, true, trace::TraceState::default());
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const OTHER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn asked(source: &TraceSource) -> Option<String> {
        source().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    }

    #[test]
    fn a_request_stands_in_the_trace_that_is_carried_as_long_as_it_is_and_else_in_that_of_the_process() {
        let telemetry = Telemetry::new(Some(PARENT.into()));
        let source = telemetry.trace_source();
        assert_eq!(asked(&source).as_deref(), Some(PARENT));
        let carried = telemetry.carry();
        assert_eq!(asked(&source).as_deref(), Some(PARENT), "its process has not told yet");
        carried.set(OTHER.into());
        assert_eq!(asked(&source).as_deref(), Some(OTHER));
        drop(carried);
        assert_eq!(asked(&source).as_deref(), Some(PARENT));
        // Two processes in one, as in a test, do not stand in each other's.
        assert_eq!(asked(&Telemetry::default().trace_source()), None);
    }

    #[test]
    fn what_cannot_be_a_header_goes_with_no_request() {
        assert_eq!(asked(&Telemetry::new(Some("00-xyz".into())).trace_source()), None);
        let telemetry = Telemetry::default();
        let carried = telemetry.carry();
        carried.set("a\nb".into());
        assert_eq!(asked(&telemetry.trace_source()), None);
    }

    #[test]
    fn only_what_has_the_form_of_the_specification_is_a_traceparent() {
        const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
        const SPAN: &str = "00f067aa0ba902b7";
        let zeros = "0".repeat(32);
        let good = |text: String| assert!(parse(&text).is_some(), "{text}");
        let bad = |text: String| assert!(parse(&text).is_none(), "{text}");
        good(format!("00-{TRACE}-{SPAN}-01"));
        good(format!("00-{TRACE}-{SPAN}-00"));
        good(format!("01-{TRACE}-{SPAN}-01-more"));
        bad(String::new());
        bad(format!("00-{TRACE}-{SPAN}"));
        bad(format!("00-{TRACE}-{SPAN}-01-more"));
        bad(format!("ff-{TRACE}-{SPAN}-01"));
        bad(format!("00-{zeros}-{SPAN}-01"));
        bad(format!("00-{TRACE}-{}-01", &zeros[..16]));
        bad(format!("00-{}-{SPAN}-01", TRACE.to_uppercase()));
        bad(format!("00-{TRACE}-{SPAN}-1"));
        bad(format!("0-{TRACE}-{SPAN}-01"));
        bad(format!(" 00-{TRACE}-{SPAN}-01"));
        bad(format!("01-{TRACE}-{SPAN}-01-a\nb"));
    }

    #[test]
    fn flags_that_are_not_sampled_stay_so() {
        let sampled =
            |flags| parse(&format!("00-{}-{}-{flags}", "1".repeat(32), "2".repeat(16))).map(|it| it.is_sampled());
        assert_eq!(
            (sampled("00"), sampled("01"), sampled("02")),
            (Some(false), Some(true), Some(false))
        );
    }
}
