//! One task as the double of the API server knows it.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::mpsc;

use crate::api_server::{Shared, WAIT, wait_until};
use crate::task_record::{Attempt, Seen, TaskRecord};
use crate::totals::Total;

/// See the module. What it gives is of the moment of the call.
pub struct TaskView {
    shared: Arc<Shared>,
    id: i64,
}

impl TaskView {
    pub(crate) fn new(shared: Arc<Shared>, id: i64) -> Self {
        Self { shared, id }
    }

    fn record<T>(&self, look: impl FnOnce(&mut TaskRecord) -> T) -> T {
        look(self.shared.record().tasks.entry(self.id).or_default())
    }

    /// The events that were delivered, in order; of a light server the terminal one alone.
    pub fn events(&self) -> Vec<Value> {
        self.record(|task| task.delivered.clone())
    }

    /// The delivered events of one type.
    pub fn events_of(&self, kind: &str) -> Vec<Value> {
        let events = self.events().into_iter();
        events.filter(|event| event["type"] == kind).collect()
    }

    /// What a light server keeps of the delivered events, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.record(|task| task.seen.clone())
    }

    /// How many runs of it have told of themselves.
    pub fn begun(&self) -> u32 {
        self.record(|task| task.begun)
    }

    /// Every request that came, delivered or not. None at a light server.
    pub fn attempts(&self) -> Vec<Attempt> {
        self.record(|task| task.attempts.clone())
    }

    /// The terminal event, when it was delivered.
    pub fn terminal(&self) -> Option<Value> {
        let mut events = self.events().into_iter();
        events.find(|event| event["type"] == "done" || event["type"] == "error")
    }

    /// The text of all delivered tokens together.
    pub fn tokens_total(&self) -> Total {
        self.record(|task| task.totals.tokens.total())
    }

    /// The delivered lines of a level and step, each with a newline at its end, but for one that has none yet.
    pub fn log_total(&self, level: &str, step: Option<u64>) -> Total {
        self.record(|task| task.totals.log(level, step))
    }

    /// The events from now on, as they are delivered. Not bounded: a viewer must not slow the runner down.
    pub fn subscribe(&self) -> mpsc::UnboundedReceiver<Value> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.record(|task| task.subscribers.push(sender));
        receiver
    }

    /// Waits until an event that `wanted` accepts was delivered.
    pub async fn wait_for(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let find = || self.record(|task| task.delivered.iter().find(|event| wanted(event)).cloned());
        match wait_until(&self.shared, find).await {
            Some(event) => event,
            None => panic!(
                "the event did not come within {WAIT:?}; these did: {:#?}",
                self.events()
            ),
        }
    }

    /// What of this task broke the protocol so far. Unlike [`ApiServer::violations`](crate::ApiServer::violations) this
    /// leaves what else there is to be looked at.
    pub fn violations(&self) -> Vec<String> {
        self.record(|task| task.violations.clone())
    }

    /// The same now that the runner has ended: a missing terminal event too.
    pub fn final_violations(&self) -> Vec<String> {
        self.record(|task| match task.is_one_of_several && task.has_ended() {
            // Each run was judged by itself, and one of them has ended.
            true => task.violations.clone(),
            false => [task.violations.clone(), task.rules.finish()].concat(),
        })
    }
}
