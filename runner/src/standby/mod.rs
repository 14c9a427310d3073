//! Standby: a supervisor that registers at the API server, and a process for each task it gets.
//!
//! The supervisor owns what must survive a task: the queue of events, their numbers, the one ending, the heartbeat and
//! the workspace. A worker ([`worker`]) runs one task and ends; it is started before its task comes, and has everything
//! ready that no task decides. Whatever happens to it, the supervisor has heard all that it said and ends the task.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::api_client::ApiError;
use crate::config::{Config, StandbyConfig, variables};
use crate::health::{Health, State};
use crate::run::{Delivered, Exit, Process, StopReason, plugin_dir};
use crate::state::check_folder;
use crate::telemetry;

mod assignment;
mod channel;
mod journal;
mod kept;
pub mod orphans;
mod process;
mod recovery;
pub(crate) mod registration;
mod task;
mod worker;
pub mod workspace;

pub use process::WORKER;
pub use worker::work;

use assignment::{Assignment, Registered};
use channel::WorkerMessage;
use journal::Journal;
use process::{WorkerProcess, describe};
use registration::{Cancel, PollSchedule, Registration, Unregistered};
use workspace::Workspace;

/// The longest wait before a worker is started again when one after the other dies.
const MAX_RESTART_WAIT: Duration = Duration::from_secs(30);

/// How long a worker may take to be ready.
const START_LIMIT: Duration = Duration::from_secs(30);

/// How long a registration that is on its way when a signal comes is waited for.
const LAST_ANSWER: Duration = Duration::from_secs(2);

/// A standby runner.
struct Supervisor<'a> {
    config: Arc<Config>,
    standby: &'a StandbyConfig,
    registration: Registration,
    journal: Arc<Journal>,
    workspace: Arc<Workspace>,
    health: &'a Health,
    process: Process,
    /// What cancels the task that runs now.
    cancel: Mutex<Option<Cancel>>,
}

/// Runs one task after the other, until a signal or as many as the operator wants. `home` is a folder that is never
/// emptied.
pub async fn run(
    config: Arc<Config>,
    standby: &StandbyConfig,
    home: Option<PathBuf>,
    health: &Health,
    process: Process,
) -> Exit {
    if let Some(folder) = &config.state_dir
        && let Err(problem) = check_folder(folder)
    {
        tracing::error!(
            error = variables::STATE_DIR.wrong(&problem),
            "the configuration is invalid"
        );
        return Exit::Invalid;
    }
    let (journal, left) = Journal::open(&config.spool.folder, standby, process.redactor);
    let journal = Arc::new(journal);
    // Before anything else: the server waits.
    let name = recovery::recover(&config, standby, &journal, left, &process).await;
    let exit = run_as(name, Arc::clone(&journal), config, standby, home, health, process).await;
    journal.close();
    exit
}

/// Runs under this name, which the journal has.
async fn run_as(
    name: String,
    journal: Arc<Journal>,
    config: Arc<Config>,
    standby: &StandbyConfig,
    home: Option<PathBuf>,
    health: &Health,
    process: Process,
) -> Exit {
    let own = [
        Some(plugin_dir(config.plugin_dir.as_deref())),
        std::env::current_exe().ok(),
        Some(config.spool.folder.clone()),
        home,
    ];
    let own = own.into_iter().flatten();
    let forbidden: Vec<PathBuf> = own.chain(config.secret_folders.iter().cloned()).collect();
    let workspace = match Workspace::claim(&config.rules.workspace, &forbidden) {
        Ok(workspace) => Arc::new(workspace),
        Err(error) => {
            let problem = variables::WORKSPACE.wrong(&error.to_string());
            tracing::error!(error = problem, "the configuration is invalid");
            return Exit::Invalid;
        }
    };
    let registration = match Registration::new(standby, &config.api, name, Arc::clone(&journal), &process.telemetry) {
        Ok(registration) => registration,
        Err(error) => {
            tracing::error!(critical = true, error = %error, "nobody can be asked for tasks");
            return Exit::Invalid;
        }
    };
    if let Err(error) = orphans::become_subreaper() {
        tracing::error!(critical = true, error = %error, "what a task leaves running cannot be found");
        return Exit::Invalid;
    }
    let supervisor = Supervisor {
        config,
        standby,
        registration,
        journal,
        workspace,
        health,
        process,
        cancel: Mutex::default(),
    };
    let beating = supervisor.registration.beat(|| supervisor.lock().clone());
    tokio::select! {
        exit = supervisor.serve() => exit,
        () = beating => Exit::Failed,
    }
}

impl Supervisor<'_> {
    /// Task after task. An event that was lost outweighs how the runner ends, unless nobody was to wait for it.
    async fn serve(&self) -> Exit {
        let mut undelivered = false;
        match self.tasks(&mut undelivered).await {
            Exit::Success | Exit::Terminated | Exit::Interrupted
                if undelivered && !self.process.signals.must_exit_now() =>
            {
                Exit::Undelivered
            }
            exit => exit,
        }
    }

    async fn tasks(&self, undelivered: &mut bool) -> Exit {
        let mut done = 0;
        loop {
            // After one task and before the next, and at the end.
            if let Err(exit) = self.clean_up().await {
                return exit;
            }
            if let Some(reason) = self.process.signals.which() {
                return reason.exit();
            }
            if self.process.signals.is_drained() {
                return Exit::Success;
            }
            if self.standby.max_tasks.is_some_and(|most| done >= most) {
                tracing::info!(
                    tasks = done,
                    "the runner has done all that it is to do (STANDBY_MAX_TASKS)"
                );
                return Exit::Success;
            }
            let (worker, assignment) = match self.next_task().await {
                Ok(next) => next,
                Err(exit) => return exit,
            };
            // A task without a worker is told so; then there is no other task.
            let (worker, no_worker) = match worker {
                Ok(worker) => (Some(worker), None),
                Err(exit) => (None, Some(exit)),
            };
            let id = assignment.id;
            let delivered = self.run(worker, assignment).await;
            *undelivered |= delivered.as_ref().is_ok_and(|delivered| !delivered.all());
            match delivered {
                Ok(Delivered { ending: true, .. }) => self.registration.task_is_over(),
                Ok(Delivered { ending: false, .. }) => {
                    // As far as the server knows it still runs, for as long as this name is beaten for.
                    self.registration
                        .leave_name(&format!("the ending of task {id} did not arrive"));
                }
                Err(error) => {
                    self.registration
                        .leave_name(&format!("nobody can be told of task {id}"));
                    let said = "nobody can be told of tasks: this runner takes no other";
                    tracing::error!(critical = true, error = %error, "{said}");
                    return Exit::Invalid;
                }
            }
            if let Some(exit) = no_worker {
                return exit;
            }
            done += 1;
        }
    }

    /// Runs a task with everything that the outside sees of it.
    async fn run(&self, worker: Option<WorkerProcess>, assignment: Assignment) -> Result<Delivered, ApiError> {
        let id = crate::events::TaskId::Number(assignment.id);
        self.health.working(&id);
        telemetry::set_identity(Some(id.to_value()), self.config.api.request_id.clone());
        tracing::info!(session_id = assignment.session_id, "a task was assigned");
        let stop = self.process.signals.stop();
        *self.lock() = Some(Arc::new(stop.by_server()));
        let progress = Arc::clone(&self.journal);
        let process = &self.process;
        let config = process.config_now().map_or_else(|| Arc::clone(&self.config), Arc::new);
        let arrived = task::run(&config, self.standby, worker, assignment, progress, process, &stop).await;
        *self.lock() = None;
        self.health.is(State::Starting);
        telemetry::set_identity(None, self.config.api.request_id.clone());
        arrived
    }

    fn lock(&self) -> MutexGuard<'_, Option<Cancel>> {
        self.cancel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing of one task is visible to the next: no process, no file. A runner that cannot see to that takes no task.
    /// One that is told to stop finishes this when its grace is enough.
    async fn clean_up(&self) -> Result<(), Exit> {
        let workspace = Arc::clone(&self.workspace);
        let cleaned = tokio::task::spawn_blocking(move || {
            let ended = orphans::end_processes(&[]).map_err(|error| error.to_string())?;
            let in_place = workspace.is_in_place().map_err(|error| error.to_string())?;
            workspace.empty().map_err(|error| error.to_string())?;
            match in_place {
                true => Ok(ended),
                false => Err("the workspace was moved away, and something else is in its place".to_owned()),
            }
        });
        let stop = self.process.signals.stop();
        let cleaned = tokio::select! {
            cleaned = cleaned => cleaned,
            // What is left there is removed before the next task, whoever gets it.
            () = stop.patience_is_over(self.config.shutdown_grace) => {
                tracing::warn!("there is no time left to empty the workspace");
                return Err(stop.reason().map_or(Exit::Failed, StopReason::exit));
            }
        };
        let problem = match cleaned {
            Ok(Ok(ended)) => {
                if !ended.is_empty() {
                    tracing::warn!(?ended, "processes that a task has left were ended");
                }
                return Ok(());
            }
            Ok(Err(problem)) => problem,
            Err(panic) => panic.to_string(),
        };
        tracing::error!(
            critical = true,
            error = problem,
            "what a task has left cannot be removed: this runner takes no other"
        );
        Err(Exit::Failed)
    }

    /// Waits until an idle runner is to go: by a signal, or since it is to take no other task. How it ends then.
    async fn told_to_go(&self) -> Exit {
        tokio::select! {
            reason = self.process.signals.first() => reason.exit(),
            () = self.process.signals.drained() => Exit::Success,
        }
    }

    /// Does something that has to end at once when the runner is to go.
    async fn unless_told_to_go<T>(&self, work: impl Future<Output = T>) -> Result<T, Exit> {
        tokio::select! {
            done = work => Ok(done),
            exit = self.told_to_go() => Err(exit),
        }
    }

    /// The answer to a question that was on its way when the runner was told to go. A server may keep it back for as
    /// long as it has no task, so one that drains waits as long as a request may take; a signal leaves it little.
    async fn last_answer<T>(&self, registering: impl Future<Output = T>) -> Option<T> {
        let time_is_over = async {
            self.process.signals.first().await;
            tokio::time::sleep(LAST_ANSWER).await;
        };
        tokio::select! {
            answer = registering => Some(answer),
            () = time_is_over => None,
        }
    }

    /// A task, and a worker that is ready for it, or why the runner ends when none can be had any more. Why the runner
    /// ends without a task, when it does.
    async fn next_task(&self) -> Result<(Result<WorkerProcess, Exit>, Assignment), Exit> {
        let mut worker = self.unless_told_to_go(self.new_worker()).await??;
        let mut schedule = PollSchedule::new();
        let mut failures = 0;
        loop {
            let mut registering = std::pin::pin!(self.registration.register());
            let registered = tokio::select! {
                registered = &mut registering => registered,
                exit = self.told_to_go() => {
                    // The server may be giving us a task just now: then it is ours, and has its ending.
                    return match self.last_answer(registering).await {
                        Some(Ok(Registered { assignment: Ok(Some(assignment)), .. })) => Ok((Ok(worker), assignment)),
                        // A signal may have come since.
                        _ => Err(self.process.signals.which().map_or(exit, StopReason::exit)),
                    };
                }
            };
            let wait = match registered {
                Ok(registered) => {
                    failures = 0;
                    self.health.is(State::Idle);
                    match registered.assignment {
                        Ok(Some(assignment)) => {
                            // It may have died while the server thought about it.
                            return Ok((self.well_in_time(worker).await, assignment));
                        }
                        Ok(None) => {}
                        Err(problem) => {
                            tracing::error!(problem, "the API server sent a task that nobody can be told of");
                        }
                    }
                    schedule.next()
                }
                Err(Unregistered::Unauthorized) => {
                    let problem = "the API server does not take this token (status 401): set CALLBACK_TOKEN, or what \
                        is in CALLBACK_TOKEN_FILE, to its own";
                    tracing::error!(critical = true, error = problem, "the runner cannot register");
                    return Err(Exit::Invalid);
                }
                Err(Unregistered::Failed {
                    reason,
                    retry_after,
                    ambiguous,
                }) => {
                    self.health.is(State::Unregistered);
                    let wait = retry_after.unwrap_or_else(|| self.registration.next_attempt(failures, ambiguous));
                    tracing::warn!(
                        reason,
                        wait_ms = wait.as_millis() as u64,
                        "the runner could not register; trying again"
                    );
                    failures += 1;
                    wait
                }
            };
            worker = self.unless_told_to_go(self.ensure_healthy(worker)).await??;
            let waiting = tokio::time::sleep(wait);
            tokio::pin!(waiting);
            loop {
                tokio::select! {
                    () = &mut waiting => break,
                    // Nothing runs: there is nothing to wait for. The worker ends with its handle.
                    exit = self.told_to_go() => return Err(exit),
                    word = worker.hear() => if word.is_none() {
                        let status = worker.end().await;
                        tracing::warn!(how = describe(&status), "a worker died while it waited for a task; another \
                            takes its place");
                        worker = self.unless_told_to_go(self.new_worker()).await??;
                    },
                }
            }
        }
    }

    /// The worker, or another one when it is lost.
    async fn ensure_healthy(&self, mut worker: WorkerProcess) -> Result<WorkerProcess, Exit> {
        if worker.is_well(self.standby.silence()) {
            return Ok(worker);
        }
        tracing::warn!("a worker died or hung while it waited for a task; another takes its place");
        self.new_worker().await
    }

    /// The same for a task that is there already, and is kept alive by our heartbeats: it waits for a worker as long as
    /// one may take to start, and no longer than until the runner is told to end.
    async fn well_in_time(&self, worker: WorkerProcess) -> Result<WorkerProcess, Exit> {
        tokio::select! {
            worker = self.ensure_healthy(worker) => worker,
            () = tokio::time::sleep(START_LIMIT) => {
                tracing::error!(critical = true, "no worker can be started for a task: this runner takes no other");
                Err(Exit::Failed)
            }
            reason = self.process.signals.first() => Err(reason.exit()),
        }
    }

    /// Starts a worker, and waits until it is ready.
    async fn new_worker(&self) -> Result<WorkerProcess, Exit> {
        let mut failures = 0;
        loop {
            let started = Instant::now();
            let problem = match WorkerProcess::start() {
                Ok(mut worker) => match tokio::time::timeout(START_LIMIT, worker.hear()).await {
                    Err(_) => {
                        worker.kill();
                        format!("it was not ready after {} s", START_LIMIT.as_secs())
                    }
                    Ok(Some(WorkerMessage::Ready)) => {
                        tracing::debug!(
                            took_ms = started.elapsed().as_millis() as u64,
                            pid = worker.id(),
                            "a worker is ready"
                        );
                        return Ok(worker);
                    }
                    Ok(Some(WorkerMessage::Unusable(problem))) => {
                        // As for an active runner: no task can run here.
                        tracing::error!(critical = true, error = problem, "no task can run here");
                        return Err(Exit::Invalid);
                    }
                    Ok(_) => describe(&worker.end().await),
                },
                Err(error) => error.to_string(),
            };
            let wait = self.registration.backoff(failures).min(MAX_RESTART_WAIT);
            failures += 1;
            tracing::error!(problem, "a worker could not be started; trying again");
            tokio::time::sleep(wait).await;
        }
    }
}
