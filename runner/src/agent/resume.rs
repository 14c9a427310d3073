//! Goes on with a task that an earlier process of this runner was killed in: what that one was told is gone through
//! again, without telling or asking anybody, and where it ends the task goes on.

use std::time::Duration;

use super::memory::{Asked, Entry};
use super::{Agent, BROKEN_OFF_CALL, Progress, TaskUsage, model_error, new_message_id};
use crate::events::{Event, TaskErrorCode};
use crate::failure::Failure;
use plue_contract::{ToolErrorCode, ToolOutcome};
use plue_messages::{Conversation, ModelError, Turn};

const RESTARTED: &str = "The runner was restarted while this call was being made: it may have been made in part. Look \
                         before you make it again.";

/// What an earlier process knows of a call.
pub(super) enum KnownCall {
    /// It was about to make it, and nobody knows how far it came.
    Begun,
    Ended(ToolOutcome),
}

impl Agent<'_> {
    /// Goes on with the task where what an earlier process has done ends: from here on it is told what happens.
    pub(super) fn go_on_if_over(&self, progress: &Progress, turns: u32) {
        if !self.memory.replays() || self.memory.has_past() {
            return;
        }
        self.go_on(progress, turns);
    }

    /// The same, whatever is left.
    pub(super) fn go_on(&self, progress: &Progress, turns: u32) {
        if !self.memory.goes_on() {
            return;
        }
        self.events.mute(false);
        let told = match turns {
            0 => "before the model's first turn was over".to_owned(),
            1 => "after the model's first turn".to_owned(),
            turns => format!("after {turns} turns of the model"),
        };
        tracing::warn!(turns, "the task goes on: an earlier process of this runner was killed");
        let broken = self.memory.take_shown();
        let unknown = match broken {
            Some(_) => "; what the answer that broke off has used is not counted",
            None => "",
        };
        self.note(format!("the runner was restarted; the task goes on {told}{unknown}"));
        for id in self.memory.open_calls() {
            if !progress.open_calls.iter().any(|open| open == id) && !progress.over_calls.contains(id) {
                self.tool_end(id, &failed(BROKEN_OFF_CALL, ToolErrorCode::Cancelled));
            }
        }
        if let Some(broken) = broken.filter(|_| self.extra_events) {
            let next = new_message_id();
            self.events.push(Event::MessageReset {
                message_id: broken,
                replaced_by: next.clone(),
                reason: "the runner was restarted".into(),
            });
            self.memory.set_next_message(next);
        }
    }

    /// The turn that an earlier process was told, and the id of its message. `None`: it was told none.
    pub(super) fn known_turn(
        &self,
        conversation: &mut Conversation,
        progress: &mut Progress,
        spent: &mut TaskUsage,
    ) -> Result<Option<(Turn, String)>, Failure> {
        while let Some(entry) = self.memory.next_if(|_| true) {
            match entry {
                Entry::Shown(id) => self.memory.set_shown(Some(id)),
                Entry::Opened(id) => {
                    progress.call_ids.insert(id);
                }
                Entry::Wasted(usage, model) => {
                    spent.add(&usage, &model, self.model_name);
                    self.check_budget(spent)?;
                }
                Entry::Answer {
                    message_id,
                    asked,
                    turn,
                } => {
                    if Asked::of(&conversation.request(progress.limit.tokens()).body) != asked {
                        return Err(self.diverged());
                    }
                    self.memory.set_shown(None);
                    let turn = Turn::from(turn);
                    for call in &turn.tool_calls {
                        progress.call_ids.insert(call.id.clone());
                        progress.open_calls.push(call.id.clone());
                    }
                    return Ok(Some((turn, message_id)));
                }
                Entry::TooLong(message) => {
                    self.memory.set_shown(None);
                    let code = TaskErrorCode::ContextExceeded;
                    return Err(Failure { code, message });
                }
                Entry::Aside(_)
                | Entry::WrapUp(_)
                | Entry::SchemaRefused
                | Entry::CallBegins(_)
                | Entry::CallEnds(..) => {
                    return Err(self.diverged());
                }
            }
        }
        self.go_on_if_over(progress, spent.turns.saturating_sub(1));
        Ok(None)
    }

    /// What an earlier process knows of a call; `None`: it did not come so far.
    pub(super) fn known_call(&self, id: &str, progress: &Progress) -> Result<Option<KnownCall>, Failure> {
        let Some(begins) = self.memory.next_if(|_| true) else {
            self.go_on_if_over(progress, progress.turns);
            return Ok(None);
        };
        if !matches!(&begins, Entry::CallBegins(begun) if begun == id) {
            return Err(self.diverged());
        }
        let ends = self
            .memory
            .next_if(|entry| matches!(entry, Entry::CallEnds(ended, _) if ended == id));
        if ends.is_none() && self.memory.has_past() {
            return Err(self.diverged());
        }
        self.go_on_if_over(progress, progress.turns);
        Ok(Some(match ends {
            Some(Entry::CallEnds(_, outcome)) => KnownCall::Ended(outcome.into()),
            _ => KnownCall::Begun,
        }))
    }

    /// What the model answered to a request that is no turn of the task.
    pub(super) fn known_aside(
        &self,
        progress: &Progress,
        spent: &mut TaskUsage,
    ) -> Result<Option<Result<Turn, ModelError>>, Failure> {
        while let Some(entry) = self.memory.next_if(|_| true) {
            match entry {
                Entry::Wasted(usage, model) => spent.add(&usage, &model, self.model_name),
                Entry::Aside(Ok(turn)) => {
                    let turn = Turn::from(turn);
                    spent.add(&turn.usage, &turn.model, self.model_name);
                    return Ok(Some(Ok(turn)));
                }
                Entry::Aside(Err(refused)) => return Ok(Some(Err(refused.into()))),
                _ => return Err(self.diverged()),
            }
        }
        self.go_on_if_over(progress, spent.turns);
        Ok(None)
    }

    /// How much time the model is told that is left, when it is to be told so.
    pub(super) fn time_to_wrap_up(&self, left: Option<String>) -> Option<String> {
        if self.memory.replays() {
            let told = self.memory.next_if(|entry| matches!(entry, Entry::WrapUp(_)));
            return match told {
                Some(Entry::WrapUp(left)) => Some(left),
                _ => None,
            };
        }
        if let Some(left) = &left {
            self.memory.note(|| Entry::WrapUp(left.clone()));
        }
        left
    }

    /// What an earlier process has noted is not what this one makes of the task: another plugin, or other tools, or an
    /// operator who decided otherwise.
    fn diverged(&self) -> Failure {
        self.memory.diverge();
        self.events.mute(false);
        for id in self.memory.open_calls() {
            self.tool_end(id, &failed(BROKEN_OFF_CALL, ToolErrorCode::Cancelled));
        }
        model_error("what was kept of the task does not fit it".into())
    }
}

/// How a call ends of which nobody knows how far it came.
pub(super) fn restarted() -> ToolOutcome {
    failed(RESTARTED, ToolErrorCode::Failed)
}

fn failed(text: &str, code: ToolErrorCode) -> ToolOutcome {
    ToolOutcome {
        error: Some(code),
        text: text.to_owned(),
        truncated: false,
        duration: Duration::ZERO,
        notes: Vec::new(),
    }
}
