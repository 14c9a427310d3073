//! What happens in a task, and how the API server hears of it: the shapes ([`event`]), the queue that keeps a slow
//! server from holding up the task ([`queue`]), and the delivery ([`callback`]).
//!
//! Everything that leaves the runner as an event passes [`queue::EventQueue::push`]: there secrets are taken out, and behind
//! it the spool on disk will stand.

pub mod callback;
pub mod event;
pub mod queue;

pub use event::{Event, LogLevel, StepState, Summary, TaskErrorCode, TaskId, ToolState, UsageReport};
pub use queue::EventQueue;

/// A duration as events tell it.
pub fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
