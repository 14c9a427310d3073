//! What a task may still use: money, tokens and time. Before one of them ends, the model has one turn to wrap up.

use std::time::Duration;

use tokio::time::Instant;

use super::{Agent, Progress, TaskUsage};
use crate::events::TaskErrorCode;
use crate::failure::Failure;
use plue_messages::Conversation;

/// The smallest part of a limit that is kept for the last turn.
const RESERVE: f64 = 0.05;

/// How much time is kept for the last turn: a tenth of all, within these.
const LEAST_TIME: Duration = Duration::from_secs(1);
const MOST_TIME: Duration = Duration::from_secs(120);

impl Agent<'_> {
    /// Whether there may be another turn. Tells the model when it is its last.
    pub(super) fn allow(
        &self,
        conversation: &mut Conversation,
        progress: &mut Progress,
        spent: &TaskUsage,
    ) -> Result<(), Failure> {
        self.check_budget(spent)?;
        if spent.turns == 0 {
            return Ok(());
        }
        let has_limit = self.task.max_cost_usd.is_some() || self.task.max_tokens_total.is_some();
        if has_limit && spent.cost_usd.is_none() && !std::mem::replace(&mut progress.told_uncounted, true) {
            self.note(
                "the API does not tell what every answer used: the task's budget counts only what it tells".into(),
            );
        }
        if let Some(left) = self.last_of_budget(spent) {
            self.wrap_up(&left, conversation);
            progress.is_last_turn = true;
        } else if !progress.told_time
            && let Some(left) = self.time_to_wrap_up(self.last_of_time())
        {
            // What comes after this turn ends when its time does.
            progress.told_time = true;
            self.wrap_up(&left, conversation);
        }
        Ok(())
    }

    fn wrap_up(&self, left: &str, conversation: &mut Conversation) {
        self.note(format!("the task has {left} left: the model is told to finish"));
        conversation.push_user_text(&format!(
            "You have {left} left: finish. This is your last turn, so save what must not be lost, then say what you \
             have done and what remains."
        ));
    }

    /// Ends a task that has used all that it may.
    pub(super) fn check_budget(&self, spent: &TaskUsage) -> Result<(), Failure> {
        let used = spent.at_least;
        match (self.task.max_cost_usd, self.task.max_tokens_total) {
            (Some(max), _) if used.usd >= max => Err(over_cost(used.usd, max)),
            (_, Some(max)) if used.tokens >= max => Err(over_tokens(used.tokens, max)),
            _ => Ok(()),
        }
    }

    /// How a task ends whose last turn is over.
    pub(super) fn over_budget(&self, spent: &TaskUsage) -> Failure {
        let used = spent.at_least;
        match (self.task.max_cost_usd, self.task.max_tokens_total) {
            (Some(max), None) => over_cost(used.usd, max),
            (Some(max), Some(tokens)) if used.usd / max >= used.tokens as f64 / tokens as f64 => {
                over_cost(used.usd, max)
            }
            (_, max) => over_tokens(used.tokens, max.unwrap_or_default()),
        }
    }

    /// What is left when it is not enough for two turns as the last one was.
    fn last_of_budget(&self, spent: &TaskUsage) -> Option<String> {
        let (used, last) = (spent.at_least, spent.last);
        if let Some(max) = self.task.max_cost_usd {
            let left = max - used.usd;
            if left < last.usd.max(max * RESERVE) {
                return Some(format!("{left:.4} US dollars"));
            }
        }
        let max = self.task.max_tokens_total?;
        let left = max.saturating_sub(used.tokens);
        let reserve = last.tokens.max((max as f64 * RESERVE) as u64);
        (left < reserve).then(|| format!("{left} tokens"))
    }

    fn last_of_time(&self) -> Option<String> {
        let (deadline, whole) = self.deadline?;
        let left = deadline.saturating_duration_since(Instant::now());
        let reserve = (whole / 10).clamp(LEAST_TIME, MOST_TIME);
        (left < reserve).then(|| format!("{} s", left.as_secs()))
    }
}

fn over_cost(used: f64, max: f64) -> Failure {
    Failure {
        code: TaskErrorCode::Budget,
        message: format!("the task cost {used:.4} US dollars, and its max_cost_usd is {max}"),
    }
}

fn over_tokens(used: u64, max: u64) -> Failure {
    Failure {
        code: TaskErrorCode::Budget,
        message: format!("the task used {used} tokens, and its max_tokens_total is {max}"),
    }
}
