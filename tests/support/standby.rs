//! A standby runner, and the API server that gives it tasks.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::api_server::Settings;
use crate::claude::KEY;
use crate::processes::{below, parent};
use crate::runner_process::Running;
use crate::{ApiServer, Assignment, Claude, Finished, Reply, RunnerProcess};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::scene::MODEL;

/// Everything a standby runner needs, before it is started.
pub struct Standby {
    pub api: ApiServer,
    pub model: Option<Claude>,
    folder: TempDir,
    runner: RunnerProcess,
}

impl Standby {
    /// A marked workspace, an API server that takes everything, and the variables of a warm pod.
    pub async fn new() -> Self {
        Self::with(ApiServer::with()).await
    }

    /// With an API server of its own kind.
    pub async fn with(settings: Settings) -> Self {
        let api = settings.start().await.unwrap();
        let folder = tempfile::Builder::new().prefix("plue-standby-").tempdir().unwrap();
        let workspace = folder.path().join("workspace");
        fs::create_dir(&workspace).unwrap();
        fs::write(workspace.join(".plue-workspace"), "").unwrap();
        let spool = folder.path().join("spool");
        fs::create_dir(&spool).unwrap();
        let runner = RunnerProcess::built()
            .env("MODE", "standby")
            .env("REGISTER_URL", api.register_url())
            .env("POD_NAME", "pod-1")
            .env("HEARTBEAT_SECONDS", "1")
            .env("CALLBACK_RETRY_BASE_MS", "5")
            .env("SPOOL_DIR", spool.to_string_lossy())
            .env("WORKSPACE", workspace.to_string_lossy());
        Self {
            api,
            model: None,
            folder,
            runner,
        }
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.runner = self.runner.env(name, value);
        self
    }

    /// How long the runner may take, when a minute is not enough: the chaos suite has such runs.
    #[allow(dead_code)]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.runner = self.runner.limit(limit);
        self
    }

    /// A model that gives these answers.
    pub async fn model(mut self, replies: impl IntoIterator<Item = impl Into<Reply>>) -> Self {
        let model = Claude::script(replies).await.unwrap();
        let url = model.url();
        self.model = Some(model);
        self.env("ANTHROPIC_API_KEY", KEY)
            .env("ANTHROPIC_BASE_URL", &url)
            .env("ALLOWED_MODELS", MODEL)
    }

    /// The next task of the server: a workflow with these steps.
    pub fn workflow(self, id: i64, steps: &Value) -> Self {
        self.api.assign(Assignment::new(id, workflow(steps)));
        self
    }

    /// The runner ends after so many tasks.
    pub fn tasks(self, count: u32) -> Self {
        self.env("STANDBY_MAX_TASKS", &count.to_string())
    }

    pub fn workspace(&self) -> PathBuf {
        self.folder.path().join("workspace")
    }

    /// A folder outside of the workspace that goes when the scene goes.
    pub fn outside(&self) -> &Path {
        self.folder.path()
    }

    /// What is in the workspace, by name.
    pub fn left(&self) -> Vec<String> {
        let entries = fs::read_dir(self.workspace()).unwrap().flatten();
        let mut names: Vec<String> = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// `plue-runner health` beside this runner.
    pub async fn health(&self, ready: bool) -> Finished {
        let arguments: &[&str] = if ready { &["health", "--ready"] } else { &["health"] };
        let spool = self.outside().join("spool");
        let runner = RunnerProcess::built()
            .args(arguments)
            .env("SPOOL_DIR", spool.to_string_lossy());
        runner.run().await.unwrap()
    }

    pub fn start(&self) -> Running {
        self.runner.clone().start().unwrap()
    }

    /// Runs it to its end.
    pub async fn run(self) -> Ended {
        let running = self.start();
        self.finish(running).await
    }

    /// Kills a runner as the kernel does when memory runs out; everything that it had started ends with it. What it
    /// said.
    pub async fn kill(&self, running: Running) -> Finished {
        running.signal(Signal::KILL).unwrap();
        let killed = running.finish().await.unwrap();
        assert_eq!(killed.code, -9, "{}", killed.stdout);
        killed
    }

    /// Waits for the end of a runner that was started, and checks what holds for every run in which no name is left.
    pub async fn finish(self, running: Running) -> Ended {
        assert_eq!(self.api.reaped(), Vec::<i64>::new());
        let ended = self.finish_under_names(running).await;
        assert_eq!(ended.scene.api.reaped(), Vec::<i64>::new());
        ended
    }

    /// The same where the runner leaves names, which fall silent.
    pub async fn finish_under_names(self, running: Running) -> Ended {
        let finished = running.finish().await.unwrap();
        assert_eq!(self.api.violations(), Vec::<String>::new(), "{}", finished.stdout);
        assert_eq!(finished.log_errors, Vec::<String>::new());
        let said = format!("{}{}", finished.stdout, finished.stderr);
        assert!(!said.contains("panicked"), "{said}");
        assert!(!said.contains(KEY), "the key is in the log: {said}");
        Ended { scene: self, finished }
    }

    /// The names that it registered under, in that order, each once in a row.
    pub fn names(&self) -> Vec<String> {
        let registrations = self.api.registrations();
        let names = registrations
            .iter()
            .map(|registration| registration.body["pod_name"].as_str().unwrap().to_owned());
        let mut names: Vec<String> = names.collect();
        names.dedup();
        names
    }

    /// Waits until the runner has registered so many times.
    pub async fn registered(&self, times: usize) {
        let registered = |api: &ApiServer| api.registrations().len() >= times;
        self.api.wait_until("a registration", registered).await;
    }

    /// Waits for the ending of a task.
    pub async fn ending(&self, id: i64) -> Value {
        let task = self.api.task(id);
        task.wait_for(|event| event["type"] == "done" || event["type"] == "error")
            .await
    }

    /// The process that runs, or waits for, a task.
    pub async fn worker(&self, running: &Running) -> i32 {
        let supervisor = running.id().unwrap();
        for _ in 0..500 {
            if let Some(worker) = worker_of(supervisor) {
                return worker;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the runner has no worker");
    }
}

/// A standby runner that has ended.
pub struct Ended {
    pub scene: Standby,
    pub finished: Finished,
}

impl Ended {
    /// The ending of a task, whose events broke no rule.
    #[track_caller]
    pub fn ending(&self, id: i64) -> Value {
        let task = self.scene.api.task(id);
        assert_eq!(
            task.final_violations(),
            Vec::<String>::new(),
            "{}",
            self.finished.stdout
        );
        task.terminal().unwrap()
    }

    /// The task succeeded.
    #[track_caller]
    pub fn done(&self, id: i64) -> Value {
        let ending = self.ending(id);
        assert_eq!(ending["type"], "done", "{ending}\n{}", self.finished.stdout);
        ending
    }

    /// The task failed with this code.
    #[track_caller]
    pub fn failed(&self, id: i64, code: &str) -> Value {
        let ending = self.ending(id);
        assert_eq!(
            (&ending["type"], &ending["code"]),
            (&json!("error"), &json!(code)),
            "{ending}\n{}",
            self.finished.stdout
        );
        ending
    }

    /// The lines of a step's standard output.
    pub fn lines(&self, id: i64, step: usize) -> Vec<String> {
        let logs = self.scene.api.task(id).events_of("log");
        let mine = logs
            .iter()
            .filter(|log| log["level"] == "stdout" && log["step_index"] == step);
        mine.flat_map(|log| log["message"].as_str().unwrap().split('\n').map(str::to_owned))
            .collect()
    }
}

pub fn workflow(steps: &Value) -> Value {
    json!({ "type": "workflow", "steps": steps })
}

/// The worker of a supervisor, when there is one now.
pub fn worker_of(supervisor: u32) -> Option<i32> {
    let supervisor = supervisor.cast_signed();
    let (id, _) = below(supervisor)
        .into_iter()
        .find(|(id, command)| parent(*id) == Some(supervisor) && command.ends_with(" worker "))?;
    Some(id)
}
