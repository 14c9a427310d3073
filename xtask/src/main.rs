//! The project's commands, in one program that every machine with a Rust toolchain can run: `cargo xtask --help`.
//!
//! All of them build the default members with the release profile, so that they share one build of the dependencies:
//! wasmtime takes minutes to compile, and is compiled once.
#![forbid(unsafe_code)]

mod apt;
mod bench;
mod cargo_tools;
mod columns;
mod component;
mod debian;
mod demo;
mod dist;
mod docs;
mod escape;
mod fuzz;
mod gvisor;
mod lab;
mod lanes;
mod layout;
mod manifests;
mod plugins;
mod pod;
mod process;
mod python;
mod sbom;
mod stages;
mod test;
mod toolchain;
mod verdict;
mod zoo;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::layout::Layout;
use crate::toolchain::Choice;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "The commands of Plue Runner",
    disable_help_subcommand = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Builds everything and runs the main job for real: an agent finds and fixes a bug with all five tools
    Demo {
        /// Ask the real Messages API (needs ANTHROPIC_API_KEY) in place of the scripted one
        #[arg(long)]
        live: bool,
    },
    /// Runs all there is to test: format, lints, tests, both ways to build the components, licences, the demo
    Test {
        /// Run only this stage (and the build, when it needs one); may be given several times
        #[arg(long, value_name = "STAGE", value_parser = stages::names())]
        only: Vec<String>,
        /// Leave out what runs in gVisor; the summary says so
        #[arg(long)]
        without_gvisor: bool,
        /// Try every attack in every place, also where it cannot end otherwise than in another one: takes much longer
        #[arg(long)]
        all: bool,
    },
    #[command(hide = true)]
    Stage(lanes::Alone),
    /// Makes a relocatable target/dist: the runner, the attacks on it, and its plugins, compiled ahead of time
    Build,
    /// Builds the components of tool-plugins/ and lays them out with their manifests
    Plugins {
        /// Where the wasm32-wasip2 target comes from; auto tries rustup first, then Debian's packages
        #[arg(long, value_enum, default_value_t)]
        toolchain: Choice,
        /// Where the plugins are laid out [default: plugins/ in target/dist]
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Builds everything and runs one command in gVisor, in a container that is like the pod: uid 1000, no
    /// capabilities, a read-only root, an empty /workspace, no network; target/dist is in /opt/plue
    Gvisor {
        /// The program in the container, and its arguments
        #[arg(last = true, required = true, value_name = "COMMAND")]
        argv: Vec<String>,
    },
    /// Builds the image, and runs it in gVisor as the manifests of deploy/ say: an agent, a workflow, a standby runner
    Pod {
        /// Only build the image, all of it from source, as on a machine that has nothing of ours
        #[arg(long)]
        from_source: bool,
        /// Run only this part; may be given several times
        #[arg(long, value_name = "PART", conflicts_with = "from_source")]
        only: Vec<String>,
    },
    /// Builds everything, and runs programs of all kinds in the sandbox, on this machine and in a pod in gVisor
    Zoo {
        /// Only these rows of docs/reference/what-runs.md
        #[arg(value_name = "ROW")]
        rows: Vec<String>,
        #[command(flatten)]
        places: zoo::Places,
    },
    /// Lists what is in what is shipped, as CycloneDX documents in target/dist/sbom
    Sbom,
    /// Builds everything and fuzzes: the paths of the file tools, or the redaction
    Fuzz {
        /// What
        #[arg(value_enum, default_value = "paths")]
        target: fuzz::Target,
        /// For how long, in seconds
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
    /// Runs the benchmarks; what a command costs is measured in gVisor too
    Bench {
        /// Leave out what is measured in gVisor
        #[arg(long)]
        without_gvisor: bool,
        /// Arguments for criterion: a filter, --save-baseline NAME, …; `command`, `delivery` or `resume` for these
        /// alone
        #[arg(last = true, value_name = "CRITERION ARGUMENTS")]
        arguments: Vec<String>,
    },
    /// Simulates a pool of warm runners: how many there must be, so that tasks do not wait (lab/capacity; --help says
    /// more)
    #[command(disable_help_flag = true)]
    Capacity {
        /// What `cargo xtask capacity --help` says
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            process::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    let layout = Layout::find()?;
    match command {
        Command::Demo { live } => demo::run(&layout, live),
        Command::Test {
            only,
            without_gvisor,
            all,
        } => test::run(&layout, &only, without_gvisor, all),
        Command::Stage(alone) => lanes::alone(&layout, &alone).map(|()| ExitCode::SUCCESS),
        Command::Gvisor { argv } => gvisor::command(&layout, &argv),
        Command::Build => dist::run(&layout),
        Command::Pod { from_source, only } => pod::run(&layout, from_source, &only),
        Command::Zoo { rows, places } => zoo::command(&layout, &rows, places),
        Command::Sbom => sbom::run(&layout),
        Command::Plugins { toolchain, out } => plugins::run(&layout, toolchain, out),
        Command::Fuzz { target, seconds } => fuzz::run(&layout, target, seconds),
        Command::Bench {
            arguments,
            without_gvisor,
        } => bench::run(&layout, &arguments, without_gvisor),
        Command::Capacity { arguments } => lab::run(&layout, &arguments),
    }
}
