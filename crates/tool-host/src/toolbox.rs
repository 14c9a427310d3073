//! The tools of one task: what the operator allows and the task names.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::call;
use super::host::Shared;
use super::load_error::{UnknownTools, list};
use super::state::CallGrants;
use plue_contract::{LiveOutput, ToolDefinition, ToolErrorCode, ToolOutcome, Toolbox};

/// The tools that one task may use.
pub struct TaskToolbox {
    host: Arc<Shared>,
    definitions: Vec<ToolDefinition>,
}

impl TaskToolbox {
    pub(crate) fn new(host: Arc<Shared>, names: &[String]) -> Result<Self, UnknownTools> {
        let unknown: Vec<String> = names
            .iter()
            .filter(|name| !host.plugins.contains_key(*name))
            .cloned()
            .collect();
        if !unknown.is_empty() {
            return Err(UnknownTools {
                names: unknown,
                installed: host.plugins.keys().cloned().collect(),
            });
        }
        let mut definitions: Vec<ToolDefinition> = Vec::with_capacity(names.len());
        for name in names {
            let known = definitions.iter().any(|definition| definition.name == *name);
            if let (false, Some(plugin)) = (known, host.plugins.get(name)) {
                definitions.push(plugin.definition.clone());
            }
        }
        Ok(Self { host, definitions })
    }

    fn refusal(&self, name: &str) -> ToolOutcome {
        let names: Vec<String> = self
            .definitions
            .iter()
            .map(|definition| definition.name.clone())
            .collect();
        let (code, what) = if self.host.plugins.contains_key(name) {
            (ToolErrorCode::NotAllowed, "may not be used in this task")
        } else {
            (ToolErrorCode::UnknownTool, "does not exist")
        };
        let text = format!(
            "The tool {name:?} {what}. The tools of this task are: {}.",
            list(&names)
        );
        ToolOutcome {
            error: Some(code),
            text,
            truncated: false,
            duration: Duration::ZERO,
            notes: Vec::new(),
        }
    }
}

impl Toolbox for TaskToolbox {
    fn definitions(&self) -> &[ToolDefinition] {
        &self.definitions
    }

    fn call<'a>(
        &'a self,
        name: &'a str,
        input: &'a str,
        live: LiveOutput,
        cancel: CancellationToken,
    ) -> BoxFuture<'a, ToolOutcome> {
        async move {
            let allowed = self.definitions.iter().any(|definition| definition.name == name);
            let plugin = self.host.plugins.get(name).filter(|_| allowed);
            let Some(plugin) = plugin else {
                return self.refusal(name);
            };
            let grants = CallGrants {
                workspace: Some(self.host.workspace.clone()),
                sandbox: plugin.linked.manifest.process.then(|| self.host.sandbox.clone()),
                live,
                notes: Arc::default(),
                cancel,
            };
            call::call(plugin, &self.host.slots, input, grants).await
        }
        .boxed()
    }
}
