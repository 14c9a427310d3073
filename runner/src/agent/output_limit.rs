//! How long one answer of the model may be.

use plue_messages::models;

/// What is asked for when the task does not say: enough for thinking and an answer, and what the API's documentation
/// proposes for high effort. A model that can give less is asked for less.
const DEFAULT_MAX_TOKENS: u32 = 64_000;

/// The `max_tokens` of the next turn.
#[derive(Clone, Copy, Debug)]
pub struct OutputLimit {
    tokens: u32,
    /// What it may be raised to: the model's own limit, or the task's.
    ceiling: u32,
}

impl OutputLimit {
    /// Fits the model; what a task asks for is never exceeded.
    pub fn new(model: &str, asked: Option<u32>) -> Self {
        let largest = models::max_output(model);
        let ceiling = asked.unwrap_or(largest).min(largest);
        Self {
            tokens: asked.unwrap_or(DEFAULT_MAX_TOKENS).min(ceiling),
            ceiling,
        }
    }

    /// What is asked for now.
    pub fn tokens(self) -> u32 {
        self.tokens
    }

    /// Doubles the limit; answers false when it is as high as it may be.
    pub fn raise(&mut self) -> bool {
        let raised = self.tokens.saturating_mul(2).min(self.ceiling);
        let changed = raised > self.tokens;
        self.tokens = raised;
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_fits_the_model_and_is_raised_up_to_it() {
        let mut limit = OutputLimit::new("claude-sonnet-5-5", None);
        assert_eq!(limit.tokens(), 64_000);
        assert!(limit.raise());
        assert_eq!(limit.tokens(), 128_000);
        assert!(!limit.raise());
        assert_eq!(OutputLimit::new("claude-haiku-4-5", Some(100_000)).tokens(), 64_000);
        assert_eq!(
            OutputLimit::new("a-gateway's-own", None).tokens(),
            models::DEFAULT_MAX_OUTPUT
        );
    }

    #[test]
    fn what_the_task_asks_for_is_never_exceeded() {
        let mut limit = OutputLimit::new("claude-sonnet-5-5", Some(1_000));
        assert!(!limit.raise());
        assert_eq!(limit.tokens(), 1_000);
    }
}
