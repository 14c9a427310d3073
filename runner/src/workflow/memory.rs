//! What a workflow notes of its steps for a process that goes on with it (`STATE_DIR`).

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Outcome;
use crate::events::{StepState, TaskErrorCode};
use crate::state::{self, Journal};

/// What the task ends with when a step was killed with its runner.
pub(super) const KILLED: &str = "the runner was killed in the middle of the step, and started again: the step may have \
    been made in part, so that it was not made again; look at what it has left, and run the task again under another \
    TASK_ID";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Entry {
    /// A step is about to be run.
    Begins(usize),
    Ends(usize, KeptOutcome),
}

/// How a step has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeptOutcome {
    state: KeptState,
    reason: Option<String>,
    exit_code: Option<i32>,
    code: TaskErrorCode,
    duration_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum KeptState {
    Success,
    Failure,
    Error,
}

impl KeptOutcome {
    pub(super) fn of(outcome: &Outcome, duration_ms: u64) -> Self {
        Self {
            state: match outcome.state {
                StepState::Success => KeptState::Success,
                StepState::Failure => KeptState::Failure,
                StepState::Error => KeptState::Error,
            },
            reason: outcome.reason.clone(),
            exit_code: outcome.exit_code,
            code: outcome.code,
            duration_ms,
        }
    }
}

/// What an earlier process knows of a step.
pub(super) enum KnownStep {
    /// It ran it, and nobody knows how far it came.
    Begun,
    /// So, after so many milliseconds.
    Ended(Outcome, u64),
}

/// See the module.
#[derive(Debug, Default)]
pub struct Memory {
    entries: state::Memory<Entry>,
    /// The step that is open for whoever watches, from an earlier process.
    open: Option<usize>,
    /// Whether there was an earlier process.
    resumed: bool,
}

impl Memory {
    /// Of a task that an earlier process may have begun.
    pub fn new(journal: &Arc<Journal>, past: VecDeque<Vec<u8>>, open: Option<usize>, resumed: bool) -> Self {
        Self {
            entries: state::Memory::new(journal, past),
            open,
            resumed,
        }
    }

    /// Whether an earlier process has had the task.
    pub(super) fn is_resumed(&self) -> bool {
        self.resumed
    }

    /// Whether a step is open for whoever watches, from an earlier process.
    pub(super) fn is_open(&self, index: usize) -> bool {
        self.open == Some(index)
    }

    /// What an earlier process knows of a step; `None`: it did not come so far.
    pub(super) fn step(&self, index: usize) -> Option<KnownStep> {
        self.entries.next_if(|entry| *entry == Entry::Begins(index))?;
        let ends = self
            .entries
            .next_if(|entry| matches!(entry, Entry::Ends(ended, _) if *ended == index));
        let Some(Entry::Ends(_, kept)) = ends else {
            return Some(KnownStep::Begun);
        };
        let outcome = Outcome {
            state: match kept.state {
                KeptState::Success => StepState::Success,
                KeptState::Failure => StepState::Failure,
                KeptState::Error => StepState::Error,
            },
            reason: kept.reason,
            exit_code: kept.exit_code,
            code: kept.code,
        };
        Some(KnownStep::Ended(outcome, kept.duration_ms))
    }

    pub(super) fn begins(&self, index: usize) {
        self.entries.note(&Entry::Begins(index), true);
    }

    pub(super) fn ends(&self, index: usize, outcome: &Outcome, duration_ms: u64) {
        self.entries
            .note(&Entry::Ends(index, KeptOutcome::of(outcome, duration_ms)), true);
    }
}
