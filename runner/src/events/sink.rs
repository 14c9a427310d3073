//! Where the events of a task go: into the queue of this process, or through a pipe to the supervisor that owns it.
//!
//! Every event passes here, and secrets are taken out of it here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::bounds::LARGEST_BODY;
use super::event::Event;
use super::queue::EventQueue;
use super::record::Record;
use plue_redaction::Redactor;

/// What takes the records of a task that runs in a process of its own.
pub trait Forward: Send + Sync {
    /// When it returns, the records are out of this process: its death does not lose them.
    fn forward(&self, records: Vec<Record>);
}

/// Takes the events of a task, without their secrets. Cheap to clone.
#[derive(Clone)]
pub struct EventSink {
    to: To,
    redactor: &'static Redactor,
    /// What happens is what has happened already: it is not told again.
    muted: Arc<AtomicBool>,
}

#[derive(Clone)]
enum To {
    Queue(EventQueue),
    Supervisor(Arc<dyn Forward>),
}

impl EventSink {
    /// Into the queue of this process.
    pub fn queue(queue: &EventQueue, redactor: &'static Redactor) -> Self {
        Self::new(To::Queue(queue.clone()), redactor)
    }

    /// To the supervisor.
    pub fn supervisor(forward: Arc<dyn Forward>, redactor: &'static Redactor) -> Self {
        Self::new(To::Supervisor(forward), redactor)
    }

    fn new(to: To, redactor: &'static Redactor) -> Self {
        let muted = Arc::default();
        Self { to, redactor, muted }
    }

    /// Whether nothing is told from now on, for as long as a task goes again through what an earlier process has told.
    pub fn mute(&self, muted: bool) {
        self.muted.store(muted, Ordering::Relaxed);
    }

    /// What takes the secrets out: for what comes in pieces, which is searched before it is an event, and for what the
    /// model reads.
    pub fn redactor(&self) -> &'static Redactor {
        self.redactor
    }

    /// Tells what happened. Never waits for the server.
    pub fn push(&self, event: Event) {
        self.push_all([event]);
    }

    /// Tells of several things at once, in their order.
    pub fn push_all(&self, events: impl IntoIterator<Item = Event>) {
        if self.muted.load(Ordering::Relaxed) {
            return;
        }
        let records = events.into_iter().flat_map(|mut event| {
            event.redact(self.redactor);
            // Only now, as everything that is cut or sent in parts: a secret that is cut in two would be one no more.
            event.bound_names();
            Record::from(event).fit(LARGEST_BODY)
        });
        match &self.to {
            To::Queue(queue) => queue.push(records),
            To::Supervisor(supervisor) => supervisor.forward(records.collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::events::TaskId;
    use crate::events::spool::SpoolConfig;

    #[tokio::test]
    async fn a_secret_that_would_be_cut_by_the_end_of_a_part_is_in_none_of_them() {
        let secret = "s3cr3t-\"value\"-of-the-operator";
        let redactor = Box::leak(Box::new(Redactor::new([secret])));
        let text = format!("{secret} {} ", "x".repeat(11)).repeat(2_000);
        let queue = EventQueue::new(SpoolConfig::default());
        queue.limit(5_000);
        EventSink::queue(&queue, redactor).push(Event::Thinking {
            message_id: "msg_a".into(),
            text: text.clone(),
        });
        let mut joined = String::new();
        while queue.waiting().events > 0 {
            let next = queue.take().await.unwrap();
            let body = next.record.body(&TaskId::Number(7), next.seq, 0);
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body["part"]["index"], next.seq - 1);
            joined.push_str(body["text"].as_str().unwrap());
        }
        assert_eq!(joined, text.replace(secret, "***"));
    }
}
