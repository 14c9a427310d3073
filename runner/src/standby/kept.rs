//! The events of a task that the server may not have, for the next process of this runner (`STATE_DIR`): what was told
//! arrives before the ending that the next process tells.

use std::path::Path;
use std::sync::Arc;

use url::Url;

use crate::config::StandbyConfig;
use crate::events::callback::{EventRequest, Progress};
use crate::events::queue::Past;
use crate::events::write_ahead::Unsent;
use crate::events::{EventQueue, SpoolConfig, WriteAhead};
use crate::run::Unanswered;
use crate::state::Files;

/// What is kept of one task.
pub(super) struct Kept {
    files: Arc<Files>,
    events: Arc<WriteAhead>,
}

impl Kept {
    /// Begins to keep the events of a task; `None`: they cannot be kept, and the log says why.
    pub(super) fn begin(folder: Option<&Path>, standby: &StandbyConfig, task: i64) -> Option<Self> {
        let files = files(folder?, standby, task)?;
        match WriteAhead::begin(&files) {
            Ok(events) => {
                let events = Arc::new(events);
                Some(Self { files, events })
            }
            Err(error) => {
                cannot(&error);
                None
            }
        }
    }

    /// What an earlier process has kept of a task.
    pub(super) fn left(folder: Option<&Path>, standby: &StandbyConfig, task: i64) -> Option<(Self, Unsent)> {
        let files = files(folder?, standby, task)?;
        match WriteAhead::open(&files) {
            Ok(left) => {
                let (events, unsent) = left?;
                let events = Arc::new(events);
                Some((Self { files, events }, unsent))
            }
            Err(error) => {
                cannot(&error);
                files.remove_all();
                None
            }
        }
    }

    /// The task's queue, from its beginning.
    pub(super) fn queue(&self, spool: SpoolConfig) -> EventQueue {
        EventQueue::keeping(spool, Past::default(), &self.events, Vec::new(), false)
    }

    /// The same with what an earlier process has not sent, and what that has sent and did not see arrive.
    pub(super) fn queue_of(&self, spool: SpoolConfig, unsent: Unsent) -> (EventQueue, Option<Unanswered>) {
        let lost = unsent.past.lost;
        let unanswered = unsent
            .unanswered
            .map(|(request, ends)| Unanswered { request, ends, lost });
        let queue = EventQueue::keeping(spool, unsent.past, &self.events, unsent.records, unsent.is_closed);
        (queue, unanswered)
    }

    /// Hears what becomes of the events, as the journal does.
    pub(super) fn beside(&self, journal: Arc<dyn Progress>) -> Arc<dyn Progress> {
        let events = Arc::clone(&self.events) as Arc<dyn Progress>;
        Arc::new(Both(events, journal))
    }

    /// Nobody needs it any more.
    pub(super) fn remove(&self) {
        self.files.remove_all();
    }
}

/// One set of files for each task of each runner.
fn files(folder: &Path, standby: &StandbyConfig, task: i64) -> Option<Arc<Files>> {
    let server = Url::origin(&standby.register_url).ascii_serialization();
    let whose = format!("standby\0{server}\0{}\0{task}", standby.pod_name);
    match Files::open(folder, &whose) {
        Ok(files) => Some(Arc::new(files)),
        Err(error) => {
            cannot(&error);
            None
        }
    }
}

fn cannot(error: &dyn std::fmt::Display) {
    tracing::warn!(
        error = %error,
        "the events of this task cannot be kept: what waits is lost if the runner is killed (STATE_DIR)"
    );
}

/// Two that hear the same.
struct Both(Arc<dyn Progress>, Arc<dyn Progress>);

impl Progress for Both {
    fn sending(&self, request: &EventRequest<'_>) {
        self.0.sending(request);
        self.1.sending(request);
    }

    fn arrived(&self, lost: u64, ended: bool) {
        self.0.arrived(lost, ended);
        self.1.arrived(lost, ended);
    }

    fn put_back(&self) {
        self.0.put_back();
        self.1.put_back();
    }
}
