//! What a task has cost so far.

use crate::events::UsageReport;
use plue_messages::{Usage, models};

/// What the agent used, up to now: told in the terminal event however the task ends.
#[derive(Clone, Copy, Debug)]
pub struct TaskUsage {
    pub usage: Usage,
    /// US dollars; `None` as soon as one turn was served by a model without a known price, or was not counted.
    pub cost_usd: Option<f64>,
    pub turns: u32,
    /// As far as it is known: what a limit is held against.
    pub(super) at_least: Spent,
    /// The same for the last answer alone.
    pub(super) last: Spent,
}

/// Money and tokens.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spent {
    pub(super) usd: f64,
    pub(super) tokens: u64,
}

impl Default for TaskUsage {
    /// Nothing yet.
    fn default() -> Self {
        Self {
            usage: Usage::NOTHING,
            cost_usd: Some(0.0),
            turns: 0,
            at_least: Spent::default(),
            last: Spent::default(),
        }
    }
}

impl TaskUsage {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The tokens as events tell them.
    pub fn usage_report(&self) -> UsageReport {
        report(&self.usage)
    }

    /// What one request used, and the model that served it. A gateway may answer with a name of its own: then the price
    /// is that of the model that was asked for.
    pub(super) fn add(&mut self, usage: &Usage, served: &str, asked: &str) {
        self.usage += *usage;
        let cost = models::cost(served, usage).or_else(|| models::cost(asked, usage));
        self.cost_usd = self.cost_usd.zip(cost).map(|(sum, cost)| sum + cost);
        let counters = [
            usage.input_tokens,
            usage.output_tokens,
            usage.cache_read_tokens,
            usage.cache_write_tokens,
        ];
        self.last = Spent {
            usd: cost.unwrap_or(0.0),
            tokens: counters.into_iter().flatten().fold(0, u64::saturating_add),
        };
        self.at_least.usd += self.last.usd;
        self.at_least.tokens = self.at_least.tokens.saturating_add(self.last.tokens);
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

/// A number of tokens in words.
pub(super) fn tokens(count: Option<u64>) -> String {
    match count {
        Some(count) => format!("{count} tokens"),
        None => "as many tokens as it may have".into(),
    }
}
