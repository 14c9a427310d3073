//! The doubles themselves: a double that accepts what the real server refuses would hide a mistake of the runner.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod api_server;
mod callback;
mod claude;
mod client;
mod runners;
