//! The sandbox of a task that runs no command: none is made.

use futures::FutureExt;
use futures::future::BoxFuture;
use plue_sandbox::{CommandSpec, Level, RunningCommand, Sandbox, StartError};
use tokio_util::sync::CancellationToken;

/// As far as commands would be confined.
pub(super) struct NoCommands(pub(super) Level);

impl Sandbox for NoCommands {
    fn level(&self) -> Level {
        self.0
    }

    fn start(&self, _: CommandSpec, _: CancellationToken) -> BoxFuture<'_, Result<RunningCommand, StartError>> {
        async { Err(StartError::Denied("the tools of this task run no commands".into())) }.boxed()
    }
}
