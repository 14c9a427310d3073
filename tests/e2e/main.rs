//! The built runner, started with environment variables only, against the doubles. Every run is checked for the
//! protocol, the log's schema and leaked secrets by the harness, whatever else its test looks at.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod agent_endings;
mod agent_tools;
mod callback;
mod cancellation;
mod cli;
mod configuration;
mod delivery;
mod demo;
mod doctor;
mod environment;
mod escape_test;
mod examples;
mod guide;
mod invalid_tasks;
mod model_api;
mod network;
mod ordinary_programs;
mod plugins;
mod redaction;
mod resume;
mod sandbox;
mod secret_files;
mod standby;
mod task_sources;
mod telemetry;
mod workflow;
