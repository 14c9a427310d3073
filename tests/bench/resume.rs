//! What it costs that a task outlives its runner: from the start of a process that goes on with a long conversation to
//! its next request to the model.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use serde_json::json;
use support::{ApiServer, Claude, Ending, Reply, Request, Turn};
use tokio::runtime::Runtime;

/// How many turns the task has behind it, and how long the text and the file of each are.
const TURNS: usize = 40;
const TEXT: usize = 50_000;
/// How often it is killed and started again.
const ROUNDS: usize = 9;
const WAIT: Duration = Duration::from_secs(60);

/// What was measured.
pub struct Figures {
    /// From the start of the process to the request, the median in microseconds.
    pub resume: f64,
    /// The body of that request, in bytes.
    pub history: usize,
}

pub fn measure() -> Figures {
    let runtime = Runtime::new().expect("a runtime");
    let (asked, was_asked) = channel();
    let answer = move |request: &Request| {
        let turns = request
            .messages()
            .iter()
            .filter(|message| message["role"] == "assistant")
            .count();
        if turns < TURNS {
            let text = "word ".repeat(TEXT / 5);
            let turn = Turn::text(&[text]).call(
                &format!("t{turns}"),
                "read_file",
                json!({ "path": format!("file{turns}") }),
            );
            return Reply::from(turn);
        }
        let _ = asked.send((Instant::now(), request.body.to_string().len()));
        Reply::from(Turn::says("x").cut_after(1, Ending::Stall))
    };
    let claude = runtime.block_on(Claude::answering(answer)).expect("a model");
    let server = runtime
        .block_on(ApiServer::with().restarts().start())
        .expect("an API server");
    let folder = tempfile::tempdir().expect("a folder");
    let workspace = folder.path().join("workspace");
    fs::create_dir(&workspace).expect("a workspace");
    for turn in 0..TURNS {
        let content = "line of a file\n".repeat(TEXT / 15);
        fs::write(workspace.join(format!("file{turn}")), content).expect("a file");
    }
    let task = json!({ "type": "agent", "model": "claude-sonnet-5-5", "tools": ["read_file"], "max_turns": TURNS + 1,
        "messages": [{ "role": "user", "content": "Go." }] });
    let start = || -> Child {
        Command::new(crate::runner())
            .env_clear()
            .envs([
                ("TASK_ID", "1"),
                ("LOG_LEVEL", "CRITICAL"),
                ("ANTHROPIC_API_KEY", support::claude::KEY),
                ("ALLOWED_MODELS", "claude-sonnet-5-5"),
            ])
            .env("TASK_CONFIG", task.to_string())
            .env("CALLBACK_URL", server.url())
            .env("ANTHROPIC_BASE_URL", claude.url())
            .env("PLUGIN_DIR", crate::plugins())
            .env("WORKSPACE", &workspace)
            .env("STATE_DIR", folder.path().join("state"))
            .stdin(Stdio::null())
            .spawn()
            .expect("the runner starts")
    };
    let mut times = Vec::new();
    let mut history = 0;
    for round in 0..=ROUNDS {
        let started = Instant::now();
        let mut runner = start();
        let (at, length) = was_asked.recv_timeout(WAIT).expect("the model is asked");
        runner.kill().expect("our own child");
        let _ = runner.wait();
        history = length;
        // The first one has all the turns to make.
        if round > 0 {
            times.push((at - started).as_secs_f64() * 1e6);
        }
    }
    // The last runner was killed: the task has no ending.
    let _ = server.violations();
    times.sort_by(f64::total_cmp);
    Figures {
        resume: times[times.len() / 2],
        history,
    }
}
