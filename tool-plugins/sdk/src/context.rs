//! What a call may reach.

use std::cell::OnceCell;

use crate::bindings::plue::tool::{cancellation, progress};
use crate::{Level, ToolError, Workspace};

/// One call's way to the world outside the component.
pub struct Context {
    workspace: OnceCell<Workspace>,
}

impl Context {
    pub(crate) fn new() -> Self {
        Self {
            workspace: OnceCell::new(),
        }
    }

    /// The workspace, as far as the manifest grants it.
    ///
    /// # Errors
    /// `denied` when the manifest grants none.
    pub fn workspace(&self) -> Result<&Workspace, ToolError> {
        if let Some(workspace) = self.workspace.get() {
            return Ok(workspace);
        }
        let workspace = Workspace::open()?;
        Ok(self.workspace.get_or_init(|| workspace))
    }

    /// Shows something to people while the call runs; the model does not see it. The runner bounds how much.
    pub fn progress(&self, text: &str) {
        progress::output(text);
    }

    /// Writes a line to the runner's log.
    pub fn log(&self, level: Level, message: &str) {
        progress::log(level, message);
    }

    /// Whether the result is no longer wanted. A long call asks now and then, and returns
    /// [`ToolError::Cancelled`] with what it has.
    pub fn is_cancelled(&self) -> bool {
        cancellation::is_cancelled()
    }
}
