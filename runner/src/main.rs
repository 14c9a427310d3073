//! The binary: parse, choose the mode, map the result to an exit code.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use plue_runner::cli::Cli;

fn main() -> ExitCode {
    // Before all else: this may be the sandbox's own process, which is not to do anything that the runner does.
    plue_sandbox::strict::run_if_asked();
    plue_runner::cli::run(Cli::parse()).into()
}
