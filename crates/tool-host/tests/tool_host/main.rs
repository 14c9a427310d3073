//! The tool host against tools that are good and tools that are not: what it grants, what it refuses, and where each
//! limit ends a call. The components are made here, as text.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod calls;
mod commands;
mod compiled;
mod fixture;
mod grants;
mod limits;
mod loading;
mod proposals;
mod replace;
mod schemas;
