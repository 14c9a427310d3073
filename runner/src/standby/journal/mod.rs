//! What a runner that is started again has to know, in a file of `SPOOL_DIR`: the name it is registered under, whether
//! it is asking for a task, and the task that it has.
//!
//! The API server takes a task for alive as long as anybody beats under the name that has it. Without this file a
//! runner whose process was killed would register again, beat, and keep a task alive that it knows nothing of.
//!
//! The file has one page that is written over in place, so that a killed process leaves it whole and a full disk takes
//! it; behind the page stands, at the end of a task, the request with its ending. A checksum tells a torn page. No
//! secret is in it: events have lost theirs already, and a callback URL that may carry one is left out.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use url::Url;

use super::assignment::Assignment;
use crate::config::{MAX_POD_NAME, StandbyConfig};
use crate::events::callback::{EventRequest, Progress, SentRequest};
use crate::events::queue::Past;
use crate::events::unfinished::Unfinished;
use crate::spool_dir::is_at;
use plue_redaction::Redactor;

mod file;
mod page;

use file::{PREFIX, Taken, name_others, take};
use page::{
    Doing, EndingPage, PAGE, Page, TaskPage, VERSION, bare, callback, checksum, encode, read_ending, read_page, restore,
};

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
    /// Nothing can be read or written there, for this reason.
    Unusable(String),
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
    pub(super) ending: Option<SentRequest>,
}

/// See the module. Where it cannot be kept, the runner goes on without, and says so once; the name that is in the file
/// is not used then.
pub(super) struct Journal {
    path: PathBuf,
    register_url: Url,
    /// What may not be written down.
    redactor: &'static Redactor,
    state: Mutex<State>,
    warned: AtomicBool,
}

struct State {
    /// Locked for as long as we live.
    file: Option<File>,
    page: Page,
    /// The last name that is in the file, as far as we know.
    written_name: Option<String>,
}

impl Journal {
    /// Opens the file of this runner, and reads what an earlier process of it has left. Says which files of others are
    /// there.
    pub(super) fn open(folder: &Path, standby: &StandbyConfig, redactor: &'static Redactor) -> (Self, Left) {
        let path = folder.join(file_name(standby));
        let (file, left, page) = match take(&path) {
            Ok(Taken::Ours(file)) => match read(&file, &standby.register_url, &standby.pod_name) {
                Ok((left, page)) => (Some(file), left, page),
                Err(problem) => (Some(file), Left::Unreadable(problem), None),
            },
            Ok(Taken::Replaced(file)) => {
                let problem = "others could write to it".to_owned();
                (Some(file), Left::Unreadable(problem), None)
            }
            Ok(Taken::OfALivingRunner) => (None, Left::Alive, None),
            Err(error) => (None, Left::Unusable(format!("{}: {error}", path.display())), None),
        };
        name_others(folder, &path);
        // What was left stays ours until it is dealt with.
        let written_name = page.as_ref().map(|page| page.name.clone());
        let page = page.unwrap_or_else(|| Page {
            version: VERSION,
            pod_name: standby.pod_name.clone(),
            name: standby.pod_name.clone(),
            beat_ms: now_ms(),
            doing: Doing::Waiting,
        });
        let journal = Self {
            path,
            register_url: standby.register_url.clone(),
            redactor,
            state: Mutex::new(State {
                file,
                page,
                written_name,
            }),
            warned: AtomicBool::new(false),
        };
        (journal, left)
    }

    /// The runner has this name from now on, and no task. Whether that was written down.
    pub(super) fn named(&self, name: &str) -> bool {
        self.write(|page| {
            page.name = name.to_owned();
            page.doing = Doing::Waiting;
        })
    }

    /// Goes on under a fresh name, which it answers. The old one is not to be beaten for any more: what the server has
    /// given it, if anything, goes to another runner when it has been silent for long enough.
    pub(super) fn leave_name(&self, why: &str) -> String {
        let (old_name, fresh) = {
            let state = self.lock();
            (state.page.name.clone(), fresh_name(&state.page.pod_name))
        };
        self.named(&fresh);
        tracing::warn!(
            old_name,
            name = fresh,
            why,
            "the API server may count a task as this runner's that it does not have: it goes on under a fresh name, \
                and the server gives the task away when the old name has been silent for long enough"
        );
        fresh
    }

    /// A request for a task is sent: whoever comes later cannot know whether it was answered with one. Whether that was
    /// written down, or need not be, since no later process will use this name.
    pub(super) fn asking(&self) -> bool {
        self.see_to_the_file();
        let written = self.write(|page| page.doing = Doing::Asking);
        let state = self.lock();
        let known = state.written_name.as_deref().unwrap_or(&state.page.pod_name);
        written || known != state.page.name
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
        let callback = callback(&assignment.callback_url, &self.register_url, self.redactor);
        let task = TaskPage {
            id: assignment.id,
            callback,
            started_ms: now_ms(),
            last_seq: 0,
            lost: 0,
            open: Unfinished::default(),
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
        let state = self.lock();
        let nothing = state.page.doing == Doing::Waiting && state.page.name == state.page.pod_name;
        if let Some(file) = &state.file
            && nothing
            && is_at(file, &self.path)
        {
            let _ = fs::remove_file(&self.path);
        }
    }

    /// Somebody may have removed the file, or put another in its place.
    fn see_to_the_file(&self) {
        let mut state = self.lock();
        if state.file.as_ref().is_some_and(|file| is_at(file, &self.path)) {
            return;
        }
        if state.file.is_none() && state.written_name.is_none() {
            // It never could be had.
            return;
        }
        state.file = match take(&self.path) {
            Ok(Taken::Ours(file) | Taken::Replaced(file)) => Some(file),
            Ok(Taken::OfALivingRunner) => None,
            Err(error) => {
                self.warn(&error);
                None
            }
        };
    }

    /// Changes the page, here and in the file. Whether it is there.
    fn write(&self, change: impl FnOnce(&mut Page)) -> bool {
        let mut state = self.lock();
        change(&mut state.page);
        let Some(file) = &state.file else { return false };
        match file.write_all_at(&encode(&state.page), 0) {
            Ok(()) => {
                if state.written_name.as_ref() != Some(&state.page.name) {
                    state.written_name = Some(state.page.name.clone());
                }
                true
            }
            Err(error) => {
                self.warn(&error);
                false
            }
        }
    }

    fn warn(&self, error: &io::Error) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                error = %error,
                file = %self.path.display(),
                "what this runner does cannot be written down: if it is killed, its task waits for the API server \
                    (SPOOL_DIR)"
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress for Journal {
    fn sending(&self, request: &EventRequest<'_>) {
        let Some(last) = request.events.last() else { return };
        // The ending itself first: a page that names it is never without it.
        let ending = last.record.kind.is_terminal().then(|| {
            if let Some(file) = &self.lock().file
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

    fn arrived(&self, lost: u64, ended: bool) {
        self.write(|page| match &mut page.doing {
            // The server knows: whatever the runner still does, nobody has to tell it again.
            Doing::Task(_) if ended => page.doing = Doing::Waiting,
            Doing::Task(task) => task.lost = lost,
            Doing::Waiting | Doing::Asking => {}
        });
    }
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}

/// A name that no runner has had: the pod's, and a suffix.
fn fresh_name(pod_name: &str) -> String {
    let suffix = format!("-{:08x}", getrandom::u32().unwrap_or_default());
    let stem = pod_name.chars().take(MAX_POD_NAME - suffix.len());
    stem.chain(suffix.chars()).collect()
}

/// One file for each runner: other names, and other API servers, have others.
fn file_name(standby: &StandbyConfig) -> String {
    let whose = format!("{}\0{}", bare(&standby.register_url), standby.pod_name);
    format!("{PREFIX}{:.16}.json", checksum(whose.as_bytes()))
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
                    lost: task.lost.min(task.last_seq),
                    open: task.open,
                },
                ending,
            }))
        }
    };
    Ok((left, Some(page)))
}

#[cfg(test)]
mod tests;
