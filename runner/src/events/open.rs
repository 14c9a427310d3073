//! What has begun and has no end yet. Whatever ends a task, its calls and steps end before it: whoever watches would wait for
//! them for ever.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::event::{Event, StepState, ToolState};
use super::record::{Kind, Record};
use crate::tools::ToolErrorCode;

const CALL: &str = "The call has no result: the task ended before it did.";
const STEP: &str = "the task ended before the step did";

/// See the module.
#[derive(Default)]
pub(super) struct Open {
    calls: BTreeMap<String, Timestamp>,
    step: Option<(String, usize, Timestamp)>,
}

impl Open {
    /// Takes note of what a record begins or ends.
    pub(super) fn note(&mut self, record: &Record) {
        let id = || record.members()["tool_id"].as_str().map(str::to_owned);
        match record.kind {
            Kind::ToolStart => {
                if let Some(id) = id() {
                    self.calls.entry(id).or_insert(record.timestamp);
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
                self.step = index.map(|index| (name, index, record.timestamp));
            }
            Kind::StepEnd => self.step = None,
            _ => {}
        }
    }

    /// Ends everything that is open.
    pub(super) fn close(&mut self) -> Vec<Record> {
        let since = |begun: Timestamp| {
            let duration = Timestamp::now().duration_since(begun);
            u64::try_from(duration.as_millis()).unwrap_or_default()
        };
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
