//! Whether the runner lives, as a file: a probe needs no port for it, and the threat model wants none.
//!
//! The runner writes what it does every few seconds; `plue-runner health` reads it. A runner whose event loop hangs stops
//! writing.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::events::TaskId;

/// How often the runner writes.
const INTERVAL: Duration = Duration::from_secs(5);
/// After how long without a word it does not live: as many intervals as a busy machine may swallow.
pub const STALE: Duration = Duration::from_secs(30);

const NAME: &str = "plue-runner-health.json";

/// What the runner does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Starting,
    /// Standby: the API server does not know the runner, or cannot be reached.
    Unregistered,
    /// Standby: registered, and without a task.
    Idle,
    Working,
}

/// One report, as the file has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    pub state: State,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<Value>,
    pub pid: u32,
    /// Milliseconds since 1970.
    pub updated_ms: i64,
}

impl Report {
    /// Reads the report of the runner that has this folder as its `SPOOL_DIR`.
    ///
    /// # Errors
    /// When there is none, or what is there is none.
    pub fn read(folder: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(file(folder))?)?)
    }

    /// How long ago it was written.
    pub fn age(&self) -> Duration {
        let age = Timestamp::now().as_millisecond().saturating_sub(self.updated_ms);
        Duration::from_millis(u64::try_from(age).unwrap_or_default())
    }
}

fn file(folder: &Path) -> PathBuf {
    folder.join(NAME)
}

/// What keeps the file up to date; the file goes with it.
pub struct Health {
    file: PathBuf,
    now: Arc<Mutex<(State, Option<Value>)>>,
    ticker: JoinHandle<()>,
}

impl Health {
    /// Begins to write. A folder that cannot be written is logged once, and is not worth a task.
    pub fn start(folder: &Path) -> Self {
        let file = file(folder);
        let now = Arc::new(Mutex::new((State::Starting, None)));
        let ticker = tokio::spawn({
            let (file, now) = (file.clone(), Arc::clone(&now));
            async move {
                let mut warned = false;
                loop {
                    if let Err(error) = write(&file, &now)
                        && !std::mem::replace(&mut warned, true)
                    {
                        let folder = file.parent().unwrap_or(&file).display().to_string();
                        tracing::warn!(error = %error, folder, "`plue-runner health` will not know this runner (SPOOL_DIR)");
                    }
                    tokio::time::sleep(INTERVAL).await;
                }
            }
        });
        Self { file, now, ticker }
    }

    /// Says what the runner does from now on.
    pub fn is(&self, state: State) {
        self.set(state, None);
    }

    /// It works on this task.
    pub fn working(&self, task: &TaskId) {
        self.set(State::Working, Some(task.to_value()));
    }

    fn set(&self, state: State, task: Option<Value>) {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if *now == (state, task.clone()) {
            return;
        }
        *now = (state, task);
        drop(now);
        // The ticker has logged it when it cannot be written.
        let _ = write(&self.file, &self.now);
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        self.ticker.abort();
        let _ = fs::remove_file(&self.file);
    }
}

/// Replaces the file as a whole: a reader never sees half of it, and a link in its place is replaced and not followed.
fn write(file: &Path, now: &Mutex<(State, Option<Value>)>) -> io::Result<()> {
    let (state, task_id) = now.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let report = Report {
        state,
        task_id,
        pid: std::process::id(),
        updated_ms: Timestamp::now().as_millisecond(),
    };
    let beside = file.with_file_name(format!(".{NAME}-{:016x}", getrandom::u64().unwrap_or_default()));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&beside)
        .and_then(|mut open| open.write_all(&serde_json::to_vec(&report)?))
        .and_then(|()| fs::rename(&beside, file));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}
