//! The benchmarks: `cargo xtask bench`. What is compared is measured in one run on one machine, and the last thing that
//! is printed is a table of the figures against their aims.
//!
//! Timings live here and not in tests: a test asserts behaviour.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::path::PathBuf;
use std::time::Duration;

use criterion::Criterion;

mod commands;
mod delivery;
mod model;
mod process;
mod redaction;
mod report;
mod resume;
mod tools;

/// In place of a filter of criterion: what a command costs and nothing else, wherever the program stands.
const COMMANDS_ONLY: &str = "command";
/// Likewise, the way of a token.
const DELIVERY_ONLY: &str = "delivery";
/// Likewise, the model's side, with a task of 500 turns.
const MODEL_ONLY: &str = "model";
/// Likewise, what it takes to go on with a task.
const RESUME_ONLY: &str = "resume";

fn main() {
    // Before anything large is in our memory: what forks copies it.
    let costs = commands::measure();
    if std::env::args().any(|argument| argument == COMMANDS_ONLY) {
        report::print(report::commands(&costs));
        return;
    }
    if std::env::args().any(|argument| argument == DELIVERY_ONLY) {
        report::print(report::delivery(&delivery::measure()));
        return;
    }
    if std::env::args().any(|argument| argument == MODEL_ONLY) {
        report::print(report::model(&model::measure()));
        return;
    }
    if std::env::args().any(|argument| argument == RESUME_ONLY) {
        report::print(report::resume(&resume::measure()));
        return;
    }
    let folder = folder();
    let mut criterion = Criterion::default()
        .output_directory(&folder)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    tools::benchmarks(&mut criterion);
    process::benchmarks(&mut criterion);
    redaction::benchmarks(&mut criterion);
    criterion.final_summary();
    let idle = process::idle_memory();
    let mut rows = report::commands(&costs);
    rows.extend(report::delivery(&delivery::measure()));
    rows.extend(report::model(&model::measure()));
    rows.extend(report::resume(&resume::measure()));
    report::print(
        rows.into_iter()
            .chain(report::others(&folder, idle, process::standby_memory())),
    );
}

/// Where criterion keeps what it measured: below the target folder, as with `cargo criterion`.
fn folder() -> PathBuf {
    let bench = std::env::current_exe().expect("a program knows its own path");
    let target = bench.ancestors().find(|folder| folder.join("dist").is_dir());
    target
        .map_or_else(|| PathBuf::from("target"), PathBuf::from)
        .join("criterion")
}

/// The built runner.
fn runner() -> PathBuf {
    std::env::var_os("PLUE_RUNNER_BIN")
        .map(PathBuf::from)
        .expect("PLUE_RUNNER_BIN is set by `cargo xtask bench`")
}

/// The folder with the built plugins.
fn plugins() -> PathBuf {
    std::env::var_os("PLUE_PLUGINS_DIR")
        .map(PathBuf::from)
        .expect("PLUE_PLUGINS_DIR is set by `cargo xtask bench`")
}
