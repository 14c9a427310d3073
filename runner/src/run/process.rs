//! What a process has once, and hands to everything that it does.

use super::Signals;
use crate::config::{Config, ConfigError};
use crate::telemetry::Telemetry;
use plue_redaction::Redactor;

/// What a process has once. It is handed down in place of being global, so that whoever depends on it says so, and a
/// test can give its own.
#[derive(Clone)]
pub struct Process {
    /// What it is told from outside.
    pub signals: Signals,
    /// What it must not tell. For its whole life, since live output of a tool that was given up may come as late.
    pub redactor: &'static Redactor,
    /// The trace that it stands in, and what it exports.
    pub telemetry: Telemetry,
    /// Reads the environment, and the files that it names.
    pub read_config: fn(&'static Redactor) -> Result<Config, ConfigError>,
}

impl Process {
    /// The configuration as it is now: the environment is the same for ever, but files that it names may have changed,
    /// as those with secrets do. `None` when something is wrong with them, which is told: who has one keeps it.
    pub fn config_now(&self) -> Option<Config> {
        let read = (self.read_config)(self.redactor);
        read.map_err(|error| {
            let error = error.to_string();
            tracing::warn!(
                error,
                "a file of the configuration cannot be used now: what was read before counts"
            );
        })
        .ok()
    }

    /// Has traces and metrics exported from now on, when there is a collector.
    pub fn exporting(mut self, config: &Config) -> Self {
        if let Some(otlp) = &config.telemetry {
            let request_id = config.api.request_id.as_deref();
            self.telemetry = self.telemetry.exporting(otlp, request_id, self.redactor);
        }
        self
    }

    /// Sends what is left of traces and metrics. Nobody waits for it any more, so it is little after a signal, and
    /// nothing after a second one.
    pub async fn end_export(&self) {
        if !self.signals.must_exit_now() {
            self.telemetry.shutdown(self.signals.which().is_some()).await;
        }
    }
}
