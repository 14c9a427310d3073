//! What all calls of a runner share.

use std::collections::BTreeMap;
use std::sync::Arc;

use plue_sandbox::Sandbox;
use tokio::sync::Semaphore;

use super::engine::ToolEngine;
use super::plugin::Plugin;
use super::state::WorkspaceFolder;

/// The engine, the plugins that it loaded, and what they may reach.
pub(crate) struct Shared {
    pub(crate) engine: ToolEngine,
    pub(crate) plugins: BTreeMap<String, Arc<Plugin>>,
    pub(crate) workspace: Arc<WorkspaceFolder>,
    pub(crate) sandbox: Arc<dyn Sandbox>,
    /// How many calls run at one time.
    pub(crate) slots: Arc<Semaphore>,
}
