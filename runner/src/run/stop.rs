//! Why and how a task is told to stop: a signal, or its own time limit.

use std::future::Future;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Exit;
use crate::events::TaskErrorCode;
use crate::failure::{Cancelled, Failure};

/// Who told the task to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StopReason {
    Terminate,
    Interrupt,
    /// The task's `timeout_seconds`.
    Timeout(Duration),
}

impl StopReason {
    pub(super) fn failure(self) -> Failure {
        let cancelled = |signal| Failure {
            code: TaskErrorCode::Cancelled,
            message: format!("the runner was told to stop ({signal}) and cancelled the task"),
        };
        match self {
            StopReason::Terminate => cancelled("SIGTERM"),
            StopReason::Interrupt => cancelled("SIGINT"),
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
            StopReason::Timeout(_) => Exit::Failed,
        }
    }
}

/// The task's cancellation, with its reason. The first reason stays.
pub(super) struct Stop {
    token: CancellationToken,
    reason: Arc<OnceLock<(StopReason, Instant)>>,
    /// Ends the task that listens for signals.
    _listener: Option<DropGuard>,
}

impl Stop {
    /// Nobody will stop this.
    pub(super) fn never() -> Self {
        Self {
            token: CancellationToken::new(),
            reason: Arc::default(),
            _listener: None,
        }
    }

    /// SIGTERM and SIGINT stop the task; a second one ends the process at once.
    pub(super) fn on_signals() -> io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        let over = CancellationToken::new();
        let stop = Self {
            _listener: Some(over.clone().drop_guard()),
            ..Self::never()
        };
        tokio::spawn(listen(
            terminate,
            interrupt,
            stop.token.clone(),
            Arc::clone(&stop.reason),
            over,
        ));
        Ok(stop)
    }

    pub(super) fn token(&self) -> &CancellationToken {
        &self.token
    }

    pub(super) fn reason(&self) -> Option<StopReason> {
        self.reason.get().map(|(reason, _)| *reason)
    }

    /// What is left of the grace after a signal. `None` without one.
    pub(super) fn remaining(&self, grace: Duration) -> Option<Duration> {
        let (reason, since) = self.reason.get()?;
        (!matches!(reason, StopReason::Timeout(_))).then(|| grace.saturating_sub(since.elapsed()))
    }

    /// Runs the task until it ends, stops it when its time is over, and does not wait for ever for one that was stopped.
    pub(super) async fn supervise(
        &self,
        running: impl Future<Output = Result<(), Failure>>,
        limit: Option<Duration>,
        grace: Duration,
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
            reason = time_is_over => {
                let _ = self.reason.set((reason, Instant::now()));
                self.token.cancel();
            }
            () = self.token.cancelled() => {}
        }
        tokio::time::timeout(grace, running).await.unwrap_or_else(|_| {
            tracing::error!("the cancelled task did not end in time and is left behind");
            Err(Cancelled.into())
        })
    }
}

async fn listen(
    mut terminate: Signal,
    mut interrupt: Signal,
    token: CancellationToken,
    reason: Arc<OnceLock<(StopReason, Instant)>>,
    over: CancellationToken,
) {
    loop {
        let received = tokio::select! {
            () = over.cancelled() => return,
            _ = terminate.recv() => StopReason::Terminate,
            _ = interrupt.recv() => StopReason::Interrupt,
        };
        if token.is_cancelled() && !matches!(reason.get(), Some((StopReason::Timeout(_), _))) {
            tracing::error!(critical = true, signal = ?received, "a second signal: the runner ends without waiting");
            std::process::exit(received.exit().code().into());
        }
        tracing::warn!(signal = ?received, "the runner was told to stop; the task is cancelled");
        let _ = reason.set((received, Instant::now()));
        token.cancel();
    }
}
