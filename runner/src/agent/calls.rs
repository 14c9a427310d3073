//! The calls of a turn: made one after the other, told, and answered in one message.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::value::RawValue;

use super::masked_text::mask;
use super::memory::Entry;
use super::resume::{KnownCall, restarted};
use super::{Agent, Pattern, Progress, STUCK, usage};
use crate::events::{Event, LogLevel, TaskErrorCode, ToolState, millis};
use crate::failure::{Cancelled, Failure};
use plue_contract::{LiveOutput, ToolErrorCode, ToolOutcome};
use plue_messages::{Conversation, INVALID_INPUT_KEY, ToolCall, ToolResult, Turn};

impl Agent<'_> {
    /// Makes the calls of a turn one after the other, and adds all results as one message, in order.
    pub(super) async fn call_tools(
        &self,
        turn: &Turn,
        message_id: &str,
        conversation: &mut Conversation,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        let calls = &turn.tool_calls;
        let cut = turn.cut_call().map(|call| call.id.as_str());
        let mut outcomes = Vec::with_capacity(calls.len());
        progress.over_calls.clear();
        for call in calls {
            let outcome = match self.known_call(&call.id, progress)? {
                // Its end may not have been told any more.
                Some(KnownCall::Ended(outcome)) => {
                    if self.memory.is_open(&call.id) {
                        self.tool_end(&call.id, &outcome);
                    }
                    outcome
                }
                Some(KnownCall::Begun) => self.ended(call, restarted()),
                None => {
                    self.memory.note(|| Entry::CallBegins(call.id.clone()));
                    let args = Some(arguments(&call.input));
                    let (tool_id, tool_name) = (call.id.clone(), call.name.clone());
                    self.events.push(Event::ToolStart {
                        message_id: message_id.into(),
                        tool_id,
                        tool_name,
                        args,
                    });
                    let outcome = match cut == Some(call.id.as_str()) {
                        true => self.cut_off(call, turn),
                        false => self.call_tool(call).await,
                    };
                    self.ended(call, outcome)
                }
            };
            progress.open_calls.retain(|id| *id != call.id);
            progress.over_calls.insert(call.id.clone());
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
        let made = calls.iter().zip(&outcomes);
        let made = made.map(|(call, outcome)| (call.name.as_str(), call.input.as_str(), outcome.text.as_str()));
        match progress.repetition.note(made) {
            Pattern::New => Ok(()),
            Pattern::Repeats => {
                self.note("the agent repeats the same calls with the same results; it is told so".into());
                conversation.push_user_text(STUCK);
                Ok(())
            }
            Pattern::Stuck => Err(Failure {
                code: TaskErrorCode::Stuck,
                message: format!(
                    "the agent repeated the same calls with the same results, also after it was told so: {}",
                    calls
                        .iter()
                        .map(|call| call.name.as_str())
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
            }),
        }
    }

    /// Tells how a call has ended, without what is secret in it.
    fn ended(&self, call: &ToolCall, mut outcome: ToolOutcome) -> ToolOutcome {
        mask(&mut outcome.text, self.events.redactor());
        // Whoever was told of it is never told so twice, since this is known by then.
        self.memory.note(|| Entry::CallEnds(call.id.clone(), (&outcome).into()));
        self.tool_end(&call.id, &outcome);
        outcome
    }

    /// What becomes of a call whose arguments the limit of the answer cut off: the model reads what it can do.
    fn cut_off(&self, call: &ToolCall, turn: &Turn) -> ToolOutcome {
        let has = |tool: &str| self.tools.definitions().iter().any(|known| known.name == tool);
        let in_parts = match call.name.as_str() {
            "write_file" if has("edit_file") => {
                "Write the file in parts, with append for each after the first, or change it with edit_file."
            }
            "write_file" => "Write the file in parts, with append for each after the first.",
            _ => "Make it smaller, or divide it into several calls.",
        };
        let text = format!(
            "The call was not made: your arguments were cut after {}, since an answer has no more room. {in_parts}",
            usage::tokens(turn.usage.output_tokens)
        );
        ToolOutcome {
            error: Some(ToolErrorCode::InvalidInput),
            text,
            truncated: false,
            duration: Duration::ZERO,
            notes: Vec::new(),
        }
    }

    pub(super) fn tool_end(&self, tool_id: &str, outcome: &ToolOutcome) {
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

    /// Where the live output of a call goes, and what passes on what was kept back of it when the call is over.
    pub(super) fn live_output(&self, tool_id: &str) -> (LiveOutput, impl FnOnce() + use<>) {
        let plain = Arc::new(Mutex::new(self.events.redactor().stream()));
        let (events, tool_id) = (self.events.clone(), tool_id.to_owned());
        let is_wanted = self.extra_events;
        let tell = Arc::new(move |text: String| {
            if is_wanted && !text.is_empty() {
                let tool_id = tool_id.clone();
                events.push(Event::ToolOutput { tool_id, text });
            }
        });
        let (kept, last) = (Arc::clone(&plain), Arc::clone(&tell));
        let live: LiveOutput = Arc::new(move |text| {
            if is_wanted {
                tell(plain.lock().unwrap_or_else(PoisonError::into_inner).push_text(text));
            }
        });
        let rest = move || last(kept.lock().unwrap_or_else(PoisonError::into_inner).finish_text());
        (live, rest)
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
