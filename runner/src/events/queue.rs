//! The queue between what happens and what was delivered.
//!
//! The task pushes, one sender takes. Neighbours that may be sent as one merge while they wait, so a slow callback costs
//! fewer requests instead of more memory. Every event passes the redaction on its way in. The queue is bounded in bytes: when it is full, pushing waits, and nothing is
//! dropped.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::Notify;

use super::event::{Event, Merge};
use crate::redaction;

/// How many bytes of events may wait in memory before pushing waits.
pub const MAX_QUEUED_BYTES: usize = 64 * 1024 * 1024;

/// How large one merged event may become: larger ones would make one lost request cost too much.
const MAX_MERGED_BYTES: usize = 64 * 1024;

/// An event that was taken from the queue; its number is its place in the order of sending.
#[derive(Debug)]
pub struct Numbered {
    pub seq: u64,
    /// When it (or the first of what was merged into it) happened.
    pub timestamp: Timestamp,
    pub event: Event,
}

struct Waiting {
    timestamp: Timestamp,
    size: usize,
    event: Event,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    last_seq: u64,
    closed: bool,
}

/// A handle on the queue; clones share it.
#[derive(Clone, Default)]
pub struct EventQueue {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    pushed: Notify,
    taken: Notify,
}

impl EventQueue {
    /// An empty queue.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an event at the end; waits while the queue is full. A terminal event never waits, and closes the queue:
    /// what comes after it is dropped, because a task has one ending.
    pub async fn push(&self, mut event: Event) {
        event.redact(redaction::current());
        loop {
            let taken = self.shared.taken.notified();
            {
                let state = self.lock();
                if state.closed {
                    tracing::debug!(event = ?event, "an event after the ending was dropped");
                    return;
                }
                if event.is_terminal() || state.bytes < MAX_QUEUED_BYTES {
                    Self::append(state, event);
                    break;
                }
            }
            taken.await;
        }
        self.shared.pushed.notify_one();
    }

    /// Adds an event without waiting; answers false, and drops it, when the queue is full or closed. Only for what may
    /// be lost: live output that the call's result repeats.
    pub fn try_push(&self, mut event: Event) -> bool {
        event.redact(redaction::current());
        {
            let state = self.lock();
            if state.closed || state.bytes >= MAX_QUEUED_BYTES {
                return false;
            }
            Self::append(state, event);
        }
        self.shared.pushed.notify_one();
        true
    }

    fn append(mut state: MutexGuard<'_, State>, event: Event) {
        state.closed = event.is_terminal();
        let event = match state.waiting.back_mut() {
            Some(last) if last.size < MAX_MERGED_BYTES => {
                // The text and a separator: the envelope is there already.
                let added = event.text_size() + 1;
                match last.event.merge(event) {
                    Merge::Merged => {
                        last.size += added;
                        state.bytes += added;
                        return;
                    }
                    Merge::Separate(event) => event,
                }
            }
            _ => event,
        };
        let size = event.size();
        state.bytes += size;
        state.waiting.push_back(Waiting {
            timestamp: Timestamp::now(),
            size,
            event,
        });
    }

    /// Takes the next event and gives it its number; waits for one. `None` when the ending was taken already.
    pub async fn take(&self) -> Option<Numbered> {
        loop {
            let pushed = self.shared.pushed.notified();
            {
                let mut state = self.lock();
                if let Some(Waiting { timestamp, size, event }) = state.waiting.pop_front() {
                    state.bytes -= size;
                    state.last_seq += 1;
                    let seq = state.last_seq;
                    drop(state);
                    self.shared.taken.notify_waiters();
                    return Some(Numbered { seq, timestamp, event });
                }
                if state.closed {
                    return None;
                }
            }
            pushed.await;
        }
    }

    /// How many events wait.
    pub fn len(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while the lock is held leaves the queue whole: every change is a single push or pop.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::events::event::{LogLevel, Summary, TaskErrorCode};

    fn line(step_index: usize, message: &str) -> Event {
        Event::Log {
            level: LogLevel::Stdout,
            message: message.into(),
            step_index: Some(step_index),
            partial: false,
        }
    }

    fn ending() -> Event {
        let summary = Summary {
            usage: None,
            cost_usd: None,
            turns: None,
            duration_ms: 1,
            sandbox: "weak",
            lost_events: None,
        };
        Event::Error {
            message: "over".into(),
            code: TaskErrorCode::Internal,
            summary,
        }
    }

    #[tokio::test]
    async fn waiting_neighbours_merge_and_sequence_numbers_have_no_gap() {
        let queue = EventQueue::new();
        for (step, text) in [(0, "a"), (0, "b"), (1, "c")] {
            queue.push(line(step, text)).await;
        }
        let first = queue.take().await.unwrap();
        let second = queue.take().await.unwrap();
        assert_eq!((first.seq, second.seq), (1, 2));
        assert!(matches!(first.event, Event::Log { message, .. } if message == "a\nb"));
    }

    #[tokio::test]
    async fn short_lines_merge_up_to_the_size_of_an_event_not_of_their_envelopes() {
        let queue = EventQueue::new();
        for _ in 0..10_000 {
            queue.push(line(0, "12345")).await;
        }
        assert_eq!(queue.len(), 1, "60 KB of lines are one event");
    }

    #[tokio::test]
    async fn nothing_comes_after_the_ending() {
        let queue = EventQueue::new();
        queue.push(ending()).await;
        queue.push(ending()).await;
        queue.push(line(0, "late")).await;
        assert!(queue.take().await.unwrap().event.is_terminal());
        assert!(queue.take().await.is_none());
    }

    #[tokio::test]
    async fn a_full_queue_makes_the_producer_wait_and_loses_nothing() {
        let queue = EventQueue::new();
        let big = "x".repeat(MAX_QUEUED_BYTES);
        queue.push(line(0, &big)).await;
        let pushing = tokio::spawn({
            let queue = queue.clone();
            async move { queue.push(line(1, "second")).await }
        });
        tokio::task::yield_now().await;
        assert_eq!(queue.len(), 1, "the second event waits outside of the full queue");
        assert!(!queue.try_push(line(2, "live")));
        queue.take().await.unwrap();
        pushing.await.unwrap();
        assert!(matches!(queue.take().await.unwrap().event, Event::Log { message, .. } if message == "second"));
    }
}
