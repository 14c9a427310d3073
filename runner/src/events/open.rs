//! What has begun and has no end yet. Whatever ends a task, its calls and steps end before it: whoever watches would wait for
//! them for ever.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::event::{Event, StepState, ToolState};
use super::record::Record;
use crate::contract::ToolErrorCode;

const CALL: &str = "The call has no result: the task ended before it did.";
const STEP: &str = "the task ended before the step did";

/// What a record begins or ends. It goes with the record, so that nobody has to read the record's JSON for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Boundary {
    /// The call with this id begins. It is told twice: when the model begins to write it, and when it is made.
    CallBegins(String),
    CallEnds(String),
    StepBegins {
        name: String,
        index: usize,
    },
    StepEnds,
}

impl Boundary {
    /// Of an event; `None` for one that stands for itself.
    pub(super) fn of(event: &Event) -> Option<Self> {
        match event {
            Event::ToolStart { tool_id, .. } => Some(Self::CallBegins(tool_id.clone())),
            Event::ToolEnd { tool_id, .. } => Some(Self::CallEnds(tool_id.clone())),
            Event::StepStart { step_name, step_index } => Some(Self::StepBegins {
                name: step_name.clone(),
                index: *step_index,
            }),
            Event::StepEnd { .. } => Some(Self::StepEnds),
            _ => None,
        }
    }
}

/// See the module. Times are milliseconds since 1970, so that it can be kept where a process that comes later reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    calls: BTreeMap<String, i64>,
    step: Option<(String, usize, i64)>,
}

impl Open {
    /// Takes note of what a record begins or ends.
    pub fn note(&mut self, record: &Record) {
        let begun = record.timestamp.as_millisecond();
        match &record.boundary {
            Some(Boundary::CallBegins(id)) => {
                self.calls.entry(id.clone()).or_insert(begun);
            }
            Some(Boundary::CallEnds(id)) => {
                self.calls.remove(id);
            }
            Some(Boundary::StepBegins { name, index }) => self.step = Some((name.clone(), *index, begun)),
            Some(Boundary::StepEnds) => self.step = None,
            None => {}
        }
    }

    /// Ends everything that is open.
    pub(super) fn close(&mut self) -> Vec<Record> {
        let now = Timestamp::now().as_millisecond();
        let since = |begun: i64| u64::try_from(now.saturating_sub(begun)).unwrap_or_default();
        let calls = std::mem::take(&mut self.calls).into_iter().map(|(tool_id, begun)| {
            Record::from(Event::ToolEnd {
                tool_id,
                tool_state: ToolState::Error,
                output: CALL.into(),
                duration_ms: since(begun),
                truncated: false,
                code: Some(ToolErrorCode::Cancelled),
            })
        });
        let mut records: Vec<Record> = calls.collect();
        if let Some((step_name, step_index, begun)) = self.step.take() {
            records.push(Record::from(Event::StepEnd {
                step_name,
                step_index,
                step_state: StepState::Error,
                output: Some(STEP.into()),
                exit_code: None,
                duration_ms: since(begun),
            }));
        }
        records
    }
}
