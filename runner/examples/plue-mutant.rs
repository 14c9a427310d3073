//! The runner with the feature `mutations`: PLUE_MUTATION switches protections off. Only `cargo xtask test` builds it.

use std::process::ExitCode;

use clap::Parser;
use plue_runner::cli::Cli;

fn main() -> ExitCode {
    plue_sandbox::strict::run_if_asked();
    plue_runner::cli::run(Cli::parse()).into()
}
