//! The doubles of the end-to-end tests and of the demo: the API server ([`ApiServer`]), the Messages API ([`Claude`])
//! and the runner as a process of its own ([`RunnerProcess`]). Both servers speak real HTTP on loopback and refuse what
//! the real ones refuse, so that a test cannot pass with a runner that only talks to itself.
//!
//! Nothing here is part of the product, so a broken promise is a panic of the test that it belongs to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod answer;
pub mod api_server;
pub mod claude;
pub mod collector;
pub mod demo;
pub mod event_rules;
pub mod forward_proxy;
pub mod guest;
pub mod loopback;
pub mod processes;
pub mod runner_process;
mod runners;
pub mod scene;
pub mod schema;
pub mod standby;
mod task_record;
mod task_view;
pub mod tls;
pub mod totals;
pub mod zoo;

pub use api_server::{Answer, ApiServer, Assignment, Attempt, TaskView};
pub use claude::{Block, Claude, Ending, Reply, Request, Turn};
pub use collector::Collector;
pub use forward_proxy::ForwardProxy;
pub use runner_process::{Finished, RunnerProcess};
