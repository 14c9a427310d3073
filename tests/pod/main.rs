//! The pods of deploy/ in real gVisor. `cargo xtask pod` builds the image and makes the bundles; this program is what
//! is around the pods: kubelet, API server and Messages API. It runs in a network with nothing in it but a loopback,
//! where the names that the manifests have lead to the two servers.
#![allow(clippy::print_stdout)]

mod cluster;
mod container;
mod escape;
mod figures;
mod network;
mod runsc;
mod standby;
mod task;
mod zoo;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;

use crate::container::Node;
use crate::figures::Figures;

#[derive(Debug, Parser)]
#[command(about = "Runs the pods of deploy/ in gVisor")]
struct Arguments {
    /// gVisor.
    #[arg(long)]
    runsc: PathBuf,
    /// The folder with a bundle for each pod.
    #[arg(long)]
    bundles: PathBuf,
    /// Run only this part; may be given several times.
    #[arg(long, value_parser = PARTS.map(|(name, _)| name))]
    only: Vec<String>,
    /// Of the zoo, run only this row; may be given several times.
    #[arg(long)]
    row: Vec<String>,
}

/// How long one part's servers have to be gone before the next one's take their places.
const SETTLE: Duration = Duration::from_millis(100);

/// What is tried, by name, and what it makes sure of.
const PARTS: [(&str, &str); 11] = [
    ("agent", "a Job's agent repairs a repository"),
    ("workflow", "a Job's workflow runs"),
    (
        "any-user",
        "a Job's workflow runs as a user that the image does not know, in group 0",
    ),
    (
        "standby",
        "a runner of the warm pool runs three tasks, and each finds nothing of the last",
    ),
    ("drain", "a pod that is to go finishes its task, and takes no other"),
    (
        "restart",
        "a runner that is killed and started again ends the task that it had, and takes the next",
    ),
    (
        "resume",
        "a Job's agent that is killed goes on in the next container, on the same volumes",
    ),
    ("sigterm", "SIGTERM ends a Job's task within its grace, and says so"),
    ("harness", "no attack gets out of the sandbox"),
    ("slim", "an agent without commands runs in the image without a shell"),
    ("zoo", "programs of all kinds run in the sandbox"),
];

/// The parts that take minutes: only when they are asked for.
const HARNESS: &str = "harness";
const ZOO: &str = "zoo";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let node = Node {
        runsc: arguments.runsc,
        bundles: arguments.bundles,
        limits: has_control_groups(),
    };
    if !node.limits {
        println!("    the limits of the pods are not enforced: this machine lets nobody make control groups");
    }
    if let Err(error) = network::prepare().await {
        eprintln!("error: {error:#}");
        return ExitCode::FAILURE;
    }
    let mut figures = Figures::default();
    let mut failed = Vec::new();
    for (name, promise) in PARTS {
        let wanted = match arguments.only.is_empty() {
            true => ![HARNESS, ZOO].contains(&name),
            false => arguments.only.iter().any(|only| only == name),
        };
        if !wanted {
            continue;
        }
        // The servers of the last part have been told to end, and get to it.
        tokio::time::sleep(SETTLE).await;
        let started = Instant::now();
        match part(name, &node, &arguments.row, &mut figures).await {
            Ok(()) => println!("  {name:9} {:5.1} s  {promise}", started.elapsed().as_secs_f64()),
            Err(error) => {
                println!("  {name:9} FAILED   {promise}\n{error:#}");
                failed.push(name);
            }
        }
    }
    let figures = figures.to_string();
    if !figures.is_empty() {
        println!("\n{figures}");
    }
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("failed: {}", failed.join(", "));
    ExitCode::FAILURE
}

async fn part(name: &str, node: &Node, rows: &[String], figures: &mut Figures) -> Result<()> {
    match name {
        "agent" => task::agent(node, figures).await,
        "workflow" => task::workflow(node).await,
        "any-user" => task::any_user(node).await,
        "standby" => standby::three_tasks(node, figures).await,
        "drain" => standby::drain(node).await,
        "restart" => standby::restart(node).await,
        "sigterm" => task::sigterm(node).await,
        "resume" => task::resume(node).await,
        HARNESS => escape::attacks(node).await,
        ZOO => zoo::rows(node, rows).await,
        _ => task::slim(node).await,
    }
    .with_context(|| format!("the pod `{name}`"))
}

/// Whether a control group for memory can be made here, of the first version or of the second.
fn has_control_groups() -> bool {
    let version_2 = fs::exists("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    let parent = if version_2 {
        "/sys/fs/cgroup"
    } else {
        "/sys/fs/cgroup/memory"
    };
    let group = format!("{parent}/plue-pod-{}", std::process::id());
    fs::create_dir(&group).and_then(|()| fs::remove_dir(&group)).is_ok()
}
