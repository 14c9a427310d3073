//! `cargo xtask bench`: the benchmarks, run on what is shipped.

use std::process::ExitCode;

use anyhow::Result;

use crate::layout::Layout;
use crate::process;
use crate::{apt, dist};

pub fn run(layout: &Layout, arguments: &[String]) -> Result<ExitCode> {
    dist::build(layout)?;
    if process::find_program("rg").is_none() {
        process::announce("installing ripgrep, which grep is measured against");
        apt::install(layout, &["ripgrep"])?;
    }
    process::announce("the benchmarks");
    // Only bench targets: the harness of unit tests does not know criterion's arguments.
    let status = layout
        .cargo("running the benchmarks")
        .args(["bench", "--workspace", "--bench", "*", "--"])
        .args(arguments)
        .env("PLUE_RUNNER_BIN", layout.runner())
        .env("PLUE_PLUGINS_DIR", layout.plugins())
        .live_status()?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
