//! What the runner tells of itself: the log on standard output, and traces and metrics when there is a collector.
//!
//! Without `OTEL_EXPORTER_OTLP_ENDPOINT` nothing of OpenTelemetry is made: a [`Span`] is then an empty `Option`, and each
//! function here returns after looking at one static.

mod filter;
mod genai;
mod log;
mod metrics;
mod otlp;
mod span;
mod trace_context;
mod writer;

pub use filter::{LogFilter, LogLevel};
pub use genai::{Answer, ChatSpan, Tokens, agent_span, chat_span, tool_span};
pub use log::{init, rfc3339, set_identity};
pub use otlp::{OtlpConfig, export, shutdown};
pub use span::{Span, TaskSpan, step_span, task_span};
pub use trace_context::{TRACEPARENT, carry, set_parent, trace_context};
pub use writer::flush;
