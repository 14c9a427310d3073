//! What happens in a task, and how the API server hears of it.
//!
//! An [`Event`] says what happened. The [`EventSink`] takes it, without its secrets, as a [`record`] that nobody parses
//! any more; the [`queue`] keeps a slow server from holding up the task, in memory and behind that on disk ([`spool`]);
//! and [`callback`] delivers.

pub mod bounds;
pub mod callback;
pub mod event;
mod parts;
pub mod queue;
pub mod record;
#[cfg(test)]
pub mod recording;
pub mod sink;
pub mod spool;
pub mod unfinished;
pub mod write_ahead;

pub use callback::Identity;
pub use event::{Event, LogLevel, StepState, Summary, TaskErrorCode, TaskId, ToolState, UsageReport};
pub use queue::EventQueue;
pub use sink::EventSink;
pub use spool::SpoolConfig;
pub use write_ahead::WriteAhead;

/// A duration as events tell it.
pub fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
