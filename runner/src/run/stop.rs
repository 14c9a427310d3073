//! Why and how a task is told to stop: a signal, the API server, or its own time limit.

use std::future::Future;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Exit;
use crate::events::TaskErrorCode;
use crate::failure::{Cancelled, Failure};

/// How long a task whose commands were killed may take to say so.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Who told the task to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopReason {
    Terminate,
    Interrupt,
    /// The API server asked for it in an answer.
    Server,
    /// The task's `timeout_seconds`.
    Timeout(Duration),
}

impl StopReason {
    /// As the task's `error` event says it.
    pub fn failure(self) -> Failure {
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
                    "the task ran longer than its time limit of {} s (timeout_seconds, or TASK_TIMEOUT) and was ended",
                    limit.as_secs()
                ),
            },
        }
    }

    /// How a process exits that was told so.
    pub fn exit(self) -> Exit {
        match self {
            StopReason::Terminate => Exit::Terminated,
            StopReason::Interrupt => Exit::Interrupted,
            StopReason::Server | StopReason::Timeout(_) => Exit::Failed,
        }
    }
}

/// What this process is told by signals. SIGTERM and SIGINT: the first one asks it to end within its grace, the second
/// at once. SIGUSR1, which `plue-runner drain` sends: it finishes its task and takes no other.
#[derive(Clone)]
pub struct Signals {
    received: Arc<Received>,
    /// Ends the task that listens.
    _listener: Arc<DropGuard>,
}

#[derive(Default)]
struct Received {
    /// Fires at the first signal.
    first: CancellationToken,
    /// Fires at the second.
    second: CancellationToken,
    /// Fires when no other task is to be taken.
    drain: CancellationToken,
    which: OnceLock<(StopReason, Instant)>,
}

impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    /// When signals cannot be received.
    pub fn listen() -> io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        let drain = signal(SignalKind::user_defined1())?;
        let over = CancellationToken::new();
        let received = Arc::<Received>::default();
        tokio::spawn(listen(
            [terminate, interrupt, drain],
            Arc::clone(&received),
            over.clone(),
        ));
        Ok(Self {
            received,
            _listener: Arc::new(over.drop_guard()),
        })
    }

    /// As if this process had received a signal: whoever watches over it passes on its own.
    pub fn receive(&self, reason: StopReason) {
        receive(&self.received, reason);
    }

    /// What stops a task, this one alone; a signal stops it too.
    pub fn stop(&self) -> Stop {
        Stop {
            signals: self.clone(),
            task: self.received.first.child_token(),
            reason: Arc::default(),
        }
    }

    /// Waits for the first signal.
    pub async fn first(&self) -> StopReason {
        self.received.first.cancelled().await;
        self.which().unwrap_or(StopReason::Terminate)
    }

    /// Waits until no other task is to be taken.
    pub async fn drained(&self) {
        self.received.drain.cancelled().await;
    }

    /// Whether no other task is to be taken.
    pub fn is_drained(&self) -> bool {
        self.received.drain.is_cancelled()
    }

    /// Whether a second one came.
    pub fn must_exit_now(&self) -> bool {
        self.received.second.is_cancelled()
    }

    /// The first signal, when there was one.
    pub fn which(&self) -> Option<StopReason> {
        self.received.which.get().map(|(reason, _)| *reason)
    }
}

/// A task's cancellation with its reason, and the process's own end.
///
/// The two are apart: a task may be over, by its time limit or by itself, and a signal still has to hurry the delivery.
pub struct Stop {
    signals: Signals,
    /// Fires when the task is to stop.
    task: CancellationToken,
    /// The first reason stays.
    reason: Arc<OnceLock<StopReason>>,
}

impl Stop {
    /// The task's cancellation.
    pub fn token(&self) -> &CancellationToken {
        &self.task
    }

    /// Why the task is to stop, when it is.
    pub fn reason(&self) -> Option<StopReason> {
        self.reason.get().copied().or_else(|| self.signals.which())
    }

    /// Stops the task; a reason that came before stays.
    pub fn because(&self, reason: StopReason) {
        stop(&self.task, &self.reason, reason);
    }

    /// What the API server calls to have the task cancelled.
    pub fn by_server(&self) -> impl Fn() + Send + Sync + use<> {
        let (task, reason) = (self.task.clone(), Arc::clone(&self.reason));
        move || {
            if !task.is_cancelled() {
                tracing::warn!("the API server asked for the task to be cancelled");
            }
            stop(&task, &reason, StopReason::Server);
        }
    }

    /// Waits until the process has to end: its grace after the first signal, or at once at the second.
    pub async fn patience_is_over(&self, grace: Duration) {
        let received = &self.signals.received;
        let grace_is_over = async {
            received.first.cancelled().await;
            let since = received.which.get().map_or_else(Instant::now, |(_, since)| *since);
            tokio::time::sleep_until(since + grace).await;
        };
        tokio::select! {
            () = grace_is_over => {}
            () = received.second.cancelled() => {}
        }
    }

    /// Waits for a second signal.
    pub async fn second_signal(&self) {
        self.signals.received.second.cancelled().await;
    }

    /// Whether a second signal came.
    pub fn must_exit_now(&self) -> bool {
        self.signals.received.second.is_cancelled()
    }

    /// Runs the task until it ends, stops it when its time is over, and does not wait for ever for one that was
    /// stopped.
    pub(super) async fn supervise<T>(
        &self,
        running: impl Future<Output = Result<T, Failure>>,
        deadline: Option<(Instant, Duration)>,
        grace: Duration,
        end_commands: impl Future<Output = ()>,
    ) -> Result<T, Failure> {
        let mut running = std::pin::pin!(running);
        let time_is_over = async {
            match deadline {
                Some((deadline, limit)) => {
                    tokio::time::sleep_until(deadline).await;
                    StopReason::Timeout(limit)
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            result = &mut running => return result,
            reason = time_is_over => self.because(reason),
            () = self.task.cancelled() => {}
        }
        tokio::select! {
            result = &mut running => return result,
            () = tokio::time::sleep(grace) => tracing::error!("the cancelled task did not end in time"),
            () = self.second_signal() => {}
        }
        // Without its commands the task has nothing to wait for, and can still say how its step or call ended.
        end_commands.await;
        tokio::time::timeout(LAST_WORDS, running).await.unwrap_or_else(|_| {
            tracing::error!("the cancelled task is left behind");
            Err(Cancelled.into())
        })
    }
}

fn stop(task: &CancellationToken, reason: &OnceLock<StopReason>, why: StopReason) {
    // A task that a signal has stopped already was not stopped by this.
    if !task.is_cancelled() {
        let _ = reason.set(why);
    }
    task.cancel();
}

async fn listen(signals: [Signal; 3], received: Arc<Received>, over: CancellationToken) {
    let [mut terminate, mut interrupt, mut drain] = signals;
    loop {
        let reason = tokio::select! {
            () = over.cancelled() => return,
            _ = terminate.recv() => StopReason::Terminate,
            _ = interrupt.recv() => StopReason::Interrupt,
            _ = drain.recv() => {
                tracing::info!("the runner was told to take no other task (`plue-runner drain`)");
                received.drain.cancel();
                continue;
            }
        };
        receive(&received, reason);
    }
}

fn receive(received: &Received, reason: StopReason) {
    if received.which.set((reason, Instant::now())).is_err() {
        tracing::error!(signal = ?reason, "a second signal: the runner ends without waiting");
        received.second.cancel();
        return;
    }
    // Before anything ends because of it, so that it is said.
    tracing::warn!(signal = ?reason, "the runner was told to stop");
    received.first.cancel();
}
