//! What the runner tells of itself: the log on standard output, and traces and metrics when there is a collector.
//!
//! The log is the process's. All else is a value that is handed down, [`Telemetry`]: without
//! `OTEL_EXPORTER_OTLP_ENDPOINT` nothing of OpenTelemetry is made, a [`span::Span`] is an empty `Option`, and each
//! function here returns after looking at one field.

use std::fmt;
use std::sync::Arc;

mod filter;
mod genai;
mod log;
mod metrics;
mod otlp;
mod span;
mod trace_context;
mod writer;

pub use filter::LogFilter;
pub use genai::{Answer, Tokens};
pub use log::{init, rfc3339, set_identity};
pub use metrics::EventCount;
pub use otlp::OtlpConfig;
pub use trace_context::{CarriedTrace, TRACEPARENT, TraceSource};
pub use writer::flush;

use otlp::Exports;
use plue_redaction::Redactor;
use trace_context::Trace;

/// The trace that a process stands in, and its own spans and metrics when they are exported. Cheap to clone.
#[derive(Clone, Default)]
pub struct Telemetry {
    trace: Arc<Trace>,
    /// For the life of the process: the threads of the library live as long, and dropping it would wait for the
    /// collector.
    exports: Option<&'static Exports>,
}

impl Telemetry {
    /// In the trace that `TRACEPARENT` names, which may be malformed. Nothing is exported.
    pub fn new(traceparent: Option<String>) -> Self {
        Self {
            trace: Arc::new(Trace::within(traceparent)),
            exports: None,
        }
    }

    /// Has traces and metrics exported from now on, once per process; `redactor` takes secrets out of what they say. To
    /// be called within a runtime, and before anybody has a clone.
    ///
    /// What cannot be set up is one warning: a task runs without being traced.
    pub fn exporting(mut self, config: &OtlpConfig, request_id: Option<&str>, redactor: &'static Redactor) -> Self {
        match Exports::set_up(config, request_id, redactor) {
            Ok(exports) => self.exports = Some(Box::leak(Box::new(exports))),
            Err(error) => tracing::warn!(error = %error, "traces and metrics are not exported"),
        }
        self
    }

    /// Exports with the headers and by the way of this configuration from now on, when anything is exported.
    pub fn renew(&self, config: &OtlpConfig, request_id: Option<&str>) {
        if let Some(exports) = self.exports {
            exports.renew(config, request_id);
        }
    }

    /// Sends what is left, for as long as that may take: in a hurry it is little. What went wrong until then is one
    /// warning.
    pub async fn shutdown(&self, in_a_hurry: bool) {
        if let Some(exports) = self.exports {
            exports.shutdown(in_a_hurry).await;
        }
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Telemetry")
            .field("trace", &self.trace)
            .field("exports", &self.exports.is_some())
            .finish()
    }
}
