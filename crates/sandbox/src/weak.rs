//! Commands without confinement, for an operator who sets `SANDBOX=weak`: ordinary child processes of the runner.
//!
//! A command gets a clean environment, a session of its own and a time limit, and its whole process group ends with it.
//! It reaches every file, process and network that the runner reaches, which every terminal event says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use rustix::process::{Pid, Signal, WaitOptions};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::output::{self, Outputs, QUEUED_CHUNKS};
use super::proc::{Process, own_pid, pids};
use super::remove_folder::remove_folder;
use super::request::{self, ENVIRONMENT, Workspace, long_script};
use super::strict::CommandRules;
use super::{CommandEvent, CommandSpec, Ending, ExitStatus, Level, RunningCommand, Sandbox, StartError};

/// How long processes that were killed may take to be gone.
const KILLED: Duration = Duration::from_secs(2);
/// Between two tries to reap processes that were killed.
const REAP_INTERVAL: Duration = Duration::from_millis(1);
/// The longest time limit: what is longer would overflow the clock.
const MAX_TIMEOUT: Duration = Duration::from_secs(30 * 24 * 3600);

/// Starts commands without confining them. They end with [`Sandbox::shut_down`].
#[derive(Debug)]
pub struct WeakSandbox {
    workspace: Workspace,
    /// How long a process group has between SIGTERM and SIGKILL.
    grace: Duration,
    env: BTreeMap<String, String>,
    live: Arc<Live>,
}

/// The process groups of the commands that run.
#[derive(Debug, Default)]
struct Live {
    groups: Mutex<BTreeSet<i32>>,
    ended: Notify,
}

impl Live {
    fn groups(&self) -> MutexGuard<'_, BTreeSet<i32>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A command in [`Live`], until everything of it is gone.
struct Registered {
    live: Arc<Live>,
    group: Option<i32>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            self.live.groups().remove(&group);
        }
        self.live.ended.notify_waiters();
    }
}

impl WeakSandbox {
    /// Commands run in (or below) this folder. Of the rules, the environment and the grace are kept.
    ///
    /// # Errors
    /// When the folder does not exist or is no folder, or this process cannot become a subreaper.
    pub fn new(workspace: &Path, rules: &CommandRules) -> io::Result<Self> {
        let workspace = Workspace::new(workspace)?;
        // A subreaper: orphans of commands become our children, which we can reap.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        Ok(Self {
            workspace,
            grace: rules.grace,
            env: rules.env.clone(),
            live: Arc::default(),
        })
    }

    fn spawn(&self, spec: &CommandSpec) -> Result<(Child, TempDir), StartError> {
        request::check(spec)?;
        let script =
            long_script::take(spec.argv.clone()).map_err(|error| request::start_error(&spec.argv[0], &error))?;
        let [program, arguments @ ..] = script.argv.as_slice() else {
            return Err(StartError::Invalid("the command is empty".into()));
        };
        let directory = self.workspace.directory(&spec.working_directory)?;
        let home = home_directory().map_err(|error| StartError::Failed(format!("no folder for HOME: {error}")))?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(directory)
            .env_clear()
            .envs(ENVIRONMENT)
            .env("HOME", home.path())
            .envs(&self.env)
            .envs(&spec.env)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let file = script.file();
        let file = file.map_err(|error| StartError::Failed(format!("no file for a long script: {error}")))?;
        prepare(&mut command, file);
        let child = command.spawn().map_err(|error| request::start_error(program, &error))?;
        Ok((child, home))
    }
}

impl Sandbox for WeakSandbox {
    fn level(&self) -> Level {
        Level::Weak
    }

    fn grace(&self) -> Duration {
        self.grace
    }

    fn start(&self, spec: CommandSpec, cancel: CancellationToken) -> BoxFuture<'_, Result<RunningCommand, StartError>> {
        async move {
            let (child, home) = self.spawn(&spec)?;
            let (sender, events) = mpsc::channel(QUEUED_CHUNKS);
            let deadline = Instant::now() + spec.timeout.min(MAX_TIMEOUT);
            let group = child.id().and_then(|id| i32::try_from(id).ok());
            let grace = self.grace;
            self.live.groups().extend(group);
            let registered = Registered {
                live: Arc::clone(&self.live),
                group,
            };
            // The task ends by itself: with the command, or when the receiver (the `RunningCommand`) is gone.
            tokio::spawn({
                let cancel = cancel.clone();
                async move {
                    let status = forward_until_exit(child, &sender, deadline, grace, cancel).await;
                    let _ = tokio::task::spawn_blocking(move || {
                        remove_home(home);
                        reap_orphans(&registered.live.groups());
                        drop(registered);
                    })
                    .await;
                    // Last of all: who hears of the end finds nothing left.
                    let _ = sender.send(CommandEvent::Exited(status)).await;
                }
            });
            Ok(RunningCommand { events, cancel })
        }
        .boxed()
    }

    fn shut_down(&self) -> BoxFuture<'_, ()> {
        async move {
            let all_ended = async {
                loop {
                    let ended = self.live.ended.notified();
                    let groups: Vec<i32> = self.live.groups().iter().copied().collect();
                    if groups.is_empty() {
                        return;
                    }
                    for group in groups {
                        signal(Pid::from_raw(group), Signal::KILL);
                    }
                    ended.await;
                }
            };
            if timeout(KILLED, all_ended).await.is_err() {
                tracing::error!("a command that was killed does not end and is left behind");
            }
        }
        .boxed()
    }
}

/// Passes a command's output on until it exits or has to be ended, kills the rest of its process group, and says how it
/// ended.
async fn forward_until_exit(
    mut child: Child,
    events: &mpsc::Sender<CommandEvent>,
    deadline: Instant,
    grace: Duration,
    cancel: CancellationToken,
) -> ExitStatus {
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let outputs = outputs(&mut child);
    // Whether a pipe is still open; a command may close both and go on.
    let mut open = outputs.is_some();
    let mut output = std::pin::pin!(async {
        if let Some(outputs) = outputs {
            outputs.forward(events).await;
        }
    });
    let ending = {
        let mut end = std::pin::pin!(child.wait());
        loop {
            tokio::select! {
                _ = &mut end => break Ending::Exited,
                () = &mut output, if open => open = false,
                () = sleep_until(deadline) => break Ending::TimedOut,
                () = cancel.cancelled() => break Ending::Cancelled,
                () = events.closed() => break Ending::Cancelled,
            }
        }
    };
    if ending != Ending::Exited {
        signal(group, Signal::TERM);
        // The pipes are read on: a process that writes its last words must not block on them.
        let mut gone = std::pin::pin!(timeout(grace, child.wait()));
        loop {
            tokio::select! {
                _ = &mut gone => break,
                () = &mut output, if open => open = false,
            }
        }
    }
    // What the command started and did not wait for ends with it.
    signal(group, Signal::KILL);
    let status = child.wait().await;
    reap(group).await;
    if open {
        output::drain(output, events).await;
    }
    use std::os::unix::process::ExitStatusExt;
    ExitStatus {
        code: status.as_ref().map_or(-1, exit_code),
        signal: status.ok().and_then(|status| status.signal()),
        ending,
    }
}

/// Our ends of its pipes. `None`: they cannot be read, which the log says.
fn outputs(child: &mut Child) -> Option<Outputs> {
    let (stdout, stderr) = (child.stdout.take()?, child.stderr.take()?);
    let outputs = stdout
        .into_owned_fd()
        .and_then(|stdout| Outputs::new(stdout, stderr.into_owned_fd()?));
    outputs
        .inspect_err(|error| tracing::error!(%error, "the output of a command cannot be read"))
        .ok()
}

fn signal(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        // ESRCH: nobody is left, which is what we want.
        let _ = rustix::process::kill_process_group(group, signal);
    }
}

/// Reaps the killed processes of a group, until none is left: a signal is sent at once, and a process ends a little
/// later.
async fn reap(group: Option<Pid>) {
    let Some(group) = group else { return };
    let gone = async {
        loop {
            match rustix::process::waitpgid(group, WaitOptions::NOHANG) {
                Ok(Some(_)) => {}
                Ok(None) => sleep(REAP_INTERVAL).await,
                // None of them is our child any more.
                Err(_) => return,
            }
        }
    };
    if timeout(KILLED, gone).await.is_err() {
        tracing::warn!("a process that was killed does not end; it may wait for a device");
    }
}

fn exit_code(status: &std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(-1)
}

/// A fresh folder for the command's HOME, outside of the workspace so that the task's files stay the task's.
fn home_directory() -> io::Result<TempDir> {
    tempfile::Builder::new()
        .prefix("plue-home-")
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir()
}

/// Removes a command's HOME.
fn remove_home(home: TempDir) {
    let home = home.keep();
    if let Err(error) = remove_folder(&home) {
        tracing::warn!(error = %error, home = %home.display(), "a command's HOME could not be removed");
    }
}

/// Reaps the orphans that are zombies: what commands started in sessions of their own, and did not wait for. As a
/// subreaper (and as PID 1 of a pod) this process is their parent. The leaders of running commands are left to those
/// who wait for them.
fn reap_orphans(leaders: &BTreeSet<i32>) {
    for pid in pids().unwrap_or_default() {
        let ours = |process: Process| process.is_zombie && process.parent == own_pid();
        if Process::read(pid).is_ok_and(|process| process.is_some_and(ours)) && !leaders.contains(&pid) {
            let _ = rustix::process::waitpid(Pid::from_raw(pid), WaitOptions::NOHANG);
        }
    }
}

/// Makes the command the leader of a session, so that it has no terminal and a process group that we can end, and gives
/// it the file of a long script.
#[allow(unsafe_code)]
fn prepare(command: &mut Command, script: Option<File>) {
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; setsid(2) and dup2(2) are such.
    unsafe {
        command.pre_exec(move || {
            rustix::process::setsid()?;
            match &script {
                Some(script) if libc::dup2(script.as_raw_fd(), long_script::DESCRIPTOR) < 0 => {
                    Err(io::Error::last_os_error())
                }
                _ => Ok(()),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::super::Stream;
    use super::super::output::DRAIN;
    use super::*;

    fn rules() -> CommandRules {
        CommandRules {
            grace: Duration::from_secs(2),
            ..CommandRules::default()
        }
    }

    struct Run {
        stdout: String,
        status: ExitStatus,
    }

    fn spec(script: &str, timeout: Duration) -> CommandSpec {
        CommandSpec {
            argv: vec!["/bin/sh".into(), "-c".into(), script.into()],
            working_directory: ".".into(),
            env: BTreeMap::new(),
            timeout,
        }
    }

    fn workspace() -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("inner")).unwrap();
        folder
    }

    async fn run(sandbox: &WeakSandbox, spec: CommandSpec) -> Run {
        let mut command = sandbox.start(spec, CancellationToken::new()).await.unwrap();
        let mut stdout = Vec::new();
        while let Some(event) = command.events.recv().await {
            match event {
                CommandEvent::Output(Stream::Stdout, bytes) => stdout.extend_from_slice(&bytes),
                CommandEvent::Output(Stream::Stderr, _) | CommandEvent::Note(_) => {}
                CommandEvent::Exited(status) => {
                    return Run {
                        stdout: String::from_utf8_lossy(&stdout).into_owned(),
                        status,
                    };
                }
            }
        }
        panic!("the command's events ended without an exit");
    }

    /// The processes of a group, but for zombies.
    fn running_in_group(group: i32) -> Vec<(i32, Process)> {
        let processes = pids().unwrap().into_iter();
        let processes = processes.filter_map(|pid| Some((pid, Process::read(pid).ok()??)));
        processes
            .filter(|(_, process)| process.group == group && !process.is_zombie)
            .collect()
    }

    #[tokio::test]
    async fn a_command_sees_only_the_clean_environment_and_the_given_variables() {
        let folder = workspace();
        let sandbox = WeakSandbox::new(folder.path(), &rules()).unwrap();
        let mut spec = spec("env | cut -d= -f1 | sort | tr '\\n' ' '", Duration::from_secs(10));
        spec.env.insert("GIVEN".into(), "x".into());
        let result = run(&sandbox, spec).await;
        let names: Vec<&str> = result
            .stdout
            .split_whitespace()
            .filter(|name| !matches!(*name, "PWD" | "SHLVL" | "_" | "OLDPWD"))
            .collect();
        assert_eq!(
            names,
            [
                "CI",
                "GIT_CONFIG_COUNT",
                "GIT_CONFIG_KEY_0",
                "GIT_CONFIG_VALUE_0",
                "GIVEN",
                "HOME",
                "LANG",
                "PATH",
                "TERM"
            ]
        );
    }

    #[tokio::test]
    async fn a_timeout_ends_the_whole_group_and_one_that_ignores_term_is_killed() {
        let folder = workspace();
        let sandbox = WeakSandbox::new(folder.path(), &rules()).unwrap();
        let script = "trap '' TERM; sh -c 'trap \"\" TERM; sleep 97.31' & echo $$; wait";
        let result = run(&sandbox, spec(script, Duration::from_millis(300))).await;
        assert_eq!(
            result.status,
            ExitStatus {
                code: 137,
                signal: Some(libc::SIGKILL),
                ending: Ending::TimedOut
            }
        );
        let group: i32 = result.stdout.trim().parse().unwrap();
        assert_eq!(running_in_group(group), [], "no process of the group is left");
    }

    #[tokio::test]
    async fn a_background_child_that_holds_the_pipe_does_not_hold_up_the_result() {
        let folder = workspace();
        let sandbox = WeakSandbox::new(folder.path(), &rules()).unwrap();
        let result = run(&sandbox, spec("sleep 60 & echo done", Duration::from_secs(30))).await;
        assert_eq!((result.stdout.as_str(), result.status.code), ("done\n", 0));
    }

    #[tokio::test]
    async fn a_command_that_closes_its_outputs_before_it_ends_is_not_waited_for_after_its_end() {
        let folder = workspace();
        let sandbox = WeakSandbox::new(folder.path(), &rules()).unwrap();
        let started = Instant::now();
        let result = run(&sandbox, spec("exec >&- 2>&-; sleep 0.1", Duration::from_secs(30))).await;
        assert_eq!(result.status, ExitStatus::exited(0));
        assert!(
            started.elapsed() < DRAIN,
            "there is no pipe left that could have something in it"
        );
    }

    #[tokio::test]
    async fn exit_codes_and_signals_are_told() {
        let folder = workspace();
        let sandbox = WeakSandbox::new(folder.path(), &rules()).unwrap();
        for (script, code) in [
            ("exit 0", 0),
            ("exit 7", 7),
            ("kill -KILL $$", 137),
            ("kill -TERM $$", 143),
        ] {
            assert_eq!(
                run(&sandbox, spec(script, Duration::from_secs(10))).await.status.code,
                code,
                "{script}"
            );
        }
    }

    #[tokio::test]
    async fn a_working_directory_outside_of_the_workspace_is_refused() {
        let folder = workspace();
        std::os::unix::fs::symlink("/etc", folder.path().join("link")).unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        let sandbox = WeakSandbox::new(folder.path(), &rules()).unwrap();
        let inside = folder.path().canonicalize().unwrap().join("inner");
        let denied = ["/etc", "..", "inner/../..", "../plue-weak-nothing", "link", "/"];
        let missing = ["nowhere", "file"];
        let asked = |path: &Path| {
            let mut spec = spec("pwd", Duration::from_secs(10));
            spec.working_directory = path.into();
            sandbox.spawn(&spec)
        };
        for path in denied {
            assert!(matches!(asked(Path::new(path)), Err(StartError::Denied(_))), "{path}");
        }
        for path in missing {
            assert!(matches!(asked(Path::new(path)), Err(StartError::NotFound(_))), "{path}");
        }
        for path in [Path::new("inner"), Path::new("./inner/.."), &inside] {
            let (mut child, _home) = asked(path).unwrap();
            // Another test may have reaped it, since it is in no list of those that somebody waits for.
            let _ = child.wait().await;
        }
    }
}
