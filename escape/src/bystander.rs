//! A process outside of the sandbox, of the runner's user and with the runner's secrets: it says which signals reach
//! it, and in a baseline it stands in for the runner.

use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::processes::Adopted;
use crate::secrets::Secrets;
use crate::sys;

/// See the module. Dropping it ends it.
pub struct Bystander {
    child: Mutex<Child>,
    pid: i32,
    noticed: Arc<Mutex<Vec<String>>>,
    reader: JoinHandle<()>,
    adopted: Arc<Adopted>,
}

impl Bystander {
    /// Starts it. It holds this file open.
    pub async fn start(program: &Path, file: &Path, secrets: &Secrets, adopted: &Arc<Adopted>) -> Result<Self> {
        let mut command = Command::new(program);
        command
            .arg("bystander")
            .arg(file)
            .env_clear()
            .env("ANTHROPIC_API_KEY", &secrets.api_key)
            .env("CALLBACK_TOKEN", &secrets.callback_token)
            .env("OPERATOR_SECRET", &secrets.operator)
            .env("OPERATOR_SETTING", &secrets.plain)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let started = adopted.start(|| command.spawn(), Child::id);
        let (mut child, pid) = started.context("start the bystander")?;
        let mut lines = BufReader::new(child.stdout.take().context("the bystander has no output")?).lines();
        let ready = tokio::time::timeout(Duration::from_secs(20), lines.next_line()).await;
        if !matches!(&ready, Ok(Ok(Some(line))) if line == "ready") {
            bail!("the bystander did not start: {ready:?}");
        }
        let noticed = Arc::new(Mutex::new(Vec::new()));
        let reader = tokio::spawn({
            let noticed = Arc::clone(&noticed);
            async move {
                while let Ok(Some(line)) = lines.next_line().await {
                    noticed.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                }
            }
        });
        Ok(Self {
            child: Mutex::new(child),
            pid,
            noticed,
            reader,
            adopted: Arc::clone(adopted),
        })
    }

    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// What was done to it so far.
    pub fn noticed(&self) -> Vec<String> {
        let mut noticed = self.noticed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Ok(Some(status)) = self.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait() {
            noticed.push(format!("ended: {status}"));
        }
        noticed
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        self.reader.abort();
        self.adopted.forget(self.pid);
    }
}

/// The bystander itself: `plue-escape bystander FILE`.
pub fn main(file: &Path) -> std::io::Result<()> {
    let _held = std::fs::File::open(file)?;
    sys::report_signals(|signal| {
        use std::io::Write;
        let mut stdout = std::io::stdout().lock();
        let _ = match signal {
            None => writeln!(stdout, "ready"),
            Some((signal, sender)) => writeln!(stdout, "signal {signal} from process {sender}"),
        };
        let _ = stdout.flush();
    })
}
