//! Room in the context window: when a conversation nears its end, a summary takes the place of what was said. Where the
//! API knows the model, it is of the API's own kind, which keeps more than words; otherwise the model writes one.

use futures::StreamExt;

use super::memory::{Aside, Entry};
use super::{Agent, Progress, TaskUsage};
use crate::events::TaskErrorCode;
use crate::failure::{Cancelled, Failure};
use plue_messages::{Conversation, ModelError, StopReason, Turn, TurnEvent, TurnRequest, models};

/// Which share of the window may be full before the next turn is asked for.
const FULL: f64 = 0.8;

/// How many tokens a summary may have.
const MAX_SUMMARY: u32 = 16_000;

/// Which shares of a conversation are summarized in turn, when the model cannot read all of it any more.
const SHARES: [f64; 2] = [0.6, 0.3];

pub(super) const GO_ON: &str =
    "The conversation so far was summarized above. Go on with the task from where it stands.";

pub(super) const SUMMARIZE: &str = concat!(
    "The conversation nears the end of your context window. Write a summary with which you could go on without having ",
    "read any of it: what the task is, word for word where it matters; what was done, and in which files; what was ",
    "found out, with names, paths, numbers and errors; what was decided, and why; what remains, in order. Call no ",
    "tools. Answer with the summary alone.",
);

/// How many tokens a summary may have now.
fn limit(progress: &Progress) -> u32 {
    progress.limit.tokens().min(MAX_SUMMARY)
}

impl Agent<'_> {
    /// Whether the last turn left too little room for another one.
    pub(super) fn is_full(&self, progress: &Progress) -> bool {
        let window = models::lookup(self.model_name).map(|model| model.context_window);
        let Some((window, context)) = window.zip(progress.context) else {
            return false;
        };
        // No turn has more than fits: a number that is far over it is none.
        let is_absurd = context > u64::from(window) * 2;
        !is_absurd && context as f64 >= f64::from(window) * FULL
    }

    /// Makes room before the window is full.
    pub(super) async fn make_room_in_time(
        &self,
        conversation: &mut Conversation,
        progress: &mut Progress,
        spent: &mut TaskUsage,
    ) -> Result<(), Failure> {
        if !self.is_full(progress) {
            return Ok(());
        }
        let failure = Failure {
            code: TaskErrorCode::ContextExceeded,
            message: format!(
                "the conversation has {}, and the context window of {} has no room for more",
                super::usage::tokens(progress.context),
                self.model_name
            ),
        };
        self.make_room(conversation, progress, spent, failure).await
    }

    /// Puts a summary in the place of what was said. `failure` is how the task ends when there can be none.
    pub(super) async fn make_room(
        &self,
        conversation: &mut Conversation,
        progress: &mut Progress,
        spent: &mut TaskUsage,
        failure: Failure,
    ) -> Result<(), Failure> {
        if !conversation.has_grown() {
            return Err(failure);
        }
        if std::mem::replace(&mut progress.made_room, true) {
            let message = format!("{}, also after a summary", failure.message);
            return Err(Failure { message, ..failure });
        }
        let before = progress.context.take();
        if models::lookup(self.model_name).is_some()
            && let Some(compacted) = self.compacted(conversation, progress, spent).await?
        {
            *conversation = compacted;
        } else {
            *conversation = self.summarized(conversation, progress, spent, failure).await?;
        }
        let tokens = super::usage::tokens(before);
        let size = if before.is_some() {
            format!(" of {tokens}")
        } else {
            String::new()
        };
        self.note(format!(
            "the conversation{size} neared the end of the context window of {}; a summary stands in its place now",
            self.model_name
        ));
        Ok(())
    }

    /// By a summary of the API's own. `None` when it gives none.
    async fn compacted(
        &self,
        conversation: &Conversation,
        progress: &Progress,
        spent: &mut TaskUsage,
    ) -> Result<Option<Conversation>, Failure> {
        let request = conversation.compaction_request(limit(progress));
        match self.ask_aside(request, progress, spent).await? {
            Ok(turn) if turn.stop == StopReason::Compaction && turn.is_summary() => {
                Ok(Some(conversation.compacted(&turn.content, GO_ON)))
            }
            Ok(turn) => {
                tracing::warn!(
                    stop_reason = turn.stop.as_str(),
                    "the API gave no summary; the model is asked for one"
                );
                Ok(None)
            }
            // It does not know this kind of request, or not for this model or key; or there is too much of it.
            Err(error) => {
                tracing::warn!(%error, "the API gives no summary; the model is asked for one");
                Ok(None)
            }
        }
    }

    /// By a summary that the model writes, of all that was said or, when that is too much, of its first part.
    async fn summarized(
        &self,
        conversation: &Conversation,
        progress: &Progress,
        spent: &mut TaskUsage,
        failure: Failure,
    ) -> Result<Conversation, Failure> {
        let parts = SHARES.iter().filter_map(|share| conversation.beginning(*share));
        for part in std::iter::once(conversation.clone()).chain(parts) {
            let count = part.len();
            let mut asked = part;
            asked.push_user_text(SUMMARIZE);
            match self.ask_aside(asked.request(limit(progress)), progress, spent).await? {
                // What it refused or could not finish is none.
                Ok(turn) if turn.has_text && turn.stop == StopReason::EndTurn => {
                    let summary = turn.text();
                    let text = format!("This is a summary of what was done so far:\n\n{summary}\n\n{GO_ON}");
                    return Ok(conversation.summarized(&text, count));
                }
                // Smaller parts may be read where all of it cannot.
                Ok(_) | Err(ModelError::TooLong(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let message = format!("{}, and no summary of it could be made", failure.message);
        Err(Failure { message, ..failure })
    }

    /// Asks the model something that is no turn of the task; nobody is shown what it says. What an earlier process was
    /// answered, is not asked again.
    async fn ask_aside(
        &self,
        request: TurnRequest,
        progress: &Progress,
        spent: &mut TaskUsage,
    ) -> Result<Result<Turn, ModelError>, Failure> {
        if let Some(known) = self.known_aside(progress, spent)? {
            return Ok(known);
        }
        let answer = self.ask_aside_now(request, spent).await?;
        match &answer {
            Ok(turn) => self.memory.note(|| Entry::Aside(Ok(turn.into()))),
            Err(error) => self.memory.note(|| Entry::Aside(Err(Aside::of(error)))),
        }
        Ok(answer)
    }

    async fn ask_aside_now(
        &self,
        request: TurnRequest,
        spent: &mut TaskUsage,
    ) -> Result<Result<Turn, ModelError>, Failure> {
        let mut stream = self.model.turn(request);
        loop {
            let event = tokio::select! {
                biased;
                () = self.cancel.cancelled() => return Err(Cancelled.into()),
                event = stream.next() => event,
            };
            match event {
                Some(Ok(TurnEvent::Finished(turn))) => {
                    spent.add(&turn.usage, &turn.model, self.model_name);
                    return Ok(Ok(turn));
                }
                Some(Ok(TurnEvent::Wasted { usage, model })) => {
                    spent.add(&usage, &model, self.model_name);
                    self.memory.note(|| Entry::Wasted(usage, model));
                }
                Some(Ok(TurnEvent::Waiting { reason, .. })) => {
                    self.note(format!("waiting for the model's summary: {reason}"));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Ok(Err(error)),
                None => {
                    return Ok(Err(ModelError::Failed(
                        "the model's stream ended without a result".into(),
                    )));
                }
            }
        }
    }
}
