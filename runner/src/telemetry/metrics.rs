//! The metrics that the runner keeps.

use std::time::Instant;

use opentelemetry::metrics::{Counter, Histogram, Meter};

use super::Telemetry;

/// Seconds; from the conventions, whose buckets end where a long answer of a model does.
const DURATIONS: [f64; 14] = [
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
];
/// Tokens; from the conventions.
const TOKENS: [f64; 14] = [
    1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 4194304.0, 16777216.0,
    67108864.0,
];
/// Seconds; a task takes from less than one to hours.
const TASK_DURATIONS: [f64; 12] = [
    0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 180.0, 600.0, 1800.0, 3600.0, 7200.0, 14400.0,
];

/// All of them.
pub(super) struct Metrics {
    /// Tokens of a model turn, in and out.
    pub(super) token_usage: Histogram<u64>,
    /// How long a model turn took, all its attempts together.
    pub(super) operation_duration: Histogram<f64>,
    /// How long a task took, by how it ended. Its count is that of the tasks.
    pub(super) task_duration: Histogram<f64>,
    events_delivered: Counter<u64>,
    events_lost: Counter<u64>,
    events_retried: Counter<u64>,
    events_spooled: Counter<u64>,
}

/// What may become of an event on its way to the callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventCount {
    Delivered,
    Lost,
    /// It is sent again.
    Retried,
    /// It waits on disk.
    Spooled,
}

impl Telemetry {
    /// Counts so many events, when there is a collector.
    pub fn count(&self, what: EventCount, events: u64) {
        let Some(exports) = self.exports else { return };
        let metrics = &exports.metrics;
        let counter = match what {
            EventCount::Delivered => &metrics.events_delivered,
            EventCount::Lost => &metrics.events_lost,
            EventCount::Retried => &metrics.events_retried,
            EventCount::Spooled => &metrics.events_spooled,
        };
        counter.add(events, &[]);
    }
}

impl Metrics {
    pub(super) fn new(meter: &Meter) -> Self {
        let token_usage = meter
            .u64_histogram("gen_ai.client.token.usage")
            .with_unit("{token}")
            .with_description("Number of input and output tokens used.")
            .with_boundaries(TOKENS.to_vec());
        let operation_duration = meter
            .f64_histogram("gen_ai.client.operation.duration")
            .with_unit("s")
            .with_description("GenAI operation duration.")
            .with_boundaries(DURATIONS.to_vec());
        let task_duration = meter
            .f64_histogram("plue.task.duration")
            .with_unit("s")
            .with_description("How long a task took, by its outcome.")
            .with_boundaries(TASK_DURATIONS.to_vec());
        let events = |name: &'static str, description: &'static str| {
            let counter = meter.u64_counter(name).with_unit("{event}");
            counter.with_description(description).build()
        };
        Self {
            events_delivered: events("plue.events.delivered", "Events that the callback took."),
            events_lost: events(
                "plue.events.lost",
                "Events that the callback did not take, or may not have.",
            ),
            events_retried: events("plue.events.retried", "Events that were sent to the callback again."),
            events_spooled: events("plue.events.spooled", "Events that waited on disk."),
            token_usage: token_usage.build(),
            operation_duration: operation_duration.build(),
            task_duration: task_duration.build(),
        }
    }
}

/// The time since then, as metrics have it.
pub(super) fn seconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64()
}
