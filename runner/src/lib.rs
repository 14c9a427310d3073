//! The Plue runner: runs one task at a time — a Claude agent with sandboxed tools, or a workflow — and streams what
//! happens to the API server that gave it the task. `ARCHITECTURE.md` says where each thing lives and why.

pub mod events;
pub mod model;
pub mod sandbox;
pub mod tools;
