//! When to stop searching: a result that is not whole and says so is worth more than a call that was ended.

use plue_tool::Context;
use wasip2::clocks::monotonic_clock;

/// How long a search goes on, in nanoseconds. The manifest lets the call run for a minute.
const BUDGET: u64 = 50_000_000_000;

/// The end of the time for one call.
pub struct Deadline<'a> {
    ctx: &'a Context,
    end: u64,
}

impl<'a> Deadline<'a> {
    pub fn new(ctx: &'a Context) -> Self {
        Self {
            ctx,
            end: monotonic_clock::now().saturating_add(BUDGET),
        }
    }

    /// Whether to stop, for the time or because the call was cancelled.
    pub fn is_over(&self) -> bool {
        self.ctx.is_cancelled() || monotonic_clock::now() >= self.end
    }
}
