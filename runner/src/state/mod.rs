//! What outlives the process that runs a task (`STATE_DIR`): two files that are only appended to, for a runner that is
//! started again with the same `TASK_ID`.
//!
//! [`Files`] are the two and their lock, in a folder that is ours alone; a [`Log`] is how each is written and read;
//! [`Journal`] has what the task has come to, and [`Memory`] gives it back, entry by entry, to whoever runs the task
//! again. The other file has the events that the server may not have: `events/write_ahead`.

mod files;
mod journal;
mod log;

pub use files::{Files, OpenError, check_folder};
pub use journal::{Begun, Journal, Memory, Past};
pub use log::{Log, Unreadable};

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
