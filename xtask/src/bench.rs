//! `cargo xtask bench`: the benchmarks, run on what is shipped; and what a command costs, in gVisor too.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::gvisor::{self, DIST, Options, PROGRAMS};
use crate::layout::Layout;
use crate::process;
use crate::{apt, dist};

/// The argument of the benchmarks for commands alone. In gVisor the others would take an hour.
const COMMANDS_ONLY: &str = "command";

/// In gVisor it takes about 40 s.
const LIMIT: Duration = Duration::from_secs(300);

pub fn run(layout: &Layout, arguments: &[String], without_gvisor: bool) -> Result<ExitCode> {
    dist::build(layout)?;
    if process::find_program("rg").is_none() {
        process::announce("installing ripgrep, which grep is measured against");
        apt::install(layout, &["ripgrep"])?;
    }
    process::announce("the benchmarks");
    // Only bench targets: the harness of unit tests does not know criterion's arguments.
    let status = layout
        .cargo("running the benchmarks")
        .args(["bench", "--bench", "*", "--"])
        .args(arguments)
        .env("PLUE_RUNNER_BIN", layout.runner())
        .env("PLUE_PLUGINS_DIR", layout.plugins())
        .live_status()?;
    if !status.success() {
        return Ok(ExitCode::FAILURE);
    }
    let commands = arguments.is_empty() || arguments.iter().any(|argument| argument == COMMANDS_ONLY);
    if commands && !without_gvisor {
        in_gvisor(layout)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn in_gvisor(layout: &Layout) -> Result<()> {
    process::announce("what a command costs in gVisor");
    let program = program(layout)?;
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let argv = [format!("{PROGRAMS}/{name}"), COMMANDS_ONLY.to_owned()];
    let runner = format!("{DIST}/plue-runner");
    let options = Options {
        env: &[("PLUE_RUNNER_BIN", &runner)],
        programs: &[&program],
        limit: LIMIT,
    };
    gvisor::must_run(layout, "the benchmark of commands", &argv, &options)
}

/// The benchmarks as a program: cargo knows what it is called.
fn program(layout: &Layout) -> Result<PathBuf> {
    let messages = layout
        .cargo("finding the benchmarks")
        .args(["bench", "--bench", "*", "--no-run", "--message-format=json"])
        .read()?;
    let executable = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_ours = message["target"]["kind"] == serde_json::json!(["bench"]);
        is_ours.then(|| message["executable"].as_str().map(PathBuf::from))?
    };
    messages
        .lines()
        .find_map(executable)
        .context("cargo names no benchmark")
}
