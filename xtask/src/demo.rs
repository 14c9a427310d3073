//! `cargo xtask demo`: builds everything, then shows the main job on real input.

use std::env;
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
    // A signal has no code; it is a failure all the same.
    Ok(status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from))
}

/// The demo itself, of what was built.
pub fn command(layout: &Layout) -> Run {
    Run::new("the demo", layout.target.join("release/plue-demo"))
        .arg("--runner")
        .arg(layout.runner())
        .arg("--plugins")
        .arg(layout.plugins())
}
