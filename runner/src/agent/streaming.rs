//! One turn of the model, told as it comes.

use std::time::Duration;

use futures::StreamExt;

use super::masked_text::{MaskedDeltas, pieces, thought, token};
use super::memory::Entry;
use super::{Agent, BROKEN_OFF_CALL, Progress, TaskUsage, new_message_id};
use crate::events::{Event, TaskErrorCode};
use crate::failure::{Cancelled, Failure};
use plue_contract::{ToolErrorCode, ToolOutcome};
use plue_messages::{Conversation, Turn, TurnEvent, Usage};

/// The longest id of a call, in characters: those of the API have 30.
const MAX_ID: usize = 200;

/// What was shown of a message so far.
struct Message {
    id: String,
    text: MaskedDeltas,
    thinking: MaskedDeltas,
    /// Whether anybody has heard of it.
    is_known: bool,
    /// How many calls it has opened.
    calls: usize,
    /// Calls that were given another id than the model gave them.
    renamed: Vec<(usize, String)>,
    /// What of it is paid already, and the model that serves it.
    paid: Option<(Usage, String)>,
}

impl Agent<'_> {
    fn new_message(&self, id: String) -> Message {
        let redactor = self.events.redactor();
        Message {
            id: self.memory.take_next_message().unwrap_or(id),
            text: MaskedDeltas::new(redactor),
            thinking: MaskedDeltas::new(redactor),
            is_known: false,
            calls: 0,
            renamed: Vec::new(),
            paid: None,
        }
    }

    /// Streams one turn, and tells what comes as it comes. Gives the turn, and the id of its message.
    pub(super) async fn model_turn(
        &self,
        conversation: &mut Conversation,
        progress: &mut Progress,
        spent: &mut TaskUsage,
    ) -> Result<(Turn, String), Failure> {
        let mut stream = self.model.turn(conversation.request(progress.limit.tokens()));
        let mut message = self.new_message(progress.next_message.take().unwrap_or_else(new_message_id));
        loop {
            let event = tokio::select! {
                biased;
                () = self.cancel.cancelled() => {
                    self.say_the_rest(&mut message);
                    if let Some((usage, model)) = message.paid.take() {
                        spent.add(&usage, &model, self.model_name);
                    }
                    return Err(Cancelled.into());
                }
                event = stream.next() => event,
            };
            if !matches!(event, Some(Ok(TurnEvent::Text(_) | TurnEvent::Thinking(_)))) {
                self.say_the_rest(&mut message);
            }
            match event {
                Some(Ok(TurnEvent::Finished(mut turn))) => {
                    for (number, id) in &message.renamed {
                        turn.rename_call(*number, id);
                    }
                    return Ok((turn, message.id));
                }
                Some(Ok(TurnEvent::Began { usage, model })) => message.paid = Some((usage, model)),
                Some(Ok(TurnEvent::Text(delta))) => {
                    self.shows(&mut message);
                    let (id, text) = (&message.id, &mut message.text);
                    let shown = pieces(&delta).filter_map(|piece| text.push(piece));
                    self.events.push_all(shown.map(|shown| token(id, shown)));
                }
                Some(Ok(TurnEvent::Thinking(delta))) if self.extra_events => {
                    self.shows(&mut message);
                    let (id, thinking) = (&message.id, &mut message.thinking);
                    let shown = pieces(&delta).filter_map(|piece| thinking.push(piece));
                    self.events.push_all(shown.map(|shown| thought(id, shown)));
                }
                Some(Ok(TurnEvent::Thinking(_))) => {}
                Some(Ok(TurnEvent::ToolStarted { id, name })) => {
                    self.shows(&mut message);
                    self.open_call(id, name, &mut message, progress);
                }
                Some(Ok(TurnEvent::Waiting { reason, patience })) => self.note(format!(
                    "waiting for the model, for up to {} s (MODEL_PATIENCE): {reason}",
                    patience.as_secs()
                )),
                Some(Ok(TurnEvent::Wasted { usage, model })) => {
                    message.paid = None;
                    spent.add(&usage, &model, self.model_name);
                    self.memory.note(|| Entry::Wasted(usage, model));
                    self.tell_usage(&message.id, &usage);
                    self.check_budget(spent)?;
                }
                Some(Ok(TurnEvent::Restarted { reason })) => self.restart(&mut message, reason, progress),
                Some(Err(error)) => return Err(error.into()),
                None => {
                    let message = "the model's stream ended without a result".into();
                    return Err(Failure {
                        code: TaskErrorCode::ModelError,
                        message,
                    });
                }
            }
        }
    }

    /// Whoever watches is about to hear of a message.
    fn shows(&self, message: &mut Message) {
        if !std::mem::replace(&mut message.is_known, true) {
            self.memory.note(|| Entry::Shown(message.id.clone()));
        }
    }

    /// Announces a call. An id that was used before would stand for two calls, here and in every event: then the call
    /// has another one, in the history too.
    fn open_call(&self, id: String, name: String, message: &mut Message, progress: &mut Progress) {
        // Gateways make ids of their own, with characters that the API does not take back.
        let is_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        let mut good: String = id
            .chars()
            .map(|c| if is_good(c) { c } else { '_' })
            .take(MAX_ID)
            .collect();
        if good.is_empty() {
            good.push_str("call");
        }
        let mut own = good.clone();
        for number in 2_u32.. {
            if progress.call_ids.insert(own.clone()) {
                break;
            }
            own = format!("{good}_{number}");
        }
        if own != id {
            tracing::warn!(
                id,
                renamed_to = own,
                "the id of a call is one that was used before, or none"
            );
            message.renamed.push((message.calls, own.clone()));
        }
        self.memory.note(|| Entry::Opened(own.clone()));
        message.calls += 1;
        progress.open_calls.push(own.clone());
        self.events.push(Event::ToolStart {
            message_id: message.id.clone(),
            tool_id: own,
            tool_name: name,
            args: None,
        });
    }

    /// The answer broke off, and what comes now belongs to another message: nothing comes of what was shown.
    fn restart(&self, message: &mut Message, reason: String, progress: &mut Progress) {
        self.end_open_calls(progress, BROKEN_OFF_CALL);
        let broken = std::mem::replace(message, self.new_message(new_message_id()));
        if !broken.is_known {
            return;
        }
        self.memory.note(|| Entry::Shown(String::new()));
        self.note(format!("the model's answer broke off and is asked for again: {reason}"));
        if self.extra_events {
            self.events.push(Event::MessageReset {
                message_id: broken.id,
                replaced_by: message.id.clone(),
                reason,
            });
        }
    }

    /// A turn that is over counts for nothing, and is asked for again: so does what was shown of it.
    pub(super) fn take_back(&self, message_id: &str, reason: &str, progress: &mut Progress) {
        let replaced_by = new_message_id();
        if self.extra_events {
            self.events.push(Event::MessageReset {
                message_id: message_id.to_owned(),
                replaced_by: replaced_by.clone(),
                reason: reason.to_owned(),
            });
        }
        progress.next_message = Some(replaced_by);
    }

    /// Passes on what was kept back of the model's text.
    fn say_the_rest(&self, message: &mut Message) {
        if let Some(shown) = message.thinking.finish() {
            self.events.push(thought(&message.id, shown));
        }
        if let Some(shown) = message.text.finish() {
            self.events.push(token(&message.id, shown));
        }
    }

    /// Ends the calls that were announced and not made: whoever watches must learn that nothing comes of them.
    pub(super) fn end_open_calls(&self, progress: &mut Progress, why: &str) {
        for id in std::mem::take(&mut progress.open_calls) {
            let outcome = ToolOutcome {
                error: Some(ToolErrorCode::Cancelled),
                text: why.to_owned(),
                truncated: false,
                duration: Duration::ZERO,
                notes: Vec::new(),
            };
            self.tool_end(&id, &outcome);
        }
    }
}
