//! The Plue runner: runs one task at a time — a Claude agent with sandboxed tools, or a workflow — and streams what
//! happens to the API server that gave it the task. `ARCHITECTURE.md` says where each thing lives and why.

pub mod agent;
pub mod api_client;
pub mod cli;
mod closed_set;
pub mod config;
pub mod contract;
pub mod doctor;
pub mod events;
pub mod failure;
mod framing;
pub mod health;
pub mod http;
pub mod model;
pub mod mutation;
pub mod redaction;
pub mod run;
pub mod sandbox;
pub mod secret;
mod spool_dir;
pub mod standby;
pub mod task;
pub mod telemetry;
pub mod tools;
mod unique_keys;
pub mod workflow;
