//! What a task has cost so far.

use crate::events::UsageReport;
use plue_messages::{Turn, Usage, models};

/// What the agent used, up to now: told in the terminal event however the task ends.
#[derive(Clone, Copy, Debug, Default)]
pub struct TaskUsage {
    pub usage: Usage,
    /// US dollars; `None` as soon as one turn was served by a model without a known price.
    pub cost_usd: Option<f64>,
    pub turns: u32,
}

impl TaskUsage {
    /// Nothing yet.
    pub fn new() -> Self {
        Self {
            cost_usd: Some(0.0),
            ..Self::default()
        }
    }

    /// The tokens as events tell them.
    pub fn usage_report(&self) -> UsageReport {
        report(&self.usage)
    }

    /// A gateway may answer with a name of its own: then the price is that of the model that was asked for.
    pub(super) fn add(&mut self, turn: &Turn, asked: &str) {
        self.usage += turn.usage;
        let cost = models::cost(&turn.model, &turn.usage).or_else(|| models::cost(asked, &turn.usage));
        self.cost_usd = self.cost_usd.zip(cost).map(|(sum, cost)| sum + cost);
    }
}

pub(super) fn report(usage: &Usage) -> UsageReport {
    UsageReport {
        input_tokens: usage.input_tokens,
        output_tokens: usage.output_tokens,
        cache_read_tokens: usage.cache_read_tokens,
        cache_write_tokens: usage.cache_write_tokens,
    }
}
