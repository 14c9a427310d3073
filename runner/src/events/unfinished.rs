//! What has begun and has no end yet. Whatever ends a task, its calls and steps end before it: whoever watches would
//! wait for them for ever.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::event::{Event, StepState, ToolState};
use super::record::Record;
use plue_contract::ToolErrorCode;

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
            Event::Token { .. }
            | Event::Thinking { .. }
            | Event::ToolOutput { .. }
            | Event::Log { .. }
            | Event::Usage { .. }
            | Event::MessageReset { .. }
            | Event::Alive
            | Event::Done { .. }
            | Event::Error { .. } => None,
        }
    }
}

/// See the module. Times are milliseconds since 1970, so that it can be kept where a process that comes later reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfinished {
    calls: BTreeMap<String, i64>,
    step: Option<(String, usize, i64)>,
}

impl Unfinished {
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

    /// The ids of calls that are open.
    pub fn calls(&self) -> impl Iterator<Item = &str> {
        self.calls.keys().map(String::as_str)
    }

    /// The index of the step that is open.
    pub fn step(&self) -> Option<usize> {
        self.step.as_ref().map(|(_, index, _)| *index)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What is open after these events, each of which has been a frame in between, as from a worker.
    fn open(events: impl IntoIterator<Item = Event>) -> Unfinished {
        let mut open = Unfinished::default();
        for event in events {
            let frame = crate::framing::frame(&Record::from(event));
            let (record, _) = crate::framing::first::<Record>(&frame).unwrap().unwrap();
            open.note(&record);
        }
        open
    }

    fn call(id: &str) -> Event {
        Event::ToolStart {
            message_id: "msg_a".into(),
            tool_id: id.into(),
            tool_name: "grep".into(),
            args: None,
        }
    }

    fn end_of_call(id: &str) -> Event {
        Event::ToolEnd {
            tool_id: id.into(),
            tool_state: ToolState::Success,
            output: String::new(),
            duration_ms: 1,
            truncated: false,
            code: None,
        }
    }

    fn step(step_index: usize) -> Event {
        let step_name = "Build".into();
        Event::StepStart { step_name, step_index }
    }

    fn end_of_step(step_index: usize) -> Event {
        Event::StepEnd {
            step_name: "Build".into(),
            step_index,
            step_state: StepState::Success,
            output: None,
            exit_code: Some(0),
            duration_ms: 1,
        }
    }

    #[test]
    fn what_has_begun_is_open_until_it_has_ended() {
        let calls = |open: &Unfinished| open.calls.keys().cloned().collect::<Vec<_>>();
        let both = open([call("t1"), call("t2"), call("t1")]);
        assert_eq!(calls(&both), ["t1", "t2"]);
        let one = open([call("t1"), call("t2"), end_of_call("t1")]);
        assert_eq!(calls(&one), ["t2"]);
        assert_eq!(open([call("t1"), end_of_call("t1")]), Unfinished::default());
        let first = open([step(4)]);
        assert!(matches!(&first.step, Some((name, 4, _)) if name == "Build"));
        assert!(matches!(open([step(4), end_of_step(4), step(5)]).step, Some((_, 5, _))));
        assert_eq!(open([step(4), end_of_step(4)]), Unfinished::default());
    }

    #[test]
    fn an_event_that_stands_for_itself_opens_nothing() {
        let (message_id, text, token_index) = ("msg_a".into(), "a".into(), 0);
        let token = Event::Token {
            message_id,
            text,
            token_index,
        };
        assert_eq!(open([token]), Unfinished::default());
    }
}
