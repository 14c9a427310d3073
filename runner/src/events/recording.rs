//! A sink whose events a test can read, each as one line.

use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::event::TaskId;
use super::record::Record;
use super::sink::{EventSink, Forward};
use plue_redaction::Redactor;

/// Keeps all that its sink is told. Clones share it.
#[derive(Clone, Default)]
pub struct Recording(Arc<Mutex<Vec<Record>>>);

impl Forward for Recording {
    fn forward(&self, records: Vec<Record>) {
        self.0.lock().unwrap().extend(records);
    }
}

impl Recording {
    /// What is told here, without these secrets, is kept.
    pub fn sink(&self, secrets: &[&str]) -> EventSink {
        let redactor = Box::leak(Box::new(Redactor::new(secrets)));
        EventSink::supervisor(Arc::new(self.clone()), redactor)
    }

    /// How many events were told.
    pub fn told(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// The events as they go over the wire, without what every event carries and without durations.
    pub fn bodies(&self) -> Vec<Value> {
        let records = self.0.lock().unwrap();
        let body = |record: &Record| {
            let mut body: Value = serde_json::from_slice(&record.body(&TaskId::Number(7), 1, 0)).unwrap();
            let members = body.as_object_mut().unwrap();
            for every in ["task_id", "seq", "timestamp", "duration_ms"] {
                members.remove(every);
            }
            body
        };
        records.iter().map(body).collect()
    }

    /// The events as lines: the type, and each member after it in the order of the wire. Message ids are `m1`, `m2`, …
    /// as they come, with the index of a token behind them (`token m1#0 "Hel"`); that nothing was truncated is not
    /// said.
    pub fn lines(&self) -> Vec<String> {
        let mut messages = Vec::new();
        self.bodies().iter().map(|body| line(body, &mut messages)).collect()
    }
}

fn line(body: &Value, messages: &mut Vec<String>) -> String {
    let mut line = body["type"].as_str().unwrap().to_owned();
    for (name, value) in body.as_object().unwrap() {
        match (name.as_str(), value) {
            ("type", _) | ("truncated", Value::Bool(false)) => {}
            ("message_id" | "replaced_by", Value::String(id)) => {
                let known = messages.iter().position(|known| known == id);
                let number = known.unwrap_or_else(|| {
                    messages.push(id.clone());
                    messages.len() - 1
                });
                line += &format!(" m{}", number + 1);
            }
            ("text" | "output" | "message" | "reason", Value::String(text)) => line += &format!(" {text:?}"),
            ("tool_id" | "tool_name" | "tool_state" | "step_name" | "step_state" | "code" | "level", value) => {
                line += &format!(" {}", value.as_str().unwrap());
            }
            ("args", value) => line += &format!(" {value}"),
            ("token_index", value) => line += &format!("#{value}"),
            (name, value) => line += &format!(" {name}={value}"),
        }
    }
    line
}
