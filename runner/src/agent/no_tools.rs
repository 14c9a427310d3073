//! The toolbox of a task without tools.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use plue_contract::{LiveOutput, ToolDefinition, ToolErrorCode, ToolOutcome, Toolbox};

/// Has nothing, and says so when it is asked: no engine is started and no plugin is loaded for such a task.
#[derive(Clone, Copy, Debug)]
pub struct NoTools;

impl Toolbox for NoTools {
    fn definitions(&self) -> &[ToolDefinition] {
        &[]
    }

    fn call<'a>(
        &'a self,
        name: &'a str,
        _input: &'a str,
        _live: LiveOutput,
        _cancel: CancellationToken,
    ) -> BoxFuture<'a, ToolOutcome> {
        let text = format!("There is no tool {name:?}: this task has no tools.");
        let error = Some(ToolErrorCode::UnknownTool);
        async move {
            ToolOutcome {
                error,
                text,
                truncated: false,
                duration: Duration::ZERO,
                notes: Vec::new(),
            }
        }
        .boxed()
    }
}
