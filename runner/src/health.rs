//! Whether the runner lives, as a file: a probe needs no port for it, and the threat model wants none.
//!
//! The runner writes what it does every few seconds; `plue-runner health` reads it. A runner whose event loop hangs
//! stops writing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::events::TaskId;
use crate::spool_dir::{careful, is_at};

/// How often the runner writes.
const INTERVAL: Duration = Duration::from_secs(5);
/// After how long without a word it does not live: as many intervals as a busy machine may swallow.
pub const STALE: Duration = Duration::from_secs(30);

/// How long the file is, and how much of one is read.
const MAX_FILE: u64 = 1024;

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
        // The folder may be one that everybody writes to: no link is followed, nothing is waited for, and what another
        // user has put there says nothing.
        let mut open = OpenOptions::new();
        open.read(true).custom_flags(careful());
        let file = open.open(file(folder))?;
        let about = file.metadata()?;
        let ours = [0, rustix::process::geteuid().as_raw()].contains(&about.uid());
        if !about.is_file() || !ours || about.len() > MAX_FILE {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it is none of this user's runner",
            ));
        }
        let mut text = Vec::new();
        file.take(MAX_FILE).read_to_end(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// The age of what is said to be written in the future.
    pub const FUTURE: Duration = Duration::MAX;

    /// How long ago it was written.
    pub fn age(&self) -> Duration {
        let age = Timestamp::now().as_millisecond().saturating_sub(self.updated_ms);
        u64::try_from(age).map_or(Self::FUTURE, Duration::from_millis)
    }
}

fn file(folder: &Path) -> PathBuf {
    folder.join(NAME)
}

/// What keeps the file up to date; the file goes with it.
pub struct Health {
    shared: Arc<Shared>,
    ticker: JoinHandle<()>,
}

struct Shared {
    path: PathBuf,
    now: Mutex<Now>,
}

struct Now {
    state: State,
    task_id: Option<Value>,
    /// The file that is ours.
    file: Option<File>,
}

impl Health {
    /// Begins to write. A folder that cannot be written is logged once, and is not worth a task.
    pub fn start(folder: &Path) -> Self {
        let now = Now {
            state: State::Starting,
            task_id: None,
            file: None,
        };
        let shared = Arc::new(Shared {
            path: file(folder),
            now: Mutex::new(now),
        });
        let ticker = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                let mut warned = false;
                loop {
                    if let Err(error) = shared.write(|_| {})
                        && !std::mem::replace(&mut warned, true)
                    {
                        let folder = shared.path.parent().unwrap_or(&shared.path).display().to_string();
                        tracing::warn!(error = %error, folder, "`plue-runner health` will not know this runner \
                            (SPOOL_DIR)");
                    }
                    tokio::time::sleep(INTERVAL).await;
                }
            }
        });
        Self { shared, ticker }
    }

    /// Says what the runner does from now on.
    pub fn is(&self, state: State) {
        self.set(state, None);
    }

    /// It works on this task.
    pub fn working(&self, task: &TaskId) {
        self.set(State::Working, Some(task.to_value()));
    }

    fn set(&self, state: State, task_id: Option<Value>) {
        // The ticker logs it when it cannot be written.
        let _ = self.shared.write(|now| {
            now.state = state;
            now.task_id = task_id;
        });
    }
}

impl Shared {
    /// Writes what is the case after a change. The file is written over in place: on a full disk there is no room for
    /// another.
    fn write(&self, change: impl FnOnce(&mut Now)) -> io::Result<()> {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut now);
        let report = Report {
            state: now.state,
            task_id: now.task_id.clone(),
            pid: std::process::id(),
            updated_ms: Timestamp::now().as_millisecond(),
        };
        let mut text = serde_json::to_vec(&report)?;
        // Always of one length: nothing of a longer one is left behind it.
        text.resize(text.len().max(MAX_FILE as usize), b' ');
        if let Some(file) = now.file.as_ref().filter(|file| is_at(file, &self.path)) {
            return file.write_all_at(&text, 0);
        }
        now.file = Some(self.put(&text)?);
        Ok(())
    }

    /// Puts a new file in its place as a whole: a reader never sees half of it, and a link there is replaced, not
    /// followed.
    fn put(&self, text: &[u8]) -> io::Result<File> {
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        let beside = tempfile::Builder::new()
            .prefix(&format!(".{NAME}-"))
            .permissions(fs::Permissions::from_mode(0o644))
            .tempfile_in(folder)?;
        beside.as_file().write_all_at(text, 0)?;
        Ok(beside.persist(&self.path)?)
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        self.ticker.abort();
        let now = self.shared.now.lock().unwrap_or_else(PoisonError::into_inner);
        if now.file.as_ref().is_some_and(|file| is_at(file, &self.shared.path)) {
            let _ = fs::remove_file(&self.shared.path);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn the_file_is_written_over_in_place_and_goes_with_its_runner() {
        let folder = tempfile::tempdir().unwrap();
        let health = Health::start(folder.path());
        health.working(&TaskId::Number(7));
        let before = fs::metadata(file(folder.path())).unwrap();
        health.is(State::Idle);
        let after = fs::metadata(file(folder.path())).unwrap();
        // On a full disk there would be no room for another.
        assert_eq!((before.ino(), before.len()), (after.ino(), after.len()));
        let report = Report::read(folder.path()).unwrap();
        assert!(report.age() < STALE);
        assert_eq!((report.state, report.task_id), (State::Idle, None));
        drop(health);
        assert!(Report::read(folder.path()).is_err());
    }

    #[test]
    fn what_is_no_report_of_ours_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path());
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &path, fifo, 0o600.into(), 0).unwrap();
        assert!(Report::read(folder.path()).is_err(), "a FIFO that nobody writes");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert!(Report::read(folder.path()).is_err(), "a link");
        fs::remove_file(&path).unwrap();
        fs::write(&path, "x".repeat(1 << 20)).unwrap();
        assert!(Report::read(folder.path()).is_err(), "a file that is too long");
    }
}
