//! What has begun and has no end yet. Whatever ends a task, its calls and steps end before it: whoever watches would wait for
//! them for ever.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::event::{Event, StepState, ToolState};
use super::record::{Kind, Record};
use plue_contract::ToolErrorCode;

const CALL: &str = "The call has no result: the task ended before it did.";
const STEP: &str = "the task ended before the step did";

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
        let id = || record.members()["tool_id"].as_str().map(str::to_owned);
        match record.kind {
            Kind::ToolStart => {
                if let Some(id) = id() {
                    self.calls.entry(id).or_insert(begun);
                }
            }
            Kind::ToolEnd => {
                if let Some(id) = id() {
                    self.calls.remove(&id);
                }
            }
            Kind::StepStart => {
                let members = record.members();
                let name = members["step_name"].as_str().unwrap_or_default().to_owned();
                let index = members["step_index"]
                    .as_u64()
                    .and_then(|index| usize::try_from(index).ok());
                self.step = index.map(|index| (name, index, begun));
            }
            Kind::StepEnd => self.step = None,
            _ => {}
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
