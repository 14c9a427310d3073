//! One run of the real runner in a scene, and everything that was seen of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use support::claude::ToolResult;
use support::{Claude, Finished, Reply, RunnerProcess};

use crate::attack::Attack;
use crate::processes::Adopted;
use crate::scene::{Scene, Scenes};

/// The model that tasks name.
pub const MODEL: &str = "claude-sonnet-5-5";
/// How long a run may take before it counts as stalled.
const LIMIT: Duration = Duration::from_secs(240);

/// What is the same for every run of a harness.
pub struct Harness {
    pub scenes: Scenes,
    /// Those on a file system in memory, when there is one.
    pub in_memory: Option<Scenes>,
    pub adopted: Arc<Adopted>,
    pub runner: PathBuf,
    pub plugins: PathBuf,
    /// Variables that every runner gets: `SANDBOX`, when the harness was started with it, and `PLUE_MUTATION`.
    pub env: BTreeMap<String, String>,
}

impl Harness {
    /// Where an attack is tried: in memory, unless it needs the file system of the image.
    pub fn scenes_for(&self, attack: &Attack) -> &Scenes {
        let in_memory = self.in_memory.as_ref().filter(|_| !attack.beside_image);
        in_memory.unwrap_or(&self.scenes)
    }
}

/// What is special to one run.
#[derive(Clone, Debug, Default)]
pub struct Launch {
    pub env: BTreeMap<String, String>,
    pub stdin: Option<Vec<u8>>,
    /// What the model answers. Without it there is no model, and the key in the environment is for nothing.
    pub replies: Option<Vec<Reply>>,
    /// What the calls of a race have to show before it may end.
    pub race: Option<Race>,
}

/// The turns of a race. Those after the first are left out once it was met: how the machine's processors are shared out
/// decides how many it takes.
#[derive(Clone, Copy, Debug)]
pub struct Race {
    pub turns: usize,
    /// Whether some calls have to succeed and some to fail; otherwise two answers that differ are enough.
    pub both: bool,
}

impl Race {
    fn is_met(self, results: &[ToolResult]) -> bool {
        let has = |failed: bool| results.iter().any(|result| result.is_error == failed);
        let differ = results.iter().any(|result| result.text != results[0].text);
        differ && (!self.both || has(true) && has(false))
    }
}

impl Launch {
    /// A workflow with these steps.
    pub fn workflow(steps: Vec<Value>) -> Self {
        Self::default().task(&json!({ "type": "workflow", "steps": steps }))
    }

    /// An agent task whose model gives these replies.
    pub fn agent(tools: &[&str], replies: Vec<Reply>) -> Self {
        let task = json!({
            "type": "agent",
            "model": MODEL,
            "messages": [{ "role": "user", "content": "Go." }],
            "tools": tools,
        });
        Self {
            replies: Some(replies),
            ..Self::default().task(&task)
        }
    }

    pub fn task(self, task: &Value) -> Self {
        self.env("TASK_CONFIG", task.to_string())
    }

    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.insert(name.to_owned(), value.into());
        self
    }

    pub fn envs(mut self, env: impl IntoIterator<Item = (String, String)>) -> Self {
        self.env.extend(env);
        self
    }
}

/// What was seen of a run.
#[derive(Debug)]
pub struct Seen {
    pub finished: Finished,
    /// The delivered events, in order.
    pub events: Vec<Value>,
    /// Every byte that went to the API server.
    pub sent: Vec<u8>,
    /// Every byte that went to the model.
    pub asked: Vec<u8>,
    /// The tool results that the model got, in order.
    pub results: Vec<ToolResult>,
    /// What broke the protocol with the API server, or with the model.
    pub violations: Vec<String>,
    /// The most memory that the runner itself had, in KiB; 0 when it could not be seen.
    pub peak_kib: u64,
}

impl Seen {
    pub fn events_of(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.events.iter().filter(move |event| event["type"] == kind)
    }

    pub fn terminal(&self) -> Option<&Value> {
        self.events
            .iter()
            .find(|event| event["type"] == "done" || event["type"] == "error")
    }

    /// What the runner itself said, for reports.
    pub fn log(&self) -> String {
        let said = format!("{}{}", self.finished.stdout, self.finished.stderr);
        let from = said.char_indices().rev().nth(1500).map_or(0, |(at, _)| at);
        said[from..].trim().to_owned()
    }
}

/// Runs the runner to its end. An error is a runner that did not start or did not end.
pub async fn run(harness: &Harness, scene: &Scene, launch: Launch) -> Result<Seen> {
    let secrets = &scene.secrets;
    let mut runner = RunnerProcess::new(&harness.runner)
        .limit(LIMIT)
        .env("MODE", "active")
        .env("TASK_ID", "task-7")
        .env("CALLBACK_URL", scene.api.url())
        .env("CALLBACK_TOKEN", &*secrets.callback_token)
        .env("CALLBACK_RETRY_BASE_MS", "5")
        .env("FLUSH_TIMEOUT", "180")
        .env("ANTHROPIC_API_KEY", &*secrets.api_key)
        .env("OPERATOR_SECRET", &*secrets.operator)
        .env("OPERATOR_SETTING", &*secrets.plain)
        .env("PLUGIN_DIR", harness.plugins.to_string_lossy())
        .env("WORKSPACE", scene.workspace.to_string_lossy())
        .env("ALLOWED_MODELS", MODEL);
    let results = Arc::new(Mutex::new(Vec::new()));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let model = match launch.replies {
        Some(replies) => {
            let (results, asked) = (Arc::clone(&results), Arc::clone(&asked));
            let mut replies = replies.into_iter();
            let (race, mut turn) = (launch.race, 0);
            let model = Claude::with_key(&secrets.api_key, move |request| {
                let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                results.extend(request.results());
                if let Some(race) = race.filter(|race| (1..race.turns).contains(&turn) && race.is_met(&results)) {
                    replies.nth(race.turns - turn - 1);
                    turn = race.turns;
                }
                turn += 1;
                asked
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend(request.body.to_string().into_bytes());
                replies
                    .next()
                    .unwrap_or_else(|| Reply::Wrong("the script has no more answers".to_owned()))
            });
            let model = model.await.context("start the scripted model")?;
            // A model that is hostile is so again when it is asked again: that would only take time.
            runner = runner.env("ANTHROPIC_BASE_URL", model.url()).env("MODEL_PATIENCE", "0");
            Some(model)
        }
        None => None,
    };
    if launch.race.is_some() {
        // A race has thousands of events, and the machine other work. One by one, a double that has to share a
        // processor takes longer for them than the end of a task may; what is lost then breaks the protocol, and not
        // the sandbox.
        runner = runner.env("CALLBACK_BATCH", "ndjson");
    }
    for (name, value) in harness.env.iter().chain(&launch.env) {
        runner = runner.env(name, &**value);
    }
    if let Some(stdin) = launch.stdin {
        runner = runner.stdin(stdin);
    }
    let adopted = &harness.adopted;
    let (running, pid) = adopted
        .start(|| runner.start(), |running| running.id())
        .with_context(|| format!("start {}", harness.runner.display()))?;
    if scene.has_program() {
        scene.write_target(pid, false)?;
    }
    let watch = tokio::spawn(peak_memory(pid));
    let finished = running.finish().await;
    adopted.forget(pid);
    let peak_kib = watch.await.unwrap_or_default();
    let mut violations = scene.api.final_violations();
    violations.extend(model.as_ref().map(Claude::refusals).unwrap_or_default());
    let finished = finished?;
    let take = |bytes: &Mutex<Vec<u8>>| std::mem::take(&mut *bytes.lock().unwrap_or_else(PoisonError::into_inner));
    let results = std::mem::take(&mut *results.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(Seen {
        finished,
        events: scene.api.events(),
        sent: scene
            .api
            .attempts()
            .iter()
            .flat_map(|attempt| attempt.body.to_vec())
            .collect(),
        asked: take(&asked),
        results,
        violations,
        peak_kib,
    })
}

/// Looks at a process until it ends; gives the most memory it had.
async fn peak_memory(pid: i32) -> u64 {
    let mut peak = 0;
    while let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:").or(line.strip_prefix("VmRSS:")));
        let Some(kib) = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()) else {
            // gVisor, or a zombie, has no such line.
            if peak > 0 {
                return peak;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            if status.contains("State:\tZ") {
                return peak;
            }
            continue;
        };
        peak = peak.max(kib);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    peak
}
