//! What is kept of an active runner's task in `STATE_DIR`, and what an earlier process of it has left there.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Exit;
use super::delivery::Unanswered;
use crate::agent;
use crate::config::variables;
use crate::events::callback::Progress;
use crate::events::queue::Past;
use crate::events::{Event, EventQueue, LogLevel, SpoolConfig, TaskErrorCode, WriteAhead, write_ahead::Unsent};
use crate::failure::Failure;
use crate::state::{self, Begun, Files, Journal, OpenError, now_ms};
use crate::workflow;

/// Why the task is not run.
pub(super) enum NotKept {
    /// The folder cannot be used.
    Refused(Failure),
    /// Another runner has it, whose ending is the task's.
    HadByAnother(OpenError),
}

/// What there is of a task.
pub(super) struct Kept {
    files: Arc<Files>,
    journal: Arc<Journal>,
    events: Arc<WriteAhead>,
    past: state::Past,
    unsent: Unsent,
    /// Whether there was an earlier process.
    resumed: bool,
    /// Why what an earlier process has left is not gone on with.
    anew: Option<String>,
}

impl Kept {
    /// Opens what there is of a task, or begins it. `document` is a digest of the task's document; empty, it could not
    /// be read.
    ///
    /// # Errors
    /// When nothing can be kept in the folder, or another runner has the task.
    pub(super) fn open(folder: &Path, task_id: &str, document: String) -> Result<Self, NotKept> {
        let files = Files::open(folder, task_id).map_err(|error| match error {
            OpenError::Folder(problem) => refused(&problem),
            OpenError::Locked(_) => NotKept::HadByAnother(error),
        })?;
        let files = Arc::new(files);
        let anew = match left(&files, task_id, &document) {
            Ok(Some((journal, past, events, unsent))) => {
                return Ok(Self {
                    files,
                    journal: Arc::new(journal),
                    events: Arc::new(events),
                    past,
                    unsent,
                    resumed: true,
                    anew: None,
                });
            }
            Ok(None) => None,
            Err(why) => Some(why),
        };
        let begun = Begun {
            task_id: task_id.to_owned(),
            document,
            started_ms: now_ms(),
        };
        // The events last: with a journal alone, a later process knows that nothing was sent.
        let cannot = |error: std::io::Error| {
            refused(&format!(
                "the folder {} cannot be written to: {error}",
                folder.display()
            ))
        };
        files.remove_kept();
        let journal = Journal::begin(&files, begun).map_err(cannot)?;
        let events = WriteAhead::begin(&files).map_err(cannot)?;
        Ok(Self {
            files,
            journal: Arc::new(journal),
            events: Arc::new(events),
            past: state::Past::default(),
            unsent: Unsent::default(),
            resumed: false,
            anew,
        })
    }

    /// The task's queue, with what an earlier process has not sent.
    pub(super) fn queue(&mut self, spool: SpoolConfig) -> EventQueue {
        let past = Past {
            last_seq: self.unsent.past.last_seq,
            lost: self.unsent.past.lost,
            open: self.unsent.past.open.clone(),
        };
        let records = std::mem::take(&mut self.unsent.records);
        EventQueue::keeping(spool, past, &self.events, records, self.unsent.is_closed)
    }

    /// Hears what becomes of the events.
    pub(super) fn progress(&self) -> Arc<dyn Progress> {
        Arc::clone(&self.events) as _
    }

    /// What an earlier process has sent, and whose answer it did not see.
    pub(super) fn unanswered(&self) -> Option<Unanswered> {
        let (request, ends) = self.unsent.unanswered.clone()?;
        let lost = self.unsent.past.lost;
        Some(Unanswered { request, ends, lost })
    }

    /// How an earlier process was to exit, when it had come to the task's ending; and whether that has arrived.
    pub(super) fn ended(&self) -> Option<(Exit, bool)> {
        self.unsent.is_closed.then(|| {
            let exit = Exit::ALL.iter().find(|exit| Some(exit.code()) == self.past.exit);
            (exit.copied().unwrap_or(Exit::Failed), self.unsent.has_ended)
        })
    }

    /// For whoever watches: why the task begins anew, when it does.
    pub(super) fn begins_anew(&self) -> Option<Event> {
        let why = self.anew.as_ref()?;
        tracing::warn!(
            why,
            "what an earlier process of this task has left is not gone on with (STATE_DIR)"
        );
        let message = format!("the runner was restarted, and the task begins anew: {why}");
        Some(note(message))
    }

    /// What the agent has noted.
    pub(super) fn agent(&self) -> agent::Memory {
        let open = self.unsent.past.open.calls().map(str::to_owned).collect();
        agent::Memory::new(&self.journal, self.past.task.clone(), open, self.resumed)
    }

    /// What the workflow has noted.
    pub(super) fn workflow(&self) -> workflow::Memory {
        let open = self.unsent.past.open.step();
        workflow::Memory::new(&self.journal, self.past.task.clone(), open, self.resumed)
    }

    /// How long ago the task began.
    pub(super) fn age(&self) -> Duration {
        self.journal.age()
    }

    /// When the time of a task is over that may take so long: a restart does not give it more.
    pub(super) fn deadline(&self, limit: Duration) -> Instant {
        let now = now_ms();
        let limit_ms = i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
        let latest = now.saturating_add(limit_ms);
        // A clock that was set back does not give it more time either.
        let at = self.past.deadline_ms.map_or(latest, |at| at.min(latest));
        if self.past.deadline_ms.is_none() {
            self.journal.deadline(at);
        }
        Instant::now() + Duration::from_millis(u64::try_from(at.saturating_sub(now)).unwrap_or_default())
    }

    /// The task has ended, and this process is to exit so.
    pub(super) fn ends(&self, exit: Exit) {
        self.journal.ends(exit.code());
    }

    /// Nobody needs it any more.
    pub(super) fn remove(&self) {
        self.files.remove_all();
    }
}

type Left = (Journal, state::Past, WriteAhead, Unsent);

/// What an earlier process has left, or why that is of no use.
fn left(files: &Arc<Files>, task_id: &str, document: &str) -> Result<Option<Left>, String> {
    let unreadable = |file: &Path, error: state::Unreadable| {
        format!("what was kept of it cannot be used: {}: {error}", file.display())
    };
    let journal = Journal::open(files).map_err(|error| unreadable(&files.path("journal"), error))?;
    let Some((journal, past)) = journal else {
        return Ok(None);
    };
    let begun = past.begun.as_ref();
    if begun.is_none_or(|begun| begun.task_id != task_id) {
        return Err("what was kept is another task's".into());
    }
    // A document that cannot be read is told as such, after all that was told before.
    if begun.is_some_and(|begun| begun.document != document) && !document.is_empty() {
        return Err("its TASK_ID had another document before".into());
    }
    let events = WriteAhead::open(files).map_err(|error| unreadable(&files.path("events"), error))?;
    // Without any, nothing was sent.
    Ok(events.map(|(events, unsent)| (journal, past, events, unsent)))
}

fn refused(problem: &str) -> NotKept {
    NotKept::Refused(Failure {
        code: TaskErrorCode::Internal,
        message: variables::STATE_DIR.wrong(problem),
    })
}

/// A line of the runner's own for whoever watches the task.
pub(super) fn note(message: String) -> Event {
    Event::Log {
        level: LogLevel::Info,
        message,
        step_index: None,
        partial: false,
    }
}
