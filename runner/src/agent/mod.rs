//! The agent: model turn → tool calls → results, until the model says that it is done.
//!
//! It knows a trait for the model, one for the tools, and the event queue; none of them needs a network in a test.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::events::{Event, EventSink, LogLevel, TaskErrorCode};
use crate::failure::Failure;
use crate::task::AgentTask;
use crate::telemetry::Telemetry;
use plue_contract::Toolbox;
use plue_messages::{Conversation, ConversationConfig, InitialMessage, Model, ModelError, StopReason, Turn};

mod allowance;
mod answer;
mod calls;
mod masked_text;
mod memory;
mod no_tools;
mod output_limit;
mod repetition;
mod resume;
mod spans;
mod streaming;
mod summary;
#[cfg(test)]
mod tests;
mod usage;

use answer::{Answer, Verdict};
pub use memory::Memory;
use memory::{Asked, Entry, KeptTurn};
pub use no_tools::NoTools;
pub use output_limit::OutputLimit;
use repetition::{Pattern, Repetition};
pub use usage::TaskUsage;
use usage::report;

/// How often in a row a cut-off answer is asked to go on.
const MAX_CONTINUATIONS: u32 = 3;
const GO_ON: &str =
    "Your answer was cut off by its length limit. Go on exactly where it stopped, without repeating anything.";
const SAY_SOMETHING: &str =
    "Your last turn had no text. If there is more to do, go on; otherwise say what you did and what came of it.";
const STUCK: &str = "You have made the same calls with the same results several times in a row. Repeating them again \
                     will not change anything: try something else, or say what you have found and what is in the way.";
const NOT_MADE: &str = "The call was not made: the task ended.";
const CUT_OFF_CALL: &str = "The model's answer was cut off in the middle of this call; it was not made.";
const BROKEN_OFF_CALL: &str = "The model's answer broke off in the middle of this call; it was not made.";

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
    /// When the task is ended, and how long it may take in all.
    pub deadline: Option<(Instant, Duration)>,
    /// What is kept for a process that goes on with the task, and what an earlier one has kept.
    pub memory: &'a Memory,
}

/// What follows a turn.
enum Next {
    /// The task is done, and this is what it came to.
    Done(Box<RawValue>),
    /// Ask the model again.
    Turn,
    /// Ask it again, once there is room for it.
    MakeRoom,
}

/// What a task remembers from turn to turn, besides the conversation.
struct Progress {
    limit: OutputLimit,
    continuations: u32,
    asked_for_text: bool,
    /// Calls that the model opened and that have no end yet.
    open_calls: Vec<String>,
    /// Calls of the turn that is followed that have ended, and how many turns there were with it.
    over_calls: HashSet<String>,
    turns: u32,
    /// The ids of all calls so far.
    call_ids: HashSet<String>,
    repetition: Repetition,
    answer: Answer,
    /// How many tokens the conversation had after the last turn; `None`: nobody knows.
    context: Option<u64>,
    /// Whether nothing was finished since room was made.
    made_room: bool,
    /// Whether the turn that was asked for is the last one that the budget has room for.
    is_last_turn: bool,
    /// Whether somebody was told that the limits cannot be held, since nothing is counted.
    told_uncounted: bool,
    /// The message that comes in the place of one that was taken back.
    next_message: Option<String>,
    /// Whether the model was told that its time ends.
    told_time: bool,
}

impl Agent<'_> {
    /// Runs the task to its end. Gives what it came to: the final text, or the object that the task asks for.
    ///
    /// # Errors
    /// Every ending that is no success.
    pub async fn run(&self, spent: &mut TaskUsage) -> Result<Box<RawValue>, Failure> {
        let answer = Answer::new(self.task, self.model_name)?;
        self.events.mute(self.memory.replays());
        let mut conversation = self.conversation(&answer);
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
            over_calls: HashSet::new(),
            turns: 0,
            call_ids: call_ids(&self.task.messages),
            repetition: Repetition::default(),
            answer,
            context: None,
            made_room: false,
            is_last_turn: false,
            told_uncounted: false,
            next_message: None,
            told_time: false,
        };
        let span = self.telemetry.agent_span(self.model_name);
        let turns = self.turns(&mut conversation, &mut progress, spent);
        let result = span.within(turns).await;
        self.go_on(&progress, spent.turns);
        span.used(spans::tokens(&spent.usage));
        if let Err(failure) = &result {
            span.fail(failure.code.as_str());
        }
        // Calls that an earlier process has made are not open, whatever was kept of them.
        if !self.memory.has_diverged() {
            self.end_open_calls(&mut progress, NOT_MADE);
        }
        result
    }

    /// What the task says, before anything was answered.
    fn conversation(&self, answer: &Answer) -> Conversation {
        let mut conversation = Conversation::new(ConversationConfig {
            model: self.model_name,
            system: self.task.system_prompt.as_deref(),
            tools: self.tools.definitions(),
            thinking: self.task.thinking.as_deref(),
            show_thinking: self.extra_events,
            effort: self.task.effort.as_deref(),
            output_schema: answer.schema_for_api(),
            messages: &self.task.messages,
        });
        if let Some(instruction) = answer.instruction() {
            conversation.push_user_text(&instruction);
        }
        conversation
    }

    /// Asks the model turn by turn.
    async fn turns(
        &self,
        conversation: &mut Conversation,
        progress: &mut Progress,
        spent: &mut TaskUsage,
    ) -> Result<Box<RawValue>, Failure> {
        while spent.turns < self.task.max_turns {
            self.go_on_if_over(progress, spent.turns);
            if self
                .memory
                .next_if(|entry| matches!(entry, Entry::SchemaRefused))
                .is_some()
            {
                progress.answer.do_without_api();
                *conversation = self.conversation(&progress.answer);
            }
            if progress.is_last_turn {
                return Err(self.over_budget(spent));
            }
            self.make_room_in_time(conversation, progress, spent).await?;
            self.allow(conversation, progress, spent)?;
            spent.turns += 1;
            let result = match self.known_turn(conversation, progress, spent) {
                Ok(Some(known)) => Ok(known),
                Ok(None) => self.ask(conversation, progress, spent).await,
                Err(failure) => Err(failure),
            };
            let (turn, message_id) = match result {
                Ok(told) => told,
                Err(failure) if failure.code == TaskErrorCode::ContextExceeded => {
                    self.memory.note(|| Entry::TooLong(failure.message.clone()));
                    // Nothing was answered, so it was no turn.
                    spent.turns -= 1;
                    self.end_open_calls(progress, BROKEN_OFF_CALL);
                    self.make_room(conversation, progress, spent, failure).await?;
                    continue;
                }
                Err(failure) if spent.turns == 1 && progress.answer.is_refused_by_api(&failure) => {
                    self.note("the API does not take the task's output_schema; the model is told of it instead".into());
                    self.memory.note(|| Entry::SchemaRefused);
                    spent.turns = 0;
                    *conversation = self.conversation(&progress.answer);
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            spent.add(&turn.usage, &turn.model, self.model_name);
            progress.context = turn.usage.total_tokens();
            progress.turns = spent.turns;
            self.tell_usage(&message_id, &turn.usage);
            self.memory.note(|| Entry::Answer {
                message_id: message_id.clone(),
                asked: Asked::of(&conversation.body(progress.limit.tokens())),
                turn: KeptTurn::from(&turn),
            });
            let stop = turn.stop.clone();
            match self.follow(turn, &message_id, conversation, progress).await? {
                Next::Done(result) => return Ok(result),
                // Where it is as full as before, another summary would be no help.
                Next::Turn => progress.made_room &= self.is_full(progress),
                Next::MakeRoom => {
                    let failure = self.context_exceeded(&stop);
                    self.make_room(conversation, progress, spent, failure).await?;
                }
            }
        }
        let message = format!(
            "the agent used all of its {} turns without finishing; a larger max_turns (at most {}) gives it more",
            self.task.max_turns,
            crate::task::agent::MAX_TURNS
        );
        Err(Failure {
            code: TaskErrorCode::MaxTurns,
            message,
        })
    }

    /// Asks the model for a turn, as a span of its own.
    async fn ask(
        &self,
        conversation: &mut Conversation,
        progress: &mut Progress,
        spent: &mut TaskUsage,
    ) -> Result<(Turn, String), Failure> {
        let span = self.telemetry.chat_span(self.model_name, progress.limit.tokens());
        let result = span.span().within(self.model_turn(conversation, progress, spent)).await;
        let outcome = result.as_ref().map(|(turn, _)| spans::answer(turn));
        span.end(self.model_name, outcome.map_err(|failure| failure.code.as_str()));
        result
    }

    fn tell_usage(&self, message_id: &str, usage: &plue_messages::Usage) {
        if self.extra_events {
            let (message_id, usage) = (message_id.to_owned(), report(usage));
            self.events.push(Event::Usage { message_id, usage });
        }
    }

    /// A line of the runner's own for whoever watches the task.
    fn note(&self, message: String) {
        self.events.push(Event::Log {
            level: LogLevel::Info,
            message,
            step_index: None,
            partial: false,
        });
    }

    fn context_exceeded(&self, stop: &StopReason) -> Failure {
        Failure {
            code: TaskErrorCode::ContextExceeded,
            message: format!(
                "the conversation is larger than the context window of {} ({})",
                self.model_name,
                stop.as_str()
            ),
        }
    }

    /// Decides what follows a turn. Every stop reason has its own outcome.
    async fn follow(
        &self,
        mut turn: Turn,
        message_id: &str,
        conversation: &mut Conversation,
        progress: &mut Progress,
    ) -> Result<Next, Failure> {
        if turn.stop != StopReason::MaxTokens {
            progress.continuations = 0;
        }
        match &turn.stop {
            // A paused turn may hold calls of ours, too: the API wants their results before it goes on.
            StopReason::ToolUse | StopReason::EndTurn | StopReason::StopSequence(_) | StopReason::PauseTurn
                if !turn.tool_calls.is_empty() =>
            {
                progress.answer.begin_anew();
                conversation.push_assistant(&turn.content);
                self.call_tools(&turn, message_id, conversation, progress).await?;
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
            StopReason::EndTurn => self.finish(&turn, conversation, progress),
            StopReason::StopSequence(sequence) => {
                tracing::info!(sequence, "the model stopped at a stop sequence");
                self.finish(&turn, conversation, progress)
            }
            StopReason::PauseTurn => {
                progress.answer.continue_with(&turn.text());
                conversation.push_assistant(&turn.content);
                Ok(Next::Turn)
            }
            StopReason::MaxTokens => {
                turn.drop_unsigned_thinking();
                self.follow_cut_off(turn, message_id, conversation, progress).await
            }
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
                self.end_open_calls(progress, CUT_OFF_CALL);
                self.take_back(message_id, "it came to the end of the context window", progress);
                self.note(format!(
                    "the answer came to the end of the context window of {}, after {}; it is asked for again",
                    self.model_name,
                    usage::tokens(turn.usage.output_tokens)
                ));
                Ok(Next::MakeRoom)
            }
            StopReason::Compaction => Err(model_error("the model gave a summary that nobody asked for".into())),
            StopReason::Other(reason) => {
                let message = format!("the model stopped for a reason that this runner does not know: {reason:?}");
                Err(model_error(message))
            }
        }
    }

    /// The model has said what it had to say. An answer that is not what the task asks for is asked for once more.
    fn finish(&self, turn: &Turn, conversation: &mut Conversation, progress: &mut Progress) -> Result<Next, Failure> {
        match progress.answer.finish(&turn.text()) {
            Verdict::Good(result) => Ok(Next::Done(result)),
            Verdict::Repair(problems) => {
                self.note("the answer does not fit the task's output_schema; the model is told so once".into());
                conversation.push_assistant(&turn.content);
                conversation.push_user_text(&problems);
                Ok(Next::Turn)
            }
            Verdict::Bad(problems) => Err(model_error(problems)),
        }
    }

    /// After `max_tokens`. Complete calls are made, and one that was cut off goes back to the model as an error; text
    /// is kept, and the model is asked to go on. Thinking without an answer is asked for again with more room.
    async fn follow_cut_off(
        &self,
        turn: Turn,
        message_id: &str,
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
        if turn.has_text || !turn.tool_calls.is_empty() {
            progress.continuations += 1;
            if progress.continuations > MAX_CONTINUATIONS {
                return failure(&format!("{} times in a row", progress.continuations));
            }
            conversation.push_assistant(&turn.content);
            if turn.tool_calls.is_empty() {
                progress.answer.continue_with(&turn.text());
                conversation.push_user_text(GO_ON);
            } else {
                self.call_tools(&turn, message_id, conversation, progress).await?;
                progress.limit.raise();
            }
            return Ok(Next::Turn);
        }
        if progress.limit.raise() {
            self.take_back(message_id, "it came to max_tokens before it had an answer", progress);
        } else {
            return failure("before it had an answer or a tool call; a larger max_tokens gives it more room");
        }
        self.note(format!(
            "the model had no answer after {}, which is all that max_tokens = {limit} allows; it is asked again with \
                {}",
            usage::tokens(turn.usage.output_tokens),
            progress.limit.tokens()
        ));
        Ok(Next::Turn)
    }
}

/// The ids of calls that the task's own messages hold.
fn call_ids(messages: &[InitialMessage]) -> HashSet<String> {
    #[derive(serde::Deserialize)]
    struct Block {
        r#type: String,
        id: String,
    }
    let blocks = |message: &InitialMessage| serde_json::from_str::<Vec<serde_json::Value>>(message.content.get());
    let blocks = messages.iter().filter_map(|message| blocks(message).ok()).flatten();
    let calls = blocks.filter_map(|block| serde_json::from_value::<Block>(block).ok());
    calls
        .filter(|block| block.r#type == "tool_use")
        .map(|block| block.id)
        .collect()
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
            ModelError::Refused(_) | ModelError::Failed(_) => TaskErrorCode::ModelError,
        };
        Failure {
            code,
            message: error.to_string(),
        }
    }
}
