//! Why and how a task is told to stop: a signal, the API server, or its own time limit.

use std::future::Future;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Exit;
use crate::events::TaskErrorCode;
use crate::failure::{Cancelled, Failure};

/// How long a task whose commands were killed may take to say so.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Who told the task to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StopReason {
    Terminate,
    Interrupt,
    /// The API server asked for it in an answer.
    Server,
    /// The task's `timeout_seconds`.
    Timeout(Duration),
}

impl StopReason {
    pub(super) fn failure(self) -> Failure {
        let cancelled = |who: &str| Failure {
            code: TaskErrorCode::Cancelled,
            message: format!("{who} and the task was cancelled"),
        };
        match self {
            StopReason::Terminate => cancelled("the runner was told to stop (SIGTERM)"),
            StopReason::Interrupt => cancelled("the runner was told to stop (SIGINT)"),
            StopReason::Server => cancelled("the API server asked for it"),
            StopReason::Timeout(limit) => Failure {
                code: TaskErrorCode::Timeout,
                message: format!(
                    "the task ran longer than its timeout_seconds ({}) and was ended",
                    limit.as_secs()
                ),
            },
        }
    }

    pub(super) fn exit(self) -> Exit {
        match self {
            StopReason::Terminate => Exit::Terminated,
            StopReason::Interrupt => Exit::Interrupted,
            StopReason::Server | StopReason::Timeout(_) => Exit::Failed,
        }
    }
}

/// The task's cancellation with its reason, and the runner's own end.
///
/// The two are apart: a task may be over, by its time limit or by itself, and a signal still has to hurry the delivery.
pub struct Stop {
    shared: Arc<Shared>,
    /// Ends the task that listens for signals.
    _listener: Option<DropGuard>,
}

#[derive(Default)]
struct Shared {
    /// Fires when the task is to stop.
    task: CancellationToken,
    /// Fires at the first signal: the process has to end within its grace.
    runner: CancellationToken,
    /// Fires at the second: it has to end now.
    hurry: CancellationToken,
    /// The first reason stays.
    reason: OnceLock<StopReason>,
    signalled: OnceLock<Instant>,
}

impl Shared {
    fn stop_task(&self, reason: StopReason) {
        let _ = self.reason.set(reason);
        self.task.cancel();
    }
}

impl Stop {
    /// SIGTERM and SIGINT stop the task and bound the ending; a second one ends the process at once.
    ///
    /// # Errors
    /// When signals cannot be received.
    pub fn on_signals() -> io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        let over = CancellationToken::new();
        let shared = Arc::<Shared>::default();
        tokio::spawn(listen(terminate, interrupt, Arc::clone(&shared), over.clone()));
        Ok(Self {
            shared,
            _listener: Some(over.drop_guard()),
        })
    }

    /// The task's cancellation.
    pub(super) fn token(&self) -> &CancellationToken {
        &self.shared.task
    }

    /// Fires at the second signal: whoever still has something to do leaves it.
    pub fn hurry(&self) -> CancellationToken {
        self.shared.hurry.clone()
    }

    pub(super) fn reason(&self) -> Option<StopReason> {
        self.shared.reason.get().copied()
    }

    /// What the API server calls to have the task cancelled.
    pub(super) fn by_server(&self) -> impl Fn() + Send + Sync + use<> {
        let shared = Arc::clone(&self.shared);
        move || {
            if !shared.task.is_cancelled() {
                tracing::warn!("the API server asked for the task to be cancelled");
            }
            shared.stop_task(StopReason::Server);
        }
    }

    /// Waits until the process has to end: its grace after the first signal, or at once at the second.
    pub(super) async fn patience_is_over(&self, grace: Duration) {
        let grace_is_over = async {
            self.shared.runner.cancelled().await;
            let since = self.shared.signalled.get().copied().unwrap_or_else(Instant::now);
            tokio::time::sleep_until(since + grace).await;
        };
        tokio::select! {
            () = grace_is_over => {}
            () = self.shared.hurry.cancelled() => {}
        }
    }

    /// Whether a second signal came.
    pub(super) fn is_hurried(&self) -> bool {
        self.shared.hurry.is_cancelled()
    }

    /// Runs the task until it ends, stops it when its time is over, and does not wait for ever for one that was stopped.
    pub(super) async fn supervise(
        &self,
        running: impl Future<Output = Result<(), Failure>>,
        limit: Option<Duration>,
        grace: Duration,
        end_commands: impl Future<Output = ()>,
    ) -> Result<(), Failure> {
        let mut running = std::pin::pin!(running);
        let time_is_over = async {
            match limit {
                Some(limit) => {
                    tokio::time::sleep(limit).await;
                    StopReason::Timeout(limit)
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            result = &mut running => return result,
            reason = time_is_over => self.shared.stop_task(reason),
            () = self.shared.task.cancelled() => {}
        }
        tokio::select! {
            result = &mut running => return result,
            () = tokio::time::sleep(grace) => tracing::error!("the cancelled task did not end in time"),
            () = self.shared.hurry.cancelled() => {}
        }
        // Without its commands the task has nothing to wait for, and can still say how its step or call ended.
        end_commands.await;
        tokio::time::timeout(LAST_WORDS, running).await.unwrap_or_else(|_| {
            tracing::error!("the cancelled task is left behind");
            Err(Cancelled.into())
        })
    }
}

async fn listen(mut terminate: Signal, mut interrupt: Signal, shared: Arc<Shared>, over: CancellationToken) {
    loop {
        let received = tokio::select! {
            () = over.cancelled() => return,
            _ = terminate.recv() => StopReason::Terminate,
            _ = interrupt.recv() => StopReason::Interrupt,
        };
        if shared.signalled.set(Instant::now()).is_err() {
            tracing::error!(signal = ?received, "a second signal: the runner ends without waiting");
            shared.hurry.cancel();
            continue;
        }
        tracing::warn!(signal = ?received, "the runner was told to stop");
        shared.stop_task(received);
        shared.runner.cancel();
    }
}
