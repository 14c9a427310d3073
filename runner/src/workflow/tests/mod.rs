//! The workflow's loop against a sandbox whose commands are written down: no process, no files.
//!
//! A [`Case`] is the steps and what their commands do, and everything that must come of it: each event and each
//! command, in their order, and the ending.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Memory, Workflow};
use crate::events::TaskErrorCode;
use crate::events::recording::Recording;
use crate::failure::Failure;
use crate::task::{Step, StepKind, WorkflowTask};
use crate::telemetry::Telemetry;
use plue_sandbox::CommandSpec;

mod cancellation;
mod endings;
mod output;
mod scripted_sandbox;
mod steps;

use scripted_sandbox::{ScriptedCommand, ScriptedSandbox};

/// How long a case may take: far more than any does, so that one that hangs is a failure.
const HANGS: Duration = Duration::from_secs(10);

/// One workflow, and what must come of it.
struct Case {
    /// What it shows, for whoever sees it fail.
    name: &'static str,
    steps: Vec<Step>,
    secrets: &'static [&'static str],
    cancelled_before: bool,
    flush_after: Duration,
    commands: Vec<ScriptedCommand>,
}

/// All that came of a case.
struct Outcome {
    name: &'static str,
    result: Result<(), Failure>,
    events: Vec<String>,
    started: Vec<CommandSpec>,
}

/// As many steps as there are commands: A, B, C, …
fn case(name: &'static str, commands: impl IntoIterator<Item = ScriptedCommand>) -> Case {
    let commands: Vec<ScriptedCommand> = commands.into_iter().collect();
    let names = ["A", "B", "C"].into_iter().take(commands.len());
    Case {
        name,
        steps: names.map(run).collect(),
        secrets: &[],
        cancelled_before: false,
        flush_after: HANGS,
        commands,
    }
}

/// A step that runs a script of the same name for at most 9 s.
fn run(name: &str) -> Step {
    let kind = StepKind::Run {
        script: name.into(),
        env: BTreeMap::new(),
        working_directory: ".".into(),
        timeout: Duration::from_secs(9),
    };
    let name = name.into();
    Step { name, kind }
}

impl Case {
    fn steps(mut self, steps: impl IntoIterator<Item = Step>) -> Self {
        self.steps = steps.into_iter().collect();
        self
    }

    /// Runs it. Whatever comes of it, all commands that are written down were started.
    async fn run(self) -> Outcome {
        let outcome = self.run_some().await;
        assert_eq!(outcome.1, 0, "{}: commands that are left", outcome.0.name);
        outcome.0
    }

    /// Runs it. Also says how many commands were not started.
    async fn run_some(self) -> (Outcome, usize) {
        let cancel = CancellationToken::new();
        if self.cancelled_before {
            cancel.cancel();
        }
        let recording = Recording::default();
        let sandbox = ScriptedSandbox::new(self.commands, &cancel, &recording);
        let task = WorkflowTask {
            steps: self.steps,
            timeout: None,
        };
        let workflow = Workflow {
            task: &task,
            sandbox: &sandbox,
            events: &recording.sink(self.secrets),
            telemetry: &Telemetry::default(),
            cancel: &cancel,
            flush_after: self.flush_after,
            memory: &Memory::default(),
        };
        let running = tokio::time::timeout(HANGS, workflow.run());
        let result = running.await.unwrap_or_else(|_| panic!("{}: it hangs", self.name));
        let outcome = Outcome {
            name: self.name,
            result,
            events: recording.lines(),
            started: sandbox.started(),
        };
        (outcome, sandbox.left())
    }
}

impl Outcome {
    #[track_caller]
    fn events(self, expected: &[&str]) -> Self {
        assert_eq!(self.events, expected, "{}: events", self.name);
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

    /// The task fails with this code and this message.
    #[track_caller]
    fn fails(self, code: TaskErrorCode, message: &str) -> Self {
        match &self.result {
            Ok(()) => panic!("{}: it succeeds", self.name),
            Err(failure) => assert_eq!((failure.code, &*failure.message), (code, message), "{}", self.name),
        }
        self
    }
}
