//! The agent's loop against a model and tools that are written down: no network, no sandbox, no clock.
//!
//! A [`Case`] is what the model and the tools do, and everything that must come of it: each event, each request and
//! each call, in their order, and the ending.

use std::time::Duration;

use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use super::{Agent, Memory, NoTools, TaskUsage};
use crate::events::TaskErrorCode;
use crate::events::recording::Recording;
use crate::failure::Failure;
use crate::task::AgentTask;
use crate::telemetry::Telemetry;
use plue_contract::Toolbox;
use plue_messages::{InitialMessage, Role};

mod calls;
mod cancellation;
mod limits;
mod results;
mod resume;
mod scripted_model;
mod scripted_toolbox;
mod stop_reasons;
mod stream;
mod summaries;

use scripted_model::{ScriptedModel, ScriptedTurn};
use scripted_toolbox::{ScriptedCall, ScriptedToolbox};

/// 2 US dollars for a million tokens in and 10 for as many out; answers of up to 128,000 tokens.
const MODEL: &str = "claude-sonnet-5-5";

/// What is asked of a model first, when the task does not say.
const FIRST_ASKED: &str = "64000: user \"Go\"";

/// How long a case may take: far more than any does, so that one that hangs is a failure.
const HANGS: Duration = Duration::from_secs(10);

/// One conversation, and what must come of it.
struct Case {
    /// What it shows, for whoever sees it fail.
    name: &'static str,
    task: AgentTask,
    model_name: &'static str,
    extra_events: bool,
    secrets: &'static [&'static str],
    has_tools: bool,
    cancelled_before: bool,
    deadline: Option<(tokio::time::Instant, Duration)>,
    turns: Vec<ScriptedTurn>,
    calls: Vec<ScriptedCall>,
}

/// All that came of a case.
struct Outcome {
    name: &'static str,
    result: Result<Box<RawValue>, Failure>,
    events: Vec<String>,
    asked: Vec<String>,
    called: Vec<String>,
    spent: TaskUsage,
}

fn case(name: &'static str, turns: impl IntoIterator<Item = ScriptedTurn>) -> Case {
    Case {
        name,
        task: AgentTask {
            model: MODEL.into(),
            system_prompt: None,
            messages: vec![InitialMessage {
                role: Role::User,
                content: RawValue::from_string("\"Go\"".into()).unwrap(),
            }],
            tools: vec!["grep".into()],
            max_turns: 10,
            max_tokens: None,
            thinking: None,
            effort: None,
            max_cost_usd: None,
            max_tokens_total: None,
            output_schema: None,
            timeout: None,
        },
        model_name: MODEL,
        extra_events: false,
        secrets: &[],
        has_tools: true,
        cancelled_before: false,
        deadline: None,
        turns: turns.into_iter().collect(),
        calls: Vec::new(),
    }
}

impl Case {
    fn calls(mut self, calls: impl IntoIterator<Item = ScriptedCall>) -> Self {
        self.calls = calls.into_iter().collect();
        self
    }

    fn task(mut self, change: impl FnOnce(&mut AgentTask)) -> Self {
        change(&mut self.task);
        self
    }

    fn extra_events(mut self) -> Self {
        self.extra_events = true;
        self
    }

    /// Runs it. Whatever comes of it, all that is written down was used, and no request is left open.
    async fn run(self) -> Outcome {
        let cancel = CancellationToken::new();
        if self.cancelled_before {
            cancel.cancel();
        }
        let recording = Recording::default();
        let events = recording.sink(self.secrets);
        let model = ScriptedModel::new(self.turns, &cancel);
        let scripted = ScriptedToolbox::new(self.calls, &cancel);
        let tools: &dyn Toolbox = if self.has_tools { &scripted } else { &NoTools };
        let mut spent = TaskUsage::new();
        let agent = Agent {
            task: &self.task,
            model_name: self.model_name,
            model: &model,
            tools,
            events: &events,
            telemetry: &Telemetry::default(),
            extra_events: self.extra_events,
            cancel: &cancel,
            deadline: self.deadline,
            memory: &Memory::default(),
        };
        let running = tokio::time::timeout(HANGS, agent.run(&mut spent));
        let result = running.await.unwrap_or_else(|_| panic!("{}: it hangs", self.name));
        assert_eq!(model.left(), (0, 0), "{}: turns and requests that are left", self.name);
        assert_eq!(scripted.left(), 0, "{}: calls that are left", self.name);
        Outcome {
            name: self.name,
            result,
            events: recording.lines(),
            asked: model.asked(),
            called: scripted.called(),
            spent,
        }
    }
}

impl Outcome {
    #[track_caller]
    fn events(self, expected: &[&str]) -> Self {
        assert_eq!(self.events, expected, "{}: events", self.name);
        self
    }

    /// What the model was asked, turn by turn.
    #[track_caller]
    fn asked(self, expected: &[&str]) -> Self {
        assert_eq!(self.asked, expected, "{}: requests", self.name);
        self
    }

    #[track_caller]
    fn called(self, expected: &[&str]) -> Self {
        assert_eq!(self.called, expected, "{}: calls", self.name);
        self
    }

    /// The task succeeds.
    #[track_caller]
    fn succeeds(self) -> Self {
        if let Err(failure) = &self.result {
            panic!("{}: {:?}: {failure}", self.name, failure.code);
        }
        self
    }

    /// The task fails with this code, and a message that has this in it.
    #[track_caller]
    fn fails(self, code: TaskErrorCode, text: &str) -> Self {
        match &self.result {
            Ok(_) => panic!("{}: it succeeds", self.name),
            Err(failure) => {
                assert_eq!(failure.code, code, "{}: {failure}", self.name);
                assert!(failure.message.contains(text), "{}: {failure}", self.name);
            }
        }
        self
    }
}
