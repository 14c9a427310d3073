//! Confines one command: `cargo run --release -p plue-sandbox --example run_command -- FOLDER PROGRAM [ARGUMENT…]`
//!
//! It sees FOLDER, the image read-only, and nothing else; what it prints is passed on, and how it ended is said.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use plue_sandbox::strict::{CommandRules, StrictSandbox, run_if_asked};
use plue_sandbox::{CommandEvent, CommandSpec, Sandbox, Stream};
use tokio_util::sync::CancellationToken;

fn main() -> Result<(), Box<dyn Error>> {
    // The sandbox starts this program a second time, as its init: that has to come before everything else.
    run_if_asked();
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("name a folder, a program and its arguments")?;
    let argv: Vec<String> = arguments.collect();
    if argv.is_empty() {
        return Err("name a program after the folder, such as `ls -la`".into());
    }
    tokio::runtime::Runtime::new()?.block_on(run(Path::new(&folder), argv))
}

async fn run(folder: &Path, argv: Vec<String>) -> Result<(), Box<dyn Error>> {
    let sandbox = StrictSandbox::start(folder, &[], &CommandRules::default()).await?;
    let command = CommandSpec {
        argv,
        working_directory: PathBuf::from("."),
        env: BTreeMap::new(),
        timeout: Duration::from_secs(60),
    };
    let mut running = sandbox.start(command, CancellationToken::new()).await?;
    while let Some(event) = running.events.recv().await {
        match event {
            CommandEvent::Output(Stream::Stdout, bytes) => std::io::stdout().write_all(&bytes)?,
            CommandEvent::Output(Stream::Stderr, bytes) => std::io::stderr().write_all(&bytes)?,
            CommandEvent::Note(note) => println!("{note}"),
            CommandEvent::Exited(status) => println!("{:?}, code {}", status.ending, status.code),
        }
    }
    sandbox.shut_down().await;
    Ok(())
}
