//! One run of the runner: what is around it, and what came of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::api_server::Settings;
use crate::claude::KEY;
use crate::runner_process::Running;
use crate::{ApiServer, Claude, Finished, Reply, RunnerProcess};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The model that tasks ask for unless a test says otherwise.
pub const MODEL: &str = "claude-sonnet-5-5";

/// Everything a runner needs, before it is started.
pub struct Scene {
    pub api: ApiServer,
    pub model: Option<Claude>,
    folder: TempDir,
    /// What the terminal event is to say of the sandbox.
    sandbox: &'static str,
    runner: RunnerProcess,
}

impl Scene {
    /// A workspace, an API server that takes everything, and the variables of a pod without a task.
    pub async fn new() -> Self {
        Self::with(ApiServer::with()).await
    }

    /// With an API server of its own kind.
    pub async fn with(settings: Settings) -> Self {
        let api = settings.start().await.unwrap();
        let folder = tempfile::Builder::new().prefix("plue-e2e-").tempdir().unwrap();
        fs::create_dir(folder.path().join("workspace")).unwrap();
        let runner = RunnerProcess::built()
            .env("MODE", "active")
            .env("TASK_ID", "task-7")
            .env("CALLBACK_URL", api.url())
            .env("CALLBACK_RETRY_BASE_MS", "5")
            .env("WORKSPACE", folder.path().join("workspace").to_string_lossy());
        Self {
            api,
            model: None,
            folder,
            sandbox: "strict",
            runner,
        }
    }

    /// Sets the task as `TASK_CONFIG`.
    pub fn task(self, task: &Value) -> Self {
        self.env("TASK_CONFIG", &task.to_string())
    }

    /// A workflow with these steps.
    pub fn workflow(self, steps: &Value) -> Self {
        self.task(&json!({ "type": "workflow", "steps": steps }))
    }

    /// An agent task: `fields` over the defaults, and a model that answers with these replies.
    pub async fn agent(self, fields: Value, replies: impl IntoIterator<Item = impl Into<Reply>>) -> Self {
        let model = Claude::script(replies).await.unwrap();
        self.agent_with(fields, model)
    }

    pub fn agent_with(mut self, fields: Value, model: Claude) -> Self {
        let mut task = json!({
            "type": "agent",
            "model": MODEL,
            "messages": [{ "role": "user", "content": "Go." }],
        });
        for (key, value) in fields.as_object().unwrap() {
            task[key] = value.clone();
        }
        let url = model.url();
        self.model = Some(model);
        self.task(&task)
            .env("ANTHROPIC_API_KEY", KEY)
            .env("ANTHROPIC_BASE_URL", &url)
            .env("ALLOWED_MODELS", MODEL)
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.runner = self.runner.env(name, value);
        self
    }

    /// The runner is refused these system calls; see [`RunnerProcess::refusing`].
    pub fn refusing(mut self, calls: &[i64], flags: u64, errno: i32) -> Self {
        self.runner = self.runner.refusing(calls, flags, errno);
        self
    }

    /// Commands are not confined.
    pub fn weak(mut self) -> Self {
        self.sandbox = "weak";
        self.env("SANDBOX", "weak")
    }

    pub fn without(mut self, name: &str) -> Self {
        self.runner = self.runner.without(name);
        self
    }

    pub fn stdin(mut self, bytes: &[u8]) -> Self {
        self.runner = self.runner.stdin(bytes);
        self
    }

    /// How long the runner may take, when a minute is not enough: the chaos suite has such runs.
    #[allow(dead_code)]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.runner = self.runner.limit(limit);
        self
    }

    /// Nobody reads what the runner logs.
    #[allow(dead_code)]
    pub fn unread(mut self) -> Self {
        self.runner = self.runner.unread();
        self
    }

    /// Puts a file into the workspace.
    pub fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        let path = self.workspace().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    pub fn workspace(&self) -> PathBuf {
        self.folder.path().join("workspace")
    }

    /// A folder outside of the workspace that goes when the scene goes.
    pub fn outside(&self) -> &Path {
        self.folder.path()
    }

    /// Where the built components are.
    pub fn plugins(&self) -> PathBuf {
        self.runner.plugins()
    }

    /// The processes that still run in this scene's workspace. One that is dead and not yet waited for does not run.
    pub fn left_running(&self) -> Vec<String> {
        let workspace = self.workspace().canonicalize().unwrap();
        let processes = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
            let folder = fs::read_link(entry.path().join("cwd")).ok()?;
            let command = fs::read(entry.path().join("cmdline")).ok()?;
            folder
                .starts_with(&workspace)
                .then(|| String::from_utf8_lossy(&command).replace('\0', " "))
        });
        processes.collect()
    }

    /// Starts the runner; the scene stays.
    pub fn start(&self) -> Running {
        self.runner.clone().start().unwrap()
    }

    /// Runs it to its end.
    pub async fn run(self) -> Outcome {
        let running = self.start();
        self.finish(running).await
    }

    /// Waits for the end of a runner that was started, and leaves what the server saw to the test.
    #[allow(dead_code)]
    pub async fn finish_unchecked(self, running: Running) -> (Finished, ApiServer) {
        let finished = running.finish().await.unwrap();
        let _ = self.api.violations();
        (finished, self.api)
    }

    /// Waits for the end of a runner that was started, and checks what holds for every run.
    pub async fn finish(self, running: Running) -> Outcome {
        let finished = running.finish().await.unwrap();
        assert_eq!(self.api.violations(), Vec::<String>::new(), "{}", finished.stdout);
        assert_eq!(finished.log_errors, Vec::<String>::new());
        assert!(
            !finished.stdout.contains("panicked") && !finished.stderr.contains("panicked"),
            "{}",
            finished.stderr
        );
        let said = format!("{}{}", finished.stdout, finished.stderr);
        assert!(!said.contains(KEY), "the key is in the log: {said}");
        for attempt in self.api.attempts() {
            assert!(
                !String::from_utf8_lossy(&attempt.body).contains(KEY),
                "the key is in an event: {}",
                attempt.event
            );
        }
        Outcome { finished, scene: self }
    }
}

/// A run that is over.
pub struct Outcome {
    pub finished: Finished,
    pub scene: Scene,
}

impl Outcome {
    pub fn events(&self) -> Vec<Value> {
        self.scene.api.events()
    }

    pub fn events_of(&self, kind: &str) -> Vec<Value> {
        self.scene.api.events_of(kind)
    }

    /// The model's text as the API server got it.
    pub fn text(&self) -> String {
        self.events_of("token")
            .iter()
            .map(|event| event["text"].as_str().unwrap())
            .collect()
    }

    /// The lines of one level and step.
    pub fn lines(&self, level: &str, step: usize) -> Vec<String> {
        let logs = self.events_of("log");
        let mine = logs
            .iter()
            .filter(|log| log["level"] == level && log["step_index"] == step);
        mine.flat_map(|log| log["message"].as_str().unwrap().split('\n').map(str::to_owned))
            .collect()
    }

    /// The body of one request to the model.
    pub fn request(&self, index: usize) -> Value {
        self.model().requests()[index].body.clone()
    }

    pub fn model(&self) -> &Claude {
        self.scene.model.as_ref().unwrap()
    }

    fn report(&self) -> String {
        format!(
            "events: {:#?}\nlog:\n{}{}",
            self.events(),
            self.finished.stdout,
            self.finished.stderr
        )
    }

    /// The task succeeded; gives the `done` event.
    #[track_caller]
    pub fn done(&self) -> Value {
        self.ended(0, "done")
    }

    /// The task succeeded, and events of it were lost; gives the `done` event.
    #[track_caller]
    pub fn done_with_losses(&self) -> Value {
        self.ended(3, "done")
    }

    /// The task ran and failed with this code; gives the `error` event.
    #[track_caller]
    pub fn failed(&self, code: &str) -> Value {
        let event = self.ended(1, "error");
        assert_eq!(event["code"], code, "{}", self.report());
        event
    }

    /// Nothing was run, and the API server was told so; gives the `error` event.
    #[track_caller]
    pub fn refused(&self, code: &str) -> Value {
        let event = self.ended(2, "error");
        assert_eq!(
            (self.events().len(), &event["code"]),
            (1, &json!(code)),
            "{}",
            self.report()
        );
        event
    }

    #[track_caller]
    fn ended(&self, exit: i32, kind: &str) -> Value {
        assert_eq!(self.finished.code, exit, "exit code; {}", self.report());
        assert_eq!(self.scene.api.final_violations(), Vec::<String>::new());
        let event = self.scene.api.terminal().unwrap();
        assert_eq!(event["type"], kind, "{}", self.report());
        assert_eq!(event["sandbox"], self.scene.sandbox);
        event
    }

    /// Nothing was run and nobody could be told: there is one line on standard output, which is given.
    #[track_caller]
    pub fn only_a_line(&self) -> String {
        assert_eq!(self.finished.code, 2, "{}", self.report());
        assert_eq!(self.finished.log.len(), 1, "{}", self.report());
        self.finished.stdout.clone()
    }
}
