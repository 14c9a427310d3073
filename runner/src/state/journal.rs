//! What a task has come to, for the runner that goes on with it.

use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::files::Files;
use super::log::{Log, Unreadable};
use super::now_ms;

/// Of which task a journal is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    pub task_id: String,
    /// A digest of the task's document; empty when it could not be read.
    pub document: String,
    /// Milliseconds since 1970.
    pub started_ms: i64,
}

#[derive(Debug, Serialize, Deserialize)]
enum Entry {
    Begun(Begun),
    /// When the task's time is over, in milliseconds since 1970.
    Deadline(i64),
    /// What was done so far is not gone on with.
    Forgotten,
    /// The task has ended, and this is how its process was to exit.
    Ends(u8),
    /// What whoever runs the task wants to be told again.
    Task(Vec<u8>),
}

/// What an earlier process has left.
#[derive(Debug, Default)]
pub struct Past {
    pub begun: Option<Begun>,
    pub deadline_ms: Option<i64>,
    pub exit: Option<u8>,
    /// What was noted, in order.
    pub task: VecDeque<Vec<u8>>,
}

impl Past {
    fn add(&mut self, entry: Entry) {
        match entry {
            Entry::Begun(begun) => self.begun = Some(begun),
            Entry::Deadline(at) => self.deadline_ms = Some(at),
            Entry::Forgotten => self.task.clear(),
            Entry::Ends(exit) => self.exit = Some(exit),
            Entry::Task(bytes) => self.task.push_back(bytes),
        }
    }
}

/// See the module. What cannot be written down is given up as a whole: see [`Files::give_up`].
#[derive(Debug)]
pub struct Journal {
    files: Arc<Files>,
    started_ms: i64,
    log: Mutex<Log<Entry>>,
}

impl Journal {
    const KIND: &str = "journal";

    /// What an earlier process has left of a task; `None` when there is nothing.
    ///
    /// # Errors
    /// When what is there says nothing.
    pub fn open(files: &Arc<Files>) -> Result<Option<(Self, Past)>, Unreadable> {
        let mut past = Past::default();
        let Some(log) = Log::open(&files.path(Self::KIND), |entry| past.add(entry))? else {
            return Ok(None);
        };
        let started_ms = past.begun.as_ref().map_or_else(now_ms, |begun| begun.started_ms);
        let (files, log) = (Arc::clone(files), Mutex::new(log));
        let journal = Self { files, started_ms, log };
        Ok(Some((journal, past)))
    }

    /// Begins a new one, in the place of any other.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin(files: &Arc<Files>, begun: Begun) -> io::Result<Self> {
        let started_ms = begun.started_ms;
        let log = Log::create(&files.path(Self::KIND), [Entry::Begun(begun)])?;
        let (files, log) = (Arc::clone(files), Mutex::new(log));
        Ok(Self { files, started_ms, log })
    }

    /// How long ago the task began, as far as the clock says.
    pub fn age(&self) -> Duration {
        Duration::from_millis(u64::try_from(now_ms().saturating_sub(self.started_ms)).unwrap_or_default())
    }

    /// The task's time is over then.
    pub fn deadline(&self, at_ms: i64) {
        self.write(&Entry::Deadline(at_ms), false);
    }

    /// What was done so far is not gone on with.
    pub fn forget(&self) {
        self.write(&Entry::Forgotten, true);
    }

    /// The task has ended, and its process is to exit like this.
    pub fn ends(&self, exit: u8) {
        self.write(&Entry::Ends(exit), true);
    }

    /// Notes what whoever runs the task wants to be told again. With `sync`, the death of the machine does not lose it.
    fn note(&self, entry: &impl Serialize, sync: bool) {
        let bytes = postcard::to_extend(entry, Vec::new()).unwrap_or_default();
        self.write(&Entry::Task(bytes), sync);
    }

    fn write(&self, entry: &Entry, sync: bool) {
        if !self.files.are_usable() {
            return;
        }
        if let Err(error) = self.lock().append(entry, sync) {
            self.files.give_up(&error);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Log<Entry>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What whoever runs a task has noted before its process was killed, to be gone through again, and where it notes what
/// happens now. Without a journal there is nothing, and nothing is noted.
#[derive(Debug)]
pub struct Memory<E> {
    journal: Option<Arc<Journal>>,
    past: Mutex<VecDeque<Vec<u8>>>,
    entries: PhantomData<fn(E) -> E>,
}

impl<E> Default for Memory<E> {
    /// Without a journal.
    fn default() -> Self {
        Self {
            journal: None,
            past: Mutex::default(),
            entries: PhantomData,
        }
    }
}

impl<E: Serialize + DeserializeOwned> Memory<E> {
    /// Of a task that an earlier process may have begun.
    pub fn new(journal: &Arc<Journal>, past: VecDeque<Vec<u8>>) -> Self {
        Self {
            journal: Some(Arc::clone(journal)),
            past: Mutex::new(past),
            entries: PhantomData,
        }
    }

    /// Whether anything is noted.
    pub fn is_kept(&self) -> bool {
        self.journal.is_some()
    }

    /// Whether there is more that an earlier process has done.
    pub fn has_past(&self) -> bool {
        !self.past().is_empty()
    }

    /// What it did next, when that is something that `wanted` takes.
    pub fn next_if(&self, wanted: impl FnOnce(&E) -> bool) -> Option<E> {
        let mut past = self.past();
        let entry = postcard::from_bytes(past.front()?).ok().filter(wanted)?;
        past.pop_front();
        Some(entry)
    }

    /// Notes what happens now.
    pub fn note(&self, entry: &E, sync: bool) {
        if let Some(journal) = &self.journal {
            journal.note(entry, sync);
        }
    }

    /// What an earlier process has done is not gone on with.
    pub fn forget(&self) {
        self.past().clear();
        if let Some(journal) = &self.journal {
            journal.forget();
        }
    }

    fn past(&self) -> MutexGuard<'_, VecDeque<Vec<u8>>> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn begun() -> Begun {
        Begun {
            task_id: "task-7".into(),
            document: "d".into(),
            started_ms: now_ms() - 5_000,
        }
    }

    #[test]
    fn what_was_noted_is_told_again_in_its_order() {
        let folder = tempfile::tempdir().unwrap();
        let files = Arc::new(Files::open(folder.path(), "task-7").unwrap());
        assert!(Journal::open(&files).unwrap().is_none());
        let journal = Arc::new(Journal::begin(&files, begun()).unwrap());
        let memory: Memory<String> = Memory::new(&journal, VecDeque::new());
        memory.note(&"dropped".into(), false);
        memory.forget();
        memory.note(&"a".into(), true);
        memory.note(&"b".into(), false);
        journal.deadline(17);
        journal.ends(1);
        let (journal, past) = Journal::open(&files).unwrap().unwrap();
        assert_eq!(
            (past.begun.unwrap().document, past.deadline_ms, past.exit),
            ("d".to_owned(), Some(17), Some(1))
        );
        assert!((5..60).contains(&journal.age().as_secs()));
        let memory: Memory<String> = Memory::new(&Arc::new(journal), past.task);
        assert_eq!(memory.next_if(|entry| entry == "b"), None, "it is not its turn");
        assert_eq!(memory.next_if(|_| true).as_deref(), Some("a"));
        assert_eq!(memory.next_if(|_| true).as_deref(), Some("b"));
        assert!(!memory.has_past() && memory.next_if(|_| true).is_none());
    }

    #[test]
    fn what_cannot_be_written_any_more_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let files = Arc::new(Files::open(folder.path(), "task-7").unwrap());
        let journal = Journal::begin(&files, begun()).unwrap();
        files.give_up(&io::Error::other("as on a full disk"));
        journal.ends(0);
        let left: Vec<_> = folder
            .path()
            .read_dir()
            .unwrap()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        assert_eq!(left, [files.path("lock")]);
    }
}
