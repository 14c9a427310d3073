//! The Plue runner: runs one task at a time — a Claude agent with sandboxed tools, or a workflow — and streams what
//! happens to the API server that gave it the task. `ARCHITECTURE.md` says where each thing lives and why.
#![forbid(unsafe_code)]

mod agent;
mod api_client;
pub mod cli;
mod config;
mod doctor;
mod events;
mod failure;
mod framing;
mod health;
mod limits;
mod run;
mod spool_dir;
mod standby;
mod state;
mod task;
mod telemetry;
mod workflow;

/// What the documents are written from, and held against: for `tests/documents`, and for whoever checks tasks without
/// running them.
pub mod reference {
    pub use crate::config::{TaskRules, variables};
    pub use crate::events::TaskErrorCode;
    pub use crate::limits::table as task_limits;
    pub use crate::run::Exit;
    pub use crate::task::{Document, Format, InvalidTask, Valid, validate};
}
