//! The Messages API as the runner speaks it: what goes into a request, how a stream becomes a turn, and what is tried
//! again. The server is a socket on loopback that says exactly what a test scripts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod blocks;
mod conversation;
mod decoder;
mod errors;
mod framing;
mod logs;
mod models;
mod properties;
mod requests;
mod retries;
mod server;
mod streams;
