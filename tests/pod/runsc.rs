//! The program `runsc`, for one pod.

use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;
use tokio::time::timeout;

/// How long one command may take: more than the harness needs.
pub const LIMIT: Duration = Duration::from_secs(1500);

/// A runsc that knows this pod.
pub struct Runsc {
    pub program: PathBuf,
    /// What it knows of containers.
    pub state: PathBuf,
    /// Whether this machine has control groups for the pods' limits.
    pub limits: bool,
    pub id: String,
}

impl Runsc {
    /// A command of it.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--root")
            .arg(&self.state)
            .args(["--platform=systrap", "--network=sandbox"])
            .args((!self.limits).then_some("--ignore-cgroups"))
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    pub async fn run(&self, arguments: &[&str]) -> Result<Output> {
        let output = timeout(LIMIT, self.command(arguments).output())
            .await
            .with_context(|| format!("runsc {} does not end", arguments.join(" ")))?;
        output.with_context(|| format!("could not start {}", self.program.display()))
    }

    /// What it prints, when it succeeds.
    pub async fn read(&self, arguments: &[&str]) -> Result<String> {
        let output = self.run(arguments).await?;
        ensure!(
            output.status.success(),
            "runsc {} failed ({}): {}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
