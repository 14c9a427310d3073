//! `plue-runner escape-test`: the harness of the tests, where the runner stands.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use clap::Args;

use super::output::print;
use crate::run::Exit;

/// The harness. It is a program of its own: what attacks is no part of what is attacked.
const HARNESS: &str = "plue-escape";

#[derive(Debug, Args)]
pub(super) struct EscapeTestOptions {
    /// Prints JSON.
    #[arg(long)]
    json: bool,
    /// Only this attack; `files/` takes all that begin with it. May be given several times.
    #[arg(long, value_name = "ATTACK")]
    only: Vec<String>,
}

/// Becomes the harness.
pub(super) fn run(options: &EscapeTestOptions) -> Exit {
    let Ok(binary) = std::env::current_exe() else {
        return print("the runner does not know where its own binary is\n", Exit::Invalid);
    };
    let harness = binary
        .parent()
        .map_or_else(|| PathBuf::from(HARNESS), |folder| folder.join(HARNESS));
    let mut command = Command::new(&harness);
    command.arg("--live").arg("--runner").arg(&binary);
    if options.json {
        command.arg("--json");
    }
    for attack in &options.only {
        command.arg("--only").arg(attack);
    }
    let error = command.exec();
    let problem = format!(
        "{}: {error}; it belongs beside the runner's binary\n",
        harness.display()
    );
    print(&problem, Exit::Invalid)
}
