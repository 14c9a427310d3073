//! Where the events of a task go: into the queue of this process, or through a pipe to the supervisor that owns it.
//!
//! Every event passes here, and secrets are taken out of it here.

use std::sync::Arc;

use super::event::Event;
use super::queue::EventQueue;
use super::record::Record;

/// What takes the records of a task that runs in a process of its own.
pub trait Forward: Send + Sync {
    /// When it returns, the records are out of this process: its death does not lose them.
    fn forward(&self, records: Vec<Record>);
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct EventSink(To);

#[derive(Clone)]
enum To {
    Queue(EventQueue),
    Supervisor(Arc<dyn Forward>),
}

impl EventSink {
    /// Into the queue of this process.
    pub fn queue(queue: &EventQueue) -> Self {
        Self(To::Queue(queue.clone()))
    }

    /// To the supervisor.
    pub fn supervisor(forward: Arc<dyn Forward>) -> Self {
        Self(To::Supervisor(forward))
    }

    /// Tells what happened. Never waits for the server.
    pub fn push(&self, event: Event) {
        self.push_all([event]);
    }

    /// Tells of several things at once, in their order.
    pub fn push_all(&self, events: impl IntoIterator<Item = Event>) {
        let redactor = plue_redaction::current();
        let records = events.into_iter().flat_map(|mut event| {
            event.redact(redactor);
            // Only now: a secret that is cut in two would be one no more.
            event.bound();
            let following = event.split();
            std::iter::once(event).chain(following).map(Record::from)
        });
        match &self.0 {
            To::Queue(queue) => queue.push(records),
            To::Supervisor(supervisor) => supervisor.forward(records.collect()),
        }
    }
}
