//! The trace that the task belongs to (W3C trace context): taken from `TRACEPARENT`, carried on with every request.

use std::sync::{Mutex, OnceLock, PoisonError};

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::TraceContextExt;
use opentelemetry::{Context, SpanId, TraceFlags, TraceId, trace};
use opentelemetry_sdk::propagation::TraceContextPropagator;

use super::span;

/// The header that carries it.
pub const TRACEPARENT: &str = "traceparent";

/// What came in `TRACEPARENT`, when it is one.
static PARENT: OnceLock<String> = OnceLock::new();

/// The trace of the task that another process runs for this one, which tells of it.
static CARRIED: Mutex<Option<String>> = Mutex::new(None);

/// Says in whose trace the requests of this process stand from now on; `None`: in none but what came in `TRACEPARENT`.
pub fn carry(traceparent: Option<String>) {
    *CARRIED.lock().unwrap_or_else(PoisonError::into_inner) = traceparent;
}

/// Says, once, in whose trace this process stands. One that is malformed is warned of and forgotten: what others trace
/// must not keep a task from running.
pub fn set_parent(traceparent: Option<String>) {
    let Some(text) = traceparent else { return };
    if parse(&text).is_none() {
        tracing::warn!(
            traceparent = text,
            "TRACEPARENT is malformed and ignored (example: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01)"
        );
        return;
    }
    let _ = PARENT.set(text);
}

/// The value of the header `traceparent` for a request: the current span's when there is one, else the task's, else what
/// came in `TRACEPARENT`.
pub fn trace_context() -> Option<String> {
    match span::current() {
        Some(context) => {
            let mut carrier = std::collections::HashMap::new();
            TraceContextPropagator::new().inject_context(&context, &mut carrier);
            carrier.remove(TRACEPARENT)
        }
        None => {
            let carried = CARRIED.lock().unwrap_or_else(PoisonError::into_inner).clone();
            carried.or_else(|| PARENT.get().cloned())
        }
    }
}

/// The context in which the task's span begins.
pub(super) fn parent() -> Context {
    match PARENT.get().and_then(|text| parse(text)) {
        Some(span) => Context::new().with_remote_span_context(span),
        None => Context::new(),
    }
}

/// Reads `version-trace-parent-flags`: hexadecimal, lower case, of exact lengths, and no id of zeros. A later version may
/// have more parts behind these four.
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
