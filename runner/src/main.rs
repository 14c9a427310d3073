//! The binary: parse, choose the mode, map the result to an exit code.

use std::process::ExitCode;

use clap::Parser;
use plue_runner::cli::Cli;

fn main() -> ExitCode {
    plue_runner::cli::run(Cli::parse()).into()
}
