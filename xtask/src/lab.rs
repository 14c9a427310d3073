//! What is in `lab/`: crates for research, which nothing else builds.

use std::process::ExitCode;

use anyhow::Result;

use crate::layout::Layout;
use crate::process::{self, Run};

/// The only one so far, with its program of the same name.
const PACKAGE: &str = "plue-capacity";

/// Runs it with these arguments, in the folder that the caller is in.
pub fn run(layout: &Layout, arguments: &[String]) -> Result<ExitCode> {
    layout
        .cargo("building the simulation")
        .args(["build", "--release", "--package", PACKAGE])
        .quiet(&layout.log("lab"))?;
    let status = Run::new("the simulation", layout.target.join("release").join(PACKAGE))
        .args(arguments)
        .live_status()?;
    Ok(process::exit_code(status))
}

/// A cargo command for it: what `purpose` says, done with these arguments.
pub fn cargo(layout: &Layout, purpose: &str, command: &[&str]) -> Run {
    let (name, rest) = command.split_first().unwrap_or((&"check", &[]));
    layout
        .cargo(purpose)
        .args([name, "--release", "--package", PACKAGE])
        .args(rest)
}
