//! The agent: model turn → tool calls → results, until the model says that it is done.
//!
//! It knows a trait for the model, one for the tools, and the event queue; none of them needs a network in a test.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use crate::events::{Event, EventSink, LogLevel, TaskErrorCode, ToolState, millis};
use crate::failure::{Cancelled, Failure};
use crate::task::AgentTask;
use crate::telemetry::Telemetry;
use plue_contract::{LiveOutput, ToolErrorCode, ToolOutcome, Toolbox};
use plue_messages::{
    Conversation, ConversationConfig, INVALID_INPUT_KEY, Model, ModelError, StopReason, ToolCall, ToolResult, Turn,
    TurnEvent,
};

mod masked_text;
mod no_tools;
mod output_limit;
mod spans;
#[cfg(test)]
mod tests;
mod usage;

use masked_text::{MaskedDeltas, mask, pieces, thought, token};
pub use no_tools::NoTools;
pub use output_limit::OutputLimit;
pub use usage::TaskUsage;
use usage::report;

/// How often in a row a cut-off answer is asked to go on.
const MAX_CONTINUATIONS: u32 = 3;
const GO_ON: &str =
    "Your answer was cut off by its length limit. Go on exactly where it stopped, without repeating anything.";
const SAY_SOMETHING: &str =
    "Your last turn had no text. If there is more to do, go on; otherwise say what you did and what came of it.";
const NOT_MADE: &str = "The call was not made: the task ended.";
const CUT_OFF_CALL: &str = "The model's answer was cut off in the middle of this call; it was not made.";

/// One agent task on its way.
pub struct Agent<'a> {
    pub task: &'a AgentTask,
    /// The model as it is sent: the operator's alias is applied.
    pub model_name: &'a str,
    pub model: &'a dyn Model,
    pub tools: &'a dyn Toolbox,
    pub events: &'a EventSink,
    pub telemetry: &'a Telemetry,
    /// Whether events that the protocol added are sent.
    pub extra_events: bool,
    pub cancel: &'a CancellationToken,
}

/// What follows a turn.
enum Next {
    Done,
    /// Ask the model again.
    Turn,
}

/// What a task remembers from turn to turn, besides the conversation.
struct Progress {
    limit: OutputLimit,
    continuations: u32,
    asked_for_text: bool,
    /// Calls that the model opened and that have no end yet.
    open_calls: Vec<String>,
    /// The ids of all calls so far.
    call_ids: HashSet<String>,
}

impl Agent<'_> {
    /// Runs the task to its end.
    ///
    /// # Errors
    /// Every ending that is no success.
    pub async fn run(&self, spent: &mut TaskUsage) -> Result<(), Failure> {
        let mut conversation = Conversation::new(ConversationConfig {
            model: self.model_name,
            system: self.task.system_prompt.as_deref(),
            tools: self.tools.definitions(),
            thinking: self.task.thinking.as_deref(),
            show_thinking: self.extra_events,
            effort: self.task.effort.as_deref(),
            messages: &self.task.messages,
        });
        let limit = OutputLimit::new(self.model_name, self.task.max_tokens);
        if let Some(asked) = self.task.max_tokens.filter(|asked| *asked > limit.tokens()) {
            let (lowered_to, model) = (limit.tokens(), self.model_name);
            tracing::warn!(asked, lowered_to, model, "max_tokens is more than the model can give");
        }
        let mut progress = Progress {
            limit,
            continuations: 0,
            asked_for_text: false,
            open_calls: Vec::new(),
            call_ids: HashSet::new(),
        };
        let span = self.telemetry.agent_span(self.model_name);
        let turns = self.turns(&mut conversation, &mut progress, spent);
        let result = span.within(turns).await;
        span.used(spans::tokens(&spent.usage));
        if let Err(failure) = &result {
            span.fail(failure.code.as_str());
        }
        self.end_open_calls(&mut progress, NOT_MADE);
        result
    }

    /// Asks the model turn by turn.
    async fn turns(
        &self,
        conversation: &mut Conversation,
        progress: &mut Progress,
        spent: &mut TaskUsage,
    ) -> Result<(), Failure> {
        while spent.turns < self.task.max_turns {
            self.check_budget(spent)?;
            spent.turns += 1;
            let span = self.telemetry.chat_span(self.model_name, progress.limit.tokens());
            let result = span.span().within(self.model_turn(conversation, progress)).await;
            let outcome = result.as_ref().map(|(turn, _)| spans::answer(turn));
            span.end(self.model_name, outcome.map_err(|failure| failure.code.as_str()));
            let (turn, message_id) = result?;
            spent.add(&turn, self.model_name);
            if self.extra_events {
                let message_id = message_id.clone();
                let usage = report(&turn.usage);
                self.events.push(Event::Usage { message_id, usage });
            }
            match self.follow(turn, &message_id, conversation, progress).await? {
                Next::Done => return Ok(()),
                Next::Turn => {}
            }
        }
        let message = format!(
            "the agent used all of its {} turns without finishing; a larger max_turns (at most 100) gives it more",
            self.task.max_turns
        );
        Err(Failure {
            code: TaskErrorCode::MaxTurns,
            message,
        })
    }

    /// Streams one turn, and tells what comes as it comes. Gives the turn, and the id of its message.
    async fn model_turn(
        &self,
        conversation: &Conversation,
        progress: &mut Progress,
    ) -> Result<(Turn, String), Failure> {
        let mut stream = self.model.turn(conversation, progress.limit.tokens());
        let mut message_id = new_message_id();
        let redactor = self.events.redactor();
        let mut text = MaskedDeltas::new(redactor);
        let mut thinking = MaskedDeltas::new(redactor);
        loop {
            let event = tokio::select! {
                biased;
                () = self.cancel.cancelled() => {
                    self.say_the_rest(&message_id, &mut text, &mut thinking);
                    return Err(Cancelled.into());
                }
                event = stream.next() => event,
            };
            if !matches!(event, Some(Ok(TurnEvent::Text(_) | TurnEvent::Thinking(_)))) {
                self.say_the_rest(&message_id, &mut text, &mut thinking);
            }
            let event = match event {
                Some(Ok(TurnEvent::Finished(turn))) => return Ok((turn, message_id)),
                Some(Ok(TurnEvent::Restarted)) => {
                    message_id = new_message_id();
                    text = MaskedDeltas::new(redactor);
                    continue;
                }
                Some(Ok(TurnEvent::Text(delta))) => {
                    let shown = pieces(&delta).filter_map(|piece| text.push(piece));
                    self.events.push_all(shown.map(|shown| token(&message_id, shown)));
                    continue;
                }
                Some(Ok(TurnEvent::Thinking(delta))) if self.extra_events => {
                    let shown = pieces(&delta).filter_map(|piece| thinking.push(piece));
                    self.events.push_all(shown.map(|shown| thought(&message_id, shown)));
                    continue;
                }
                Some(Ok(TurnEvent::Thinking(_))) => continue,
                Some(Ok(TurnEvent::ToolStarted { id, name })) => {
                    // Within a turn the decoder sees to it. Later it would mix up two calls, here and in every event.
                    if !progress.call_ids.insert(id.clone()) {
                        return Err(model_error(format!("the model used the id {id:?} for a second call")));
                    }
                    progress.open_calls.push(id.clone());
                    let message_id = message_id.clone();
                    Event::ToolStart {
                        message_id,
                        tool_id: id,
                        tool_name: name,
                        args: None,
                    }
                }
                Some(Err(error)) => return Err(error.into()),
                None => {
                    let message = "the model's stream ended without a result".into();
                    return Err(Failure {
                        code: TaskErrorCode::ModelError,
                        message,
                    });
                }
            };
            self.events.push(event);
        }
    }

    /// Passes on what was kept back of the model's text.
    fn say_the_rest(&self, message_id: &str, text: &mut MaskedDeltas, thinking: &mut MaskedDeltas) {
        if let Some(shown) = thinking.finish() {
            self.events.push(thought(message_id, shown));
        }
        if let Some(shown) = text.finish() {
            self.events.push(token(message_id, shown));
        }
    }

    /// Ends the calls that were announced and not made: whoever watches must learn that nothing comes of them.
    fn end_open_calls(&self, progress: &mut Progress, why: &str) {
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

    /// Decides what follows a turn. Every stop reason has its own outcome.
    async fn follow(
        &self,
        turn: Turn,
        message_id: &str,
        conversation: &mut Conversation,
        progress: &mut Progress,
    ) -> Result<Next, Failure> {
        if turn.stop != StopReason::MaxTokens {
            progress.continuations = 0;
        }
        match &turn.stop {
            StopReason::ToolUse | StopReason::EndTurn | StopReason::StopSequence(_) if !turn.tool_calls.is_empty() => {
                conversation.push_assistant(&turn.content);
                self.call_tools(&turn.tool_calls, message_id, conversation, progress)
                    .await?;
                Ok(Next::Turn)
            }
            StopReason::ToolUse => Err(model_error("the model stopped to use a tool and named none".into())),
            StopReason::EndTurn if !turn.has_text && !progress.asked_for_text => {
                // A repetition of the same request would give the same: the model needs something new to answer to.
                progress.asked_for_text = true;
                conversation.push_assistant(&turn.content);
                conversation.push_user_text(SAY_SOMETHING);
                Ok(Next::Turn)
            }
            StopReason::EndTurn => Ok(Next::Done),
            StopReason::StopSequence(sequence) => {
                tracing::info!(sequence, "the model stopped at a stop sequence");
                Ok(Next::Done)
            }
            StopReason::PauseTurn => {
                conversation.push_assistant(&turn.content);
                Ok(Next::Turn)
            }
            StopReason::MaxTokens => self.follow_cut_off(turn, conversation, progress),
            StopReason::Refusal { category, explanation } => {
                let category = category
                    .as_deref()
                    .map(|category| format!(" ({category})"))
                    .unwrap_or_default();
                let explanation = explanation.as_deref().unwrap_or("it gave no explanation");
                let message = format!("the model refused{category}: {explanation}");
                Err(Failure {
                    code: TaskErrorCode::Refusal,
                    message,
                })
            }
            StopReason::ContextWindowExceeded => {
                let message = format!(
                    "the conversation is larger than the context window of {}",
                    self.model_name
                );
                Err(Failure {
                    code: TaskErrorCode::ContextExceeded,
                    message,
                })
            }
            StopReason::Other(reason) => {
                let message = format!("the model stopped for a reason that this runner does not know: {reason:?}");
                Err(model_error(message))
            }
        }
    }

    /// After `max_tokens`. A call that was cut off cannot be used, nor can thinking without an answer: that turn is
    /// dropped, and asked for again with more room. Text is kept, and the model is asked to go on.
    fn follow_cut_off(
        &self,
        turn: Turn,
        conversation: &mut Conversation,
        progress: &mut Progress,
    ) -> Result<Next, Failure> {
        let limit = progress.limit.tokens();
        let failure = |what: &str| {
            let message = format!("the model's answer was cut off at max_tokens = {limit} {what}");
            Err(Failure {
                code: TaskErrorCode::MaxTokens,
                message,
            })
        };
        if turn.has_text && turn.tool_calls.is_empty() {
            progress.continuations += 1;
            if progress.continuations > MAX_CONTINUATIONS {
                return failure(&format!("{} times in a row", progress.continuations));
            }
            conversation.push_assistant(&turn.content);
            conversation.push_user_text(GO_ON);
            return Ok(Next::Turn);
        }
        self.end_open_calls(progress, CUT_OFF_CALL);
        if !progress.limit.raise() {
            return failure("before it had an answer or a complete tool call; a larger max_tokens gives it more room");
        }
        tracing::warn!(
            from = limit,
            to = progress.limit.tokens(),
            "a turn was cut off; asking again with more room"
        );
        Ok(Next::Turn)
    }

    /// Makes the calls of a turn one after the other, and adds all results as one message, in order.
    async fn call_tools(
        &self,
        calls: &[ToolCall],
        message_id: &str,
        conversation: &mut Conversation,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        let mut outcomes = Vec::with_capacity(calls.len());
        for call in calls {
            let args = Some(arguments(&call.input));
            let (tool_id, tool_name) = (call.id.clone(), call.name.clone());
            self.events.push(Event::ToolStart {
                message_id: message_id.into(),
                tool_id,
                tool_name,
                args,
            });
            let mut outcome = self.call_tool(call).await;
            progress.open_calls.retain(|id| *id != call.id);
            mask(&mut outcome.text, self.events.redactor());
            self.tool_end(&call.id, &outcome);
            if self.cancel.is_cancelled() {
                return Err(Cancelled.into());
            }
            outcomes.push(outcome);
        }
        let results: Vec<_> = calls
            .iter()
            .zip(&outcomes)
            .map(|(call, outcome)| ToolResult {
                tool_use_id: &call.id,
                content: &outcome.text,
                is_error: outcome.error.is_some(),
            })
            .collect();
        conversation.push_tool_results(&results);
        Ok(())
    }

    fn tool_end(&self, tool_id: &str, outcome: &ToolOutcome) {
        for note in &outcome.notes {
            self.events.push(Event::Log {
                level: LogLevel::Info,
                message: note.clone(),
                step_index: None,
                partial: false,
            });
        }
        let event = Event::ToolEnd {
            tool_id: tool_id.to_owned(),
            tool_state: if outcome.error.is_some() {
                ToolState::Error
            } else {
                ToolState::Success
            },
            output: outcome.text.clone(),
            duration_ms: millis(outcome.duration),
            truncated: outcome.truncated,
            code: outcome.error,
        };
        self.events.push(event);
    }

    fn live_output(&self, tool_id: &str) -> LiveOutput {
        if !self.extra_events {
            return Arc::new(|_| {});
        }
        let (events, tool_id) = (self.events.clone(), tool_id.to_owned());
        let plain = Mutex::new(self.events.redactor().stream());
        // What is kept back at the end is in the result.
        Arc::new(move |text| {
            let text = plain.lock().unwrap_or_else(PoisonError::into_inner).push_text(text);
            if !text.is_empty() {
                let tool_id = tool_id.clone();
                events.push(Event::ToolOutput { tool_id, text });
            }
        })
    }

    fn check_budget(&self, spent: &TaskUsage) -> Result<(), Failure> {
        match (self.task.max_cost_usd, spent.cost_usd) {
            (Some(max), Some(cost)) if cost >= max => {
                let message = format!("the task cost {cost:.4} US dollars, and its max_cost_usd is {max}");
                Err(Failure {
                    code: TaskErrorCode::Budget,
                    message,
                })
            }
            _ => Ok(()),
        }
    }
}

/// The arguments as events show them: the object that the model wrote, and whatever else it wrote in an object.
fn arguments(input: &str) -> Box<RawValue> {
    // Read as a value, which also refuses what other readers choke on: half of a surrogate pair, thousands of levels.
    if serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(input).is_ok()
        && let Ok(object) = RawValue::from_string(input.to_owned())
    {
        return object;
    }
    serde_json::value::to_raw_value(&serde_json::json!({ INVALID_INPUT_KEY: input }))
        .unwrap_or_else(|_| RawValue::NULL.to_owned())
}

fn new_message_id() -> String {
    // Without randomness an id that repeats is better than no task.
    format!("msg_{:012x}", getrandom::u64().unwrap_or_default() & 0xffff_ffff_ffff)
}

fn model_error(message: String) -> Failure {
    Failure {
        code: TaskErrorCode::ModelError,
        message,
    }
}

impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Self {
        let code = match &error {
            ModelError::Auth(_) => TaskErrorCode::ModelAuth,
            ModelError::ModelNotFound(_) => TaskErrorCode::ModelRetired,
            ModelError::TooLong(_) => TaskErrorCode::ContextExceeded,
            ModelError::Failed(_) => TaskErrorCode::ModelError,
        };
        Failure {
            code,
            message: error.to_string(),
        }
    }
}
