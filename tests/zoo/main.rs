//! The zoo on this machine: `cargo xtask zoo` makes the root file system, and this program runs each row in it, with a
//! runner of its own. In gVisor `plue-pod` does.
#![allow(clippy::print_stdout)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use clap::Parser;
use futures::stream::{self, StreamExt};
use serde_json::json;
use support::zoo::{self, LIMIT, ROWS, Row};
use support::{ApiServer, RunnerProcess};

#[derive(Debug, Parser)]
#[command(about = "Runs programs of all kinds in the sandbox, and looks at what they print")]
enum Arguments {
    /// The rows, and the packages of Debian that each needs, as JSON
    List,
    /// Runs rows on this machine, as root
    Run(Run),
}

#[derive(Debug, clap::Args)]
struct Run {
    /// The root file system with all programs.
    #[arg(long)]
    root: PathBuf,
    /// The folder with the runner.
    #[arg(long)]
    dist: PathBuf,
    /// An empty folder for the workspaces.
    #[arg(long)]
    work: PathBuf,
    /// Only these rows.
    rows: Vec<String>,
}

/// How many rows run side by side: most of them wait, or have two processes.
const AT_A_TIME: usize = 2;

/// The pod's user, and the group of its volumes.
const USER: u32 = 10001;

/// What is in a runner's reach: the root file system, read-only, as a pod's is; a workspace; the runner. The kernel
/// makes no user namespace below a chroot, so that the folder becomes the root of a mount namespace.
const ENTER: &str = r#"
root=$1 workspace=$2 dist=$3
shift 3
mount --make-rprivate /
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$root/tmp"
mount --bind "$workspace" "$root/workspace"
mount --bind "$dist" "$root/opt/plue"
cd "$root"
/usr/sbin/pivot_root . .
umount --lazy .
cd /workspace
exec setpriv --reuid=10001 --regid=10001 --groups=10001 --bounding-set=-all --inh-caps=-all --no-new-privs "$@""#;

#[tokio::main]
async fn main() -> ExitCode {
    let run = match Arguments::parse() {
        Arguments::List => {
            let rows: Vec<_> = ROWS
                .iter()
                .map(|row| json!({ "name": row.name, "packages": row.packages }))
                .collect();
            println!("{}", json!(rows));
            return ExitCode::SUCCESS;
        }
        Arguments::Run(run) => run,
    };
    match all(&run).await {
        Ok(failed) if failed.is_empty() => ExitCode::SUCCESS,
        Ok(failed) => {
            eprintln!("failed: {}", failed.join(", "));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the rows that were asked for, and says what came of each. Gives the names of those that failed.
async fn all(run: &Run) -> Result<Vec<&'static str>> {
    let rows = zoo::chosen(&run.rows).map_err(|name| anyhow!("there is no row {name}"))?;
    let missing = zoo::missing(&run.root);
    let api = ApiServer::start().await.context("start the API server")?;
    let mut results = stream::iter((1..).zip(rows))
        .map(|(task, row)| {
            let skip = missing.get(row.name).map(String::as_str).or(row.not_natively);
            let (run, api) = (&run, &api);
            async move {
                let started = Instant::now();
                match skip {
                    Some(reason) => (row, started, Err(reason)),
                    None => (row, started, Ok(one(run, api, task, row).await)),
                }
            }
        })
        .buffer_unordered(AT_A_TIME);
    let mut failed = Vec::new();
    while let Some((row, started, result)) = results.next().await {
        match result {
            Err(reason) => println!("{}", row.skipped(reason)),
            Ok(result) => {
                println!("{}", row.line(started.elapsed(), &result));
                if result.is_err() {
                    failed.push(row.name);
                }
            }
        }
    }
    let violations = api.violations();
    if !violations.is_empty() {
        return Err(anyhow!("the protocol was broken:\n  {}", violations.join("\n  ")));
    }
    Ok(failed)
}

/// One row with a workspace and a runner of its own.
async fn one(run: &Run, api: &ApiServer, task: i64, row: &Row) -> Result<(), String> {
    let workspace = run.work.join(row.name);
    volume(&workspace).map_err(|error| format!("{error:#}"))?;
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let finished = RunnerProcess::new("unshare")
        .args(&[
            // What a runner leaves ends with it, and a new /proc can be mounted.
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "sh",
            "-euc",
            ENTER,
            "sh",
            &path(&run.root),
            &path(&workspace),
            &path(&run.dist),
            "/opt/plue/plue-runner",
        ])
        // The image's variables, and a task's.
        .env("PATH", "/opt/plue:/usr/local/bin:/usr/bin:/bin")
        .env("HOME", "/home/runner")
        .env("LANG", "C.UTF-8")
        .env("WORKSPACE", "/workspace")
        .env("TASK_ID", task.to_string())
        .env("TASK_CONFIG", row.task().to_string())
        .env("CALLBACK_URL", api.task_url(task))
        .limit(Duration::from_secs(2 * u64::from(LIMIT)))
        .run()
        .await
        .map_err(|error| format!("the runner: {error}"))?;
    let judged = row.judge(api, task);
    match judged {
        Ok(()) if finished.code == 0 => Ok(()),
        // It says something in the log when it could tell nobody else.
        Ok(()) => Err(format!(
            "exit code {}\n{}{}",
            finished.code, finished.stdout, finished.stderr
        )),
        Err(wrong) => Err(format!("{wrong}\n{}", finished.stderr)),
    }
}

/// A folder as a volume of Kubernetes is: root's, open to all, and what is made in it belongs to the pod's group.
fn volume(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)
        .and_then(|()| chown(folder, Some(0), Some(USER)))
        .and_then(|()| fs::set_permissions(folder, PermissionsExt::from_mode(0o2777)))
        .with_context(|| format!("could not make the volume {}", folder.display()))
}
