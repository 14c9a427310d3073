//! What an agent notes of its task for a process that goes on with it (`STATE_DIR`): what came from outside, which is
//! what the model said and how its calls ended. All else follows from that when it is gone through again, the
//! conversation byte for byte.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::events::millis;
use crate::state::{self, Journal};
use plue_contract::{ToolErrorCode, ToolOutcome};
use plue_messages::{ModelError, StopReason, ToolCall, Turn, Usage};

/// How much of a request's end is looked at to know it again, besides its length.
const END_OF_REQUEST: usize = 16 << 10;

/// What there is to note.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Entry {
    /// Whoever watches has heard of a message that the model begins. An empty id: nothing comes of the last one.
    Shown(String),
    /// The model opens a call with this id.
    Opened(String),
    /// An answer broke off, and this was used for it.
    Wasted(Usage, String),
    /// A turn of the model.
    Answer {
        message_id: String,
        asked: Asked,
        turn: KeptTurn,
    },
    /// The model would not read so much.
    TooLong(String),
    /// What the model answered to a request that is no turn of the task.
    Aside(Result<KeptTurn, Aside>),
    /// The API does not hold the model to the task's schema.
    SchemaRefused,
    /// The model is told that so much time is left.
    WrapUp(String),
    /// A call is about to be made.
    CallBegins(String),
    /// How it ended, as the model reads it.
    CallEnds(String, KeptOutcome),
}

/// Failures of a request that is no turn, after which the task may go on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Aside {
    Refused(String),
    TooLong(String),
}

/// What a request is known by when it is made again: its length, and a digest of its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Asked(u64, [u8; 32]);

impl Asked {
    pub(super) fn of(body: &[u8]) -> Self {
        let end = &body[body.len().saturating_sub(END_OF_REQUEST)..];
        Self(body.len() as u64, Sha256::digest(end).into())
    }
}

/// A [`Turn`] with its JSON as text.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct KeptTurn {
    content: Vec<String>,
    tool_calls: Vec<ToolCall>,
    has_text: bool,
    stop: StopReason,
    usage: Usage,
    model: String,
    id: Option<String>,
    request_id: Option<String>,
}

impl From<&Turn> for KeptTurn {
    fn from(turn: &Turn) -> Self {
        Self {
            content: turn.content.iter().map(|block| block.get().to_owned()).collect(),
            tool_calls: turn.tool_calls.clone(),
            has_text: turn.has_text,
            stop: turn.stop.clone(),
            usage: turn.usage,
            model: turn.model.clone(),
            id: turn.id.clone(),
            request_id: turn.request_id.clone(),
        }
    }
}

impl From<KeptTurn> for Turn {
    fn from(kept: KeptTurn) -> Self {
        // It was JSON when it was kept, and a checksum says that it still is that.
        let block = |text| RawValue::from_string(text).unwrap_or_else(|_| RawValue::NULL.to_owned());
        Self {
            content: kept.content.into_iter().map(block).collect(),
            tool_calls: kept.tool_calls,
            has_text: kept.has_text,
            stop: kept.stop,
            usage: kept.usage,
            model: kept.model,
            id: kept.id,
            request_id: kept.request_id,
        }
    }
}

/// A [`ToolOutcome`] with its time in milliseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct KeptOutcome {
    error: Option<ToolErrorCode>,
    text: String,
    truncated: bool,
    duration_ms: u64,
    notes: Vec<String>,
}

impl From<&ToolOutcome> for KeptOutcome {
    fn from(outcome: &ToolOutcome) -> Self {
        Self {
            error: outcome.error,
            text: outcome.text.clone(),
            truncated: outcome.truncated,
            duration_ms: millis(outcome.duration),
            notes: outcome.notes.clone(),
        }
    }
}

impl From<KeptOutcome> for ToolOutcome {
    fn from(kept: KeptOutcome) -> Self {
        Self {
            error: kept.error,
            text: kept.text,
            truncated: kept.truncated,
            duration: Duration::from_millis(kept.duration_ms),
            notes: kept.notes,
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Memory {
    entries: state::Memory<Entry>,
    /// Calls that are open for whoever watches, from an earlier process.
    open: BTreeSet<String>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Whether what an earlier process has done is gone through again.
    replays: bool,
    /// It does not fit what this one makes of the task.
    diverged: bool,
    /// The message that the model was writing when the earlier process ended.
    shown: Option<String>,
    /// The id of the message that takes its place.
    next_message: Option<String>,
}

impl Memory {
    /// Of a task that an earlier process may have begun. `open` are the calls that are open for whoever watches.
    pub fn new(journal: &Arc<Journal>, past: VecDeque<Vec<u8>>, open: BTreeSet<String>, resumed: bool) -> Self {
        let state = State {
            replays: resumed,
            ..State::default()
        };
        Self {
            entries: state::Memory::new(journal, past),
            open,
            state: Mutex::new(state),
        }
    }

    /// Whether anything is noted.
    pub(super) fn is_kept(&self) -> bool {
        self.entries.is_kept()
    }

    /// Whether what an earlier process has done is gone through again.
    pub(super) fn replays(&self) -> bool {
        self.state().replays
    }

    /// Whether there is more of it.
    pub(super) fn has_past(&self) -> bool {
        self.entries.has_past()
    }

    /// What it did next, when that is something that `wanted` takes.
    pub(super) fn next_if(&self, wanted: impl FnOnce(&Entry) -> bool) -> Option<Entry> {
        self.entries.next_if(wanted)
    }

    /// Ends the going through again. Answers whether this is where it ends.
    pub(super) fn goes_on(&self) -> bool {
        std::mem::replace(&mut self.state().replays, false)
    }

    /// Notes what happens now.
    pub(super) fn note(&self, entry: impl FnOnce() -> Entry) {
        if self.is_kept() && !self.replays() {
            let entry = entry();
            let sync = matches!(
                entry,
                Entry::Answer { .. } | Entry::Aside(_) | Entry::CallBegins(_) | Entry::CallEnds(..)
            );
            self.entries.note(&entry, sync);
        }
    }

    /// What was kept does not fit what this process makes of the task.
    pub(super) fn diverge(&self) {
        let mut state = self.state();
        (state.diverged, state.replays, state.shown) = (true, false, None);
    }

    /// Whether it did not fit.
    pub(super) fn has_diverged(&self) -> bool {
        self.state().diverged
    }

    /// Whether it did not fit; then it is forgotten, and the task can begin anew.
    pub fn forgets(&self) -> bool {
        let diverged = std::mem::take(&mut self.state().diverged);
        if diverged {
            self.entries.forget();
        }
        diverged
    }

    /// Whether a call is open for whoever watches, from an earlier process.
    pub(super) fn is_open(&self, call: &str) -> bool {
        self.open.contains(call)
    }

    pub(super) fn open_calls(&self) -> impl Iterator<Item = &str> {
        self.open.iter().map(String::as_str)
    }

    pub(super) fn set_shown(&self, message_id: Option<String>) {
        self.state().shown = message_id.filter(|id| !id.is_empty());
    }

    pub(super) fn take_shown(&self) -> Option<String> {
        self.state().shown.take()
    }

    pub(super) fn set_next_message(&self, id: String) {
        self.state().next_message = Some(id);
    }

    pub(super) fn take_next_message(&self) -> Option<String> {
        self.state().next_message.take()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Aside {
    /// What of an error there is to note: what follows is the same for all but one.
    pub(super) fn of(error: &ModelError) -> Self {
        match error {
            ModelError::TooLong(text) => Self::TooLong(text.clone()),
            ModelError::Refused(text)
            | ModelError::Auth(text)
            | ModelError::ModelNotFound(text)
            | ModelError::Failed(text) => Self::Refused(text.clone()),
        }
    }
}

impl From<Aside> for ModelError {
    fn from(aside: Aside) -> Self {
        match aside {
            Aside::Refused(text) => Self::Refused(text),
            Aside::TooLong(text) => Self::TooLong(text),
        }
    }
}
