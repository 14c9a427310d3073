//! What a runner that is started again has to know, in a file of `SPOOL_DIR`: the name it is registered under, whether it is
//! asking for a task, and the task that it has.
//!
//! The API server takes a task for alive as long as anybody beats under the name that has it. Without this file a runner
//! whose process was killed would register again, beat, and keep a task alive that it knows nothing of.
//!
//! The file has one page that is written over in place, so that a killed process leaves it whole and a full disk takes it;
//! behind the page stands, at the end of a task, the request with its ending. A checksum tells a torn page. No secret is
//! in it: events have lost theirs already, and a callback URL that may carry one is left out.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use url::Url;

use super::assignment::Assignment;
use crate::config::StandbyConfig;
use crate::events::callback::{EventRequest, Progress, SentEnding};
use crate::events::open::Open;
use crate::events::queue::Past;
use crate::redaction;

/// How long the page is; the ending stands behind it.
const PAGE: usize = 4096;
/// How much of an ending is read: far more than one event may have.
const MAX_ENDING: u64 = 4 << 20;
/// How long a checksum is, in hex.
const CHECKSUM: usize = 64;
const PREFIX: &str = "plue-runner-standby-";
const VERSION: u32 = 1;
/// How often the file is tried to be had, and the time between two tries.
const TRIES: u32 = 50;
const NEXT_TRY: Duration = Duration::from_millis(20);

/// What the page says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Page {
    version: u32,
    /// As the operator named the runner.
    pod_name: String,
    /// As it is registered.
    name: String,
    /// When the last sign of life was sent that the server took, in milliseconds since 1970.
    beat_ms: i64,
    doing: Doing,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Doing {
    /// It has no task.
    Waiting,
    /// A request for a task is under way: the server may be giving it one.
    Asking,
    Task(TaskPage),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct TaskPage {
    id: i64,
    /// `None`: it may carry a secret, or is too long.
    callback: Option<CallbackPage>,
    started_ms: i64,
    /// Of the last event that was sent, whether or not it arrived.
    last_seq: u64,
    /// How many events are not known to have arrived.
    lost: u64,
    open: Open,
    ending: Option<EndingPage>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct CallbackPage {
    url: String,
    /// It has the user name and the password of `REGISTER_URL`, which are not written down.
    as_register_url: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct EndingPage {
    seq: u64,
    key: String,
    batch: bool,
    length: u64,
    checksum: String,
}

/// What an earlier process has left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Nothing: it ended in order, or there was none.
    Nothing,
    /// It had no task under this name.
    Waiting { name: String },
    /// It was asking for a task under this name.
    Asking { name: String },
    /// It had a task.
    Task(Box<LeftTask>),
    /// What is there says nothing, for this reason.
    Unreadable(String),
    /// A runner of this name is alive.
    Alive,
}

/// A task that an earlier process has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LeftTask {
    pub(super) name: String,
    pub(super) id: i64,
    pub(super) callback_url: Option<Url>,
    /// Milliseconds since 1970.
    pub(super) beat_ms: i64,
    pub(super) started_ms: i64,
    pub(super) past: Past,
    pub(super) ending: Option<SentEnding>,
}

/// See the module. Where it cannot be kept, the runner goes on without, and says so once.
pub(super) struct Journal {
    /// Locked for as long as we live.
    file: Option<File>,
    path: PathBuf,
    register_url: Url,
    page: Mutex<Page>,
    warned: AtomicBool,
}

impl Journal {
    /// Opens the file of this runner, and reads what an earlier process of it has left. Says which files of others are there.
    pub(super) fn open(folder: &Path, standby: &StandbyConfig) -> (Self, Left) {
        let path = folder.join(file_name(standby));
        let (file, read) = match take(&path) {
            Ok(Some(file)) => {
                let read = read(&file, &standby.register_url, &standby.pod_name);
                (
                    Some(file),
                    read.unwrap_or_else(|problem| (Left::Unreadable(problem), None)),
                )
            }
            Ok(None) => (None, (Left::Alive, None)),
            Err(error) => {
                tracing::warn!(
                    error = %error,
                    file = %path.display(),
                    "what this runner does cannot be kept for the case that it is killed (SPOOL_DIR)"
                );
                (None, (Left::Nothing, None))
            }
        };
        name_others(folder, &path);
        let (left, page) = read;
        // What was left stays ours until it is dealt with.
        let page = page.unwrap_or_else(|| Page {
            version: VERSION,
            pod_name: standby.pod_name.clone(),
            name: standby.pod_name.clone(),
            beat_ms: now_ms(),
            doing: Doing::Waiting,
        });
        let journal = Self {
            file,
            path,
            register_url: standby.register_url.clone(),
            page: Mutex::new(page),
            warned: AtomicBool::new(false),
        };
        (journal, left)
    }

    /// The runner has this name from now on, and no task.
    pub(super) fn named(&self, name: &str) {
        self.write(|page| {
            page.name = name.to_owned();
            page.doing = Doing::Waiting;
        });
    }

    /// A request for a task is sent: whoever comes later cannot know whether it was answered with one.
    pub(super) fn asking(&self) {
        self.write(|page| page.doing = Doing::Asking);
    }

    /// The request was answered, without a task. `beat_ms` is when it was sent, if the server has taken it.
    pub(super) fn waiting(&self, beat_ms: Option<i64>) {
        self.write(|page| {
            page.beat_ms = beat_ms.unwrap_or(page.beat_ms);
            page.doing = Doing::Waiting;
        });
    }

    /// The request that was sent then was answered with this task.
    pub(super) fn has_task(&self, assignment: &Assignment, beat_ms: i64) {
        let callback = callback(&assignment.callback_url, &self.register_url);
        let task = TaskPage {
            id: assignment.id,
            callback,
            started_ms: now_ms(),
            last_seq: 0,
            lost: 0,
            open: Open::default(),
            ending: None,
        };
        self.write(|page| {
            page.beat_ms = beat_ms;
            page.doing = Doing::Task(task);
        });
    }

    /// The server has taken a heartbeat that was sent then.
    pub(super) fn beat(&self, beat_ms: i64) {
        self.write(|page| page.beat_ms = beat_ms);
    }

    /// The runner ends. What a later one has to know stays.
    pub(super) fn close(&self) {
        let page = self.lock();
        let nothing = page.doing == Doing::Waiting && page.name == page.pod_name;
        if let Some(file) = &self.file
            && nothing
            && is_at(file, &self.path)
        {
            let _ = fs::remove_file(&self.path);
        }
    }

    /// Changes the page, here and in the file.
    fn write(&self, change: impl FnOnce(&mut Page)) {
        let mut page = self.lock();
        change(&mut page);
        let Some(file) = &self.file else { return };
        if let Err(error) = file.write_all_at(&encode(&page), 0) {
            self.warn(&error);
        }
    }

    fn warn(&self, error: &io::Error) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                error = %error,
                file = %self.path.display(),
                "what this runner does cannot be written down: if it is killed, its task waits for the API server (SPOOL_DIR)"
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, Page> {
        self.page.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress for Journal {
    fn sending(&self, request: &EventRequest<'_>) {
        let Some(last) = request.events.last() else { return };
        // The ending itself first: a page that names it is never without it.
        let ending = last.record.kind.is_terminal().then(|| {
            if let Some(file) = &self.file
                && let Err(error) = file.write_all_at(request.body, PAGE as u64)
            {
                self.warn(&error);
            }
            EndingPage {
                seq: request.events[0].seq,
                key: request.key.to_owned(),
                batch: request.events.len() > 1,
                length: request.body.len() as u64,
                checksum: checksum(request.body),
            }
        });
        self.write(|page| {
            let Doing::Task(task) = &mut page.doing else { return };
            task.last_seq = last.seq;
            task.lost = request.lost;
            request.events.iter().for_each(|event| task.open.note(&event.record));
            task.ending = ending;
        });
    }

    fn arrived(&self, lost: u64) {
        self.write(|page| {
            if let Doing::Task(task) = &mut page.doing {
                task.lost = lost;
            }
        });
    }
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}

/// One file for each runner: other names, and other API servers, have others.
fn file_name(standby: &StandbyConfig) -> String {
    let mut hash = Sha256::new();
    hash.update(bare(&standby.register_url).as_str());
    hash.update([0]);
    hash.update(&standby.pod_name);
    let hash = hash.finalize();
    let hash = hash
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>();
    format!("{PREFIX}{hash}.json")
}

/// A URL without what may be a secret in it.
fn bare(url: &Url) -> Url {
    let mut bare = url.clone();
    let _ = bare.set_username("");
    let _ = bare.set_password(None);
    bare.set_query(None);
    bare.set_fragment(None);
    bare
}

/// What is written down of a callback URL. Nothing when it has what may be a secret.
fn callback(url: &Url, register_url: &Url) -> Option<CallbackPage> {
    let user = |url: &Url| (url.username().to_owned(), url.password().map(str::to_owned));
    let as_register_url = user(url) != (String::new(), None);
    let is_known = !as_register_url || (user(url) == user(register_url) && url.origin() == register_url.origin());
    let written = bare(url).to_string();
    let (redacted, masked) = redaction::current().redact(written.clone());
    let is_plain = url.query().is_none() && masked == 0 && redacted == written;
    (is_known && is_plain).then_some(CallbackPage {
        url: written,
        as_register_url,
    })
}

fn restore(page: &CallbackPage, register_url: &Url) -> Option<Url> {
    let mut url = Url::parse(&page.url).ok()?;
    if page.as_register_url {
        url.set_username(register_url.username()).ok()?;
        url.set_password(register_url.password()).ok()?;
    }
    Some(url)
}

/// The file, locked. `None`: a runner that lives has it.
fn take(path: &Path) -> io::Result<Option<File>> {
    // One that was killed a moment ago may not be gone yet, and one that ends may remove the file between our opening and
    // our locking it.
    for last in (0..TRIES).map(|tried| tried + 1 == TRIES) {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
            .open(path)?;
        is_ours(&file)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if last => return Ok(None),
            Err(Errno::WOULDBLOCK) => std::thread::sleep(NEXT_TRY),
            // Where nothing can be locked, a name of one's own has to do.
            Err(_) | Ok(()) if is_at(&file, path) => return Ok(Some(file)),
            Err(_) | Ok(()) => {}
        }
    }
    Err(io::Error::other("another process replaces it all the time"))
}

/// The folder may be one that everybody writes to: what another user has put there may name any URL.
fn is_ours(file: &File) -> io::Result<()> {
    let about = file.metadata()?;
    let us = rustix::process::geteuid().as_raw();
    let good = about.is_file() && about.uid() == us && about.nlink() == 1 && about.mode() & 0o022 == 0;
    match good {
        true => Ok(()),
        false => Err(io::Error::other("it is no file that only this user can write")),
    }
}

/// Whether the file is still the one at this place.
fn is_at(file: &File, path: &Path) -> bool {
    let there = fs::symlink_metadata(path);
    there.is_ok_and(|there| {
        file.metadata()
            .is_ok_and(|ours| (ours.dev(), ours.ino()) == (there.dev(), there.ino()))
    })
}

/// The page as it stands in the file. What does not fit is left out, the least important first.
fn encode(page: &Page) -> Vec<u8> {
    let json = |page: &Page| serde_json::to_string(page).unwrap_or_default();
    let mut text = json(page);
    let fits = |text: &str| text.len() + CHECKSUM + 2 <= PAGE;
    if !fits(&text)
        && let Doing::Task(task) = &page.doing
    {
        let mut task = task.clone();
        task.open = Open::default();
        let mut smaller = page.clone();
        smaller.doing = Doing::Task(task.clone());
        text = json(&smaller);
        if !fits(&text) {
            task.callback = None;
            smaller.doing = Doing::Task(task);
            text = json(&smaller);
        }
    }
    let mut bytes = format!("{} {text}", checksum(text.as_bytes())).into_bytes();
    bytes.resize(PAGE - 1, b' ');
    bytes.push(b'\n');
    bytes
}

/// Reads what an earlier process has left, or why that says nothing.
fn read(file: &File, register_url: &Url, pod_name: &str) -> Result<(Left, Option<Page>), String> {
    let Some(page) = read_page(file)? else {
        return Ok((Left::Nothing, None));
    };
    if page.pod_name != pod_name {
        return Err(format!("it is that of a runner with POD_NAME {:?}", page.pod_name));
    }
    let name = page.name.clone();
    let left = match page.doing.clone() {
        Doing::Waiting => Left::Waiting { name },
        Doing::Asking => Left::Asking { name },
        Doing::Task(task) => {
            let ending = match &task.ending {
                Some(ending) => Some(read_ending(file, ending)?),
                None => None,
            };
            Left::Task(Box::new(LeftTask {
                name,
                id: task.id,
                callback_url: task.callback.and_then(|callback| restore(&callback, register_url)),
                beat_ms: page.beat_ms,
                started_ms: task.started_ms,
                past: Past {
                    last_seq: task.last_seq,
                    lost: task.lost,
                    open: task.open,
                },
                ending,
            }))
        }
    };
    Ok((left, Some(page)))
}

/// `None`: a file that was made and never written.
fn read_page(file: &File) -> Result<Option<Page>, String> {
    let length = file.metadata().map_err(|error| error.to_string())?.len();
    if length == 0 {
        return Ok(None);
    }
    let mut bytes = [0; PAGE];
    file.read_exact_at(&mut bytes, 0)
        .map_err(|_| "it is torn: its page is not whole".to_owned())?;
    let torn = || "it is torn: what it says is not what its checksum says".to_owned();
    let text = std::str::from_utf8(&bytes).map_err(|_| torn())?.trim_end();
    let (expected, json) = text.split_once(' ').ok_or_else(torn)?;
    if checksum(json.as_bytes()) != expected {
        return Err(torn());
    }
    let page: Page = serde_json::from_str(json).map_err(|error| format!("it is of another version: {error}"))?;
    match page.version {
        VERSION => Ok(Some(page)),
        other => Err(format!("it is of version {other}, and this runner knows {VERSION}")),
    }
}

fn read_ending(file: &File, ending: &EndingPage) -> Result<SentEnding, String> {
    let torn = || "it is torn: the ending in it is not whole".to_owned();
    let length = usize::try_from(ending.length.min(MAX_ENDING)).map_err(|_| torn())?;
    let mut body = vec![0; length];
    file.read_exact_at(&mut body, PAGE as u64).map_err(|_| torn())?;
    if checksum(&body) != ending.checksum {
        return Err(torn());
    }
    Ok(SentEnding {
        seq: ending.seq,
        key: ending.key.clone(),
        batch: ending.batch,
        body: Bytes::from(body),
    })
}

fn checksum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Says which files of other runners are in the folder. What they say is for those alone.
fn name_others(folder: &Path, own: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path == own || !name.to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(&path);
        let Ok(file) = opened else { continue };
        // One that lives says for itself what it does.
        if is_ours(&file).is_err() || flock(&file, FlockOperation::NonBlockingLockShared).is_err() {
            continue;
        }
        let whose = match read_page(&file) {
            Ok(Some(page)) => page.pod_name,
            Ok(None) | Err(_) => "unknown".to_owned(),
        };
        tracing::info!(
            file = %path.display(),
            pod_name = whose,
            "the file of another runner is ignored: it had another POD_NAME, or another REGISTER_URL"
        );
    }
}
