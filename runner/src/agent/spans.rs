//! What a collector is told of turns and calls; `telemetry` knows nothing of the model.

use super::Agent;
use crate::telemetry::{Answer, Tokens};
use plue_contract::ToolOutcome;
use plue_messages::{ToolCall, Turn, Usage};

impl Agent<'_> {
    /// Makes a call, as a span of its own.
    pub(super) async fn call_tool(&self, call: &ToolCall) -> ToolOutcome {
        let span = self.telemetry.tool_span(&call.name, &call.id);
        let ((output, rest), cancel) = (self.live_output(&call.id), self.cancel.child_token());
        let outcome = span
            .within(self.tools.call(&call.name, &call.input, output, cancel))
            .await;
        rest();
        if let Some(code) = outcome.error {
            span.fail(code.as_str());
        }
        outcome
    }
}

/// A turn without what it says.
pub(super) fn answer(turn: &Turn) -> Answer<'_> {
    Answer {
        model: &turn.model,
        id: turn.id.as_deref(),
        finish_reason: turn.stop.as_str(),
        tokens: tokens(&turn.usage),
    }
}

pub(super) fn tokens(usage: &Usage) -> Tokens {
    Tokens {
        input: usage.input_tokens,
        output: usage.output_tokens,
        cache_read: usage.cache_read_tokens,
        cache_written: usage.cache_write_tokens,
    }
}
