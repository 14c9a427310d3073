//! The Plue runner: runs one task at a time — a Claude agent with sandboxed tools, or a workflow — and streams what
//! happens to the API server that gave it the task. `ARCHITECTURE.md` says where each thing lives and why.

pub mod agent;
pub mod api_client;
pub mod cli;
pub mod config;
pub mod doctor;
pub mod events;
pub mod failure;
mod framing;
pub mod health;
pub mod limits;
pub mod run;
mod spool_dir;
pub mod standby;
pub mod task;
pub mod telemetry;
pub mod workflow;
