//! `cargo xtask demo`: builds everything, then shows the main job on real input.

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, ensure};

use crate::dist;
use crate::layout::Layout;
use crate::process::{self, Run};

pub fn run(layout: &Layout, live: bool) -> Result<ExitCode> {
    // Said before a build of minutes, not after it.
    ensure!(
        !live || env::var_os("ANTHROPIC_API_KEY").is_some_and(|key| !key.is_empty()),
        "--live asks the real Messages API: set ANTHROPIC_API_KEY to your key"
    );
    dist::build(layout)?;
    process::announce("the demo");
    let status = command(layout).args(live.then_some("--live")).live_status()?;
    Ok(process::exit_code(status))
}

/// The program that is the demo.
pub fn program(layout: &Layout) -> PathBuf {
    layout.target.join("release/plue-demo")
}

/// The demo itself, of what was built.
pub fn command(layout: &Layout) -> Run {
    Run::new("the demo", program(layout))
        .arg("--runner")
        .arg(layout.runner())
        .arg("--plugins")
        .arg(layout.plugins())
}
