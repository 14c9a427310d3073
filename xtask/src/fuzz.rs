//! `cargo xtask fuzz`: the targets of fuzz/, with cargo-fuzz and its coverage-guided fuzzer.
//!
//! fuzz/ is a workspace of its own, since all of it is built with coverage counters: wasmtime too, which takes minutes.

use std::process::ExitCode;

use anyhow::Result;

use crate::cargo_tools::{self, FUZZ};
use crate::dist;
use crate::layout::Layout;
use crate::process::{self, Run};

/// What is fuzzed.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Target {
    /// The file tools, against a model and a chroot.
    Paths,
    /// Secrets in all their forms, in texts that are cut anywhere.
    Redaction,
}

/// As many bytes as the largest case takes.
const CASE_BYTES: u32 = 1024;

/// Fuzzes for so many seconds. What was found before is in fuzz/corpus, what fails in fuzz/artifacts.
pub fn run(layout: &Layout, target: Target, seconds: u32) -> Result<ExitCode> {
    let target = match target {
        Target::Paths => "paths",
        Target::Redaction => "redaction",
    };
    dist::build(layout)?;
    let program = cargo_tools::install(layout, &FUZZ)?;
    process::announce(&format!(
        "fuzzing {target} for {seconds} s (the first build takes minutes)"
    ));
    let status = Run::new("fuzzing", program)
        .args(["fuzz", "run", "--sanitizer", "none", target, "--"])
        .arg(format!("-max_len={CASE_BYTES}"))
        // From the start: a case of a few bytes is an empty tree.
        .arg("-len_control=0")
        .arg(format!("-max_total_time={seconds}"))
        .dir(&layout.root)
        // No sanitizer, and so a stable compiler will do; some flags of the counters it takes only so.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_DIR", layout.target.join("fuzz"))
        .env("PLUE_PLUGINS_DIR", layout.plugins())
        .live_status()?;
    Ok(process::exit_code(status))
}

/// Whether the targets still compile, without any counters.
pub fn check(layout: &Layout) -> Result<()> {
    layout
        .cargo("compiling the fuzz targets")
        .args(["check", "--release", "--locked", "--manifest-path"])
        .arg(layout.root.join("fuzz/Cargo.toml"))
        .live()
}
