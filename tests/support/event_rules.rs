//! What must hold *between* the events of one task: order, pairs, and the one terminal event. A single event's shape is
//! the schema's business.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

/// How many events one that goes on after a kill may take for lost, although they have arrived: the one that was on its
/// way, and any before it that a busy server took and acknowledged too late, each time.
const IN_DOUBT: u64 = 3;

/// How far a tool call has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    /// `tool_start` without `args` was seen.
    Opened,
    /// `tool_start` with `args` was seen.
    Started,
    Ended,
}

/// Follows the events of one task and says what breaks the protocol. Retries of an event are not to be fed twice.
#[derive(Default)]
pub struct EventRules {
    last_seq: u64,
    task_id: Option<Value>,
    message: Option<String>,
    past_messages: HashSet<String>,
    last_token: Option<i64>,
    calls: HashMap<String, Call>,
    step: Option<(i64, String)>,
    last_step: Option<i64>,
    terminal: Option<String>,
    /// The runner may be killed at any moment, and one that is started again ends the task: it cannot know whether the
    /// last event arrived.
    pub may_go_on_after_a_kill: bool,
    /// Events that never came.
    missing: u64,
    /// The last part that came of a text that goes on, and what it is a part of.
    part: Option<(Value, u64, u64)>,
}

impl EventRules {
    /// Takes the next event, and gives everything that is wrong with it at this place. `lost` is how many of the events
    /// before it were never delivered.
    pub fn accept(&mut self, event: &Value, lost: u64) -> Vec<String> {
        let mut wrong = Vec::new();
        let kind = event["type"].as_str().unwrap_or_default();
        self.number(event, &mut wrong);
        self.part(event, &mut wrong);
        if let Some(terminal) = &self.terminal {
            wrong.push(format!("{kind} comes after the terminal event {terminal}"));
        }
        match kind {
            "token" => self.token(event, &mut wrong),
            "tool_start" => self.tool_start(event, &mut wrong),
            "tool_end" => self.tool_end(event, &mut wrong),
            "step_start" => self.step_start(event, &mut wrong),
            "step_end" => self.step_end(event, &mut wrong),
            "log" => self.log(event, &mut wrong),
            "done" | "error" => self.terminal(kind, event, lost, &mut wrong),
            _ => {}
        }
        wrong
    }

    /// What is still missing when the runner has ended.
    pub fn finish(&self) -> Vec<String> {
        match self.terminal {
            None => vec!["the task has no terminal event".to_owned()],
            Some(_) => Vec::new(),
        }
    }

    fn number(&mut self, event: &Value, wrong: &mut Vec<String>) {
        let seq = event["seq"].as_u64().unwrap_or_default();
        if self.may_go_on_after_a_kill && seq == self.last_seq + 2 {
            self.missing += 1;
        } else if seq != self.last_seq + 1 {
            wrong.push(format!("seq {seq} comes after {}", self.last_seq));
        }
        self.last_seq = seq;
        let task_id = self.task_id.get_or_insert_with(|| event["task_id"].clone());
        if *task_id != event["task_id"] {
            wrong.push(format!("task_id {} in a stream of task {task_id}", event["task_id"]));
        }
    }

    /// Parts of one text come one after the other, up to the last. A server that is found to take less gets more of
    /// them than the first one has said.
    fn part(&mut self, event: &Value, wrong: &mut Vec<String>) {
        let whole: Value = ["type", "message_id", "token_index", "tool_id", "level", "step_index"]
            .map(|member| event[member].clone())
            .into();
        let number = |member: &str| event["part"][member].as_u64().unwrap_or_default();
        let (index, count) = match event.get("part") {
            Some(_) => (number("index"), number("count")),
            None => (0, 1),
        };
        let expected = match &self.part {
            // What was killed in the middle of a text does not go on with it.
            Some(_) if self.may_go_on_after_a_kill && index == 0 => 0,
            Some((open, last, of)) => {
                if *open != whole || index != last + 1 || count < *of {
                    wrong.push(format!(
                        "part {index} of {count} comes after part {last} of {of} of {open}"
                    ));
                }
                index
            }
            None => 0,
        };
        if index != expected || index >= count {
            wrong.push(format!("part {index} of {count}, and none is before it"));
        }
        self.part = (index + 1 < count).then_some((whole, index, count));
    }

    /// Notes which message an event belongs to. A message that was left does not come back.
    fn message(&mut self, event: &Value, wrong: &mut Vec<String>) {
        let Some(id) = event["message_id"].as_str() else { return };
        if self.message.as_deref() == Some(id) {
            return;
        }
        if let Some(previous) = self.message.replace(id.to_owned()) {
            self.past_messages.insert(previous);
        }
        self.last_token = None;
        if self.past_messages.contains(id) {
            wrong.push(format!("message {id} comes back after another one began"));
        }
    }

    fn token(&mut self, event: &Value, wrong: &mut Vec<String>) {
        self.message(event, wrong);
        let index = event["token_index"].as_i64().unwrap_or(-1);
        match self.last_token {
            None if index != 0 => wrong.push(format!("the first token of a message has token_index {index}")),
            // Another part of the same.
            Some(last) if index == last && event["part"]["index"].as_u64().is_some_and(|part| part > 0) => {}
            Some(last) if index <= last => wrong.push(format!("token_index {index} comes after {last}")),
            _ => {}
        }
        self.last_token = Some(index);
        if event["text"] == "" {
            wrong.push("a token without text".to_owned());
        }
    }

    fn tool_start(&mut self, event: &Value, wrong: &mut Vec<String>) {
        self.message(event, wrong);
        let id = event["tool_id"].as_str().unwrap_or_default().to_owned();
        let has_args = event.get("args").is_some();
        match (self.calls.get(&id), has_args) {
            (None, false) => self.calls.insert(id, Call::Opened),
            (Some(Call::Opened), true) => self.calls.insert(id, Call::Started),
            (state, _) => {
                let args = if has_args { "with" } else { "without" };
                wrong.push(format!("tool_start {args} args for call {id}, which is {state:?}"));
                None
            }
        };
    }

    fn tool_end(&mut self, event: &Value, wrong: &mut Vec<String>) {
        let id = event["tool_id"].as_str().unwrap_or_default().to_owned();
        // A call that was cut off before its arguments were known ends too, and can only have failed.
        let state = self.calls.insert(id.clone(), Call::Ended);
        match state {
            Some(Call::Started) => {}
            Some(Call::Opened) if event["tool_state"] == "error" => {}
            None if self.missing > 0 => {}
            _ => wrong.push(format!("tool_end for call {id}, which is {state:?}")),
        }
    }

    fn step_start(&mut self, event: &Value, wrong: &mut Vec<String>) {
        let step = step_of(event);
        if let Some(open) = &self.step {
            wrong.push(format!("step {} starts within step {}", step.0, open.0));
        }
        if self.last_step.is_some_and(|last| step.0 <= last) {
            wrong.push(format!("step_index {} comes after {:?}", step.0, self.last_step));
        }
        self.last_step = Some(step.0);
        self.step = Some(step);
    }

    fn step_end(&mut self, event: &Value, wrong: &mut Vec<String>) {
        let ended = step_of(event);
        // What never came may have been its beginning.
        let open = self.step.take();
        if open.as_ref() != Some(&ended) && (open.is_some() || self.missing == 0) {
            wrong.push(format!(
                "step_end for step {} ({}), which is not the open one",
                ended.0, ended.1
            ));
        }
    }

    fn log(&mut self, event: &Value, wrong: &mut Vec<String>) {
        let Some(index) = event.get("step_index").and_then(Value::as_i64) else {
            if self.step.is_some() && (event["level"] == "stdout" || event["level"] == "stderr") {
                wrong.push("a line of a step without step_index".to_owned());
            }
            return;
        };
        if self.step.as_ref().map(|step| step.0) != Some(index) {
            wrong.push(format!(
                "a log line of step {index}, while the open step is {:?}",
                self.step
            ));
        }
    }

    fn terminal(&mut self, kind: &str, event: &Value, lost: u64, wrong: &mut Vec<String>) {
        // One that was started again has little time: what ends before the ending may be among what is lost.
        let may_be_open = self.may_go_on_after_a_kill && lost + self.missing > 0;
        if let Some(step) = &self.step
            && !may_be_open
        {
            wrong.push(format!("{kind} while step {} is open", step.0));
        }
        for (id, call) in &self.calls {
            // A failure may come in the middle of a call's arguments; then there is nothing to end.
            let unmade = kind == "error" && *call == Call::Opened;
            if *call != Call::Ended && !unmade && !may_be_open {
                wrong.push(format!("{kind} while call {id} is {call:?}"));
            }
        }
        let said = event["lost_events"].as_u64().unwrap_or(0);
        let lost = lost + self.missing;
        let unknown = if self.may_go_on_after_a_kill { IN_DOUBT } else { 0 };
        if !(lost..=lost + unknown).contains(&said) {
            wrong.push(format!("{kind} says lost_events {said}, and {lost} were lost"));
        }
        self.terminal = Some(kind.to_owned());
    }
}

fn step_of(event: &Value) -> (i64, String) {
    (
        event["step_index"].as_i64().unwrap_or(-1),
        event["step_name"].as_str().unwrap_or_default().to_owned(),
    )
}
