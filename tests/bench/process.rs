//! What the process as a whole costs: from its start to the first event, and the memory that it holds while it waits.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use criterion::Criterion;
use support::processes::{below, memory};
use support::{Claude, Ending, Reply, Turn};
use tokio::runtime::Runtime;

const ALL_TOOLS: &str = r#"{"messages":[{"role":"user","content":"hello"}],"model":"bench-model",
    "tools":["read_file","write_file","list_files","grep","shell"]}"#;
const WORKFLOW: &str = r#"{"type":"workflow","steps":[{"run":"true"}]}"#;
const MODEL: &str = "claude-sonnet-5-5";

pub fn benchmarks(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let mut claude = None;
    let mut group = criterion.benchmark_group("start");
    group.sample_size(30);
    group.bench_function("workflow_first_event", |b| {
        b.iter_custom(|count| (0..count).map(|_| first_event(WORKFLOW, "http://127.0.0.1:9")).sum());
    });
    group.bench_function("agent_first_event", |b| {
        b.iter_custom(|count| {
            let measure = || {
                // A model of its own for each run: it holds a conversation to its earlier requests.
                claude = Some(runtime.block_on(Claude::script([Turn::says("hi")])).expect("a model"));
                first_event(ALL_TOOLS, &claude.as_ref().expect("a model").url())
            };
            std::iter::repeat_with(measure).take(count as usize).sum()
        });
    });
    group.finish();
}

/// The resident memory of a runner with an agent task and all five tools that waits for the model, in KiB.
pub fn idle_memory() -> u64 {
    let runtime = Runtime::new().expect("a runtime");
    let (asked, was_asked) = channel();
    let silent = move |_: &support::Request| {
        let _ = asked.send(());
        Reply::from(Turn::says("hi").ending(Ending::Stall))
    };
    let claude = runtime.block_on(Claude::answering(silent)).expect("a model");
    let server = Callback::start();
    let workspace = tempfile::tempdir().expect("a folder");
    let mut runner = start(ALL_TOOLS, &claude.url(), &server.url, workspace.path());
    was_asked
        .recv_timeout(Duration::from_secs(20))
        .expect("the runner asks the model");
    // Until what the start left behind is gone: the first measure of a wait is the wait.
    thread::sleep(Duration::from_secs(2));
    let resident = resident_kib(&runner);
    runner.kill().expect("our own child");
    let _ = runner.wait();
    resident
}

/// What a standby runner holds while it waits for a task: supervisor, worker and sandbox together, in KiB. Pages that
/// they share are counted once (PSS).
pub fn standby_memory() -> u64 {
    let server = Registry::start();
    let workspace = tempfile::tempdir().expect("a folder");
    fs::write(workspace.path().join(".plue-workspace"), "").expect("a marker");
    let mut runner = Command::new(crate::runner())
        .env_clear()
        .envs([
            ("MODE", "standby"),
            ("LOG_LEVEL", "ERROR"),
            ("ANTHROPIC_API_KEY", support::claude::KEY),
        ])
        .env("REGISTER_URL", &server.url)
        .env("PLUGIN_DIR", crate::plugins())
        .env("WORKSPACE", workspace.path())
        .stdin(Stdio::null())
        .spawn()
        .expect("the runner starts");
    server
        .first_request
        .recv_timeout(Duration::from_secs(20))
        .expect("the runner registers");
    thread::sleep(Duration::from_secs(2));
    let root = runner.id().cast_signed();
    let all = below(root).into_iter().map(|(id, _)| id).chain([root]);
    let held = all.map(proportional_kib).sum();
    runner.kill().expect("our own child");
    let _ = runner.wait();
    held
}

fn proportional_kib(id: i32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{id}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse().ok())
        .unwrap_or(0)
}

/// An API server that has no tasks.
struct Registry {
    url: String,
    first_request: Receiver<Instant>,
}

impl Registry {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (sender, first_request) = channel();
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let sender = sender.clone();
                thread::spawn(move || answer(connection, &sender, r#"{"runner_id":1,"task":null}"#));
            }
        });
        Self {
            url: format!("http://{address}/internal/runners/register"),
            first_request,
        }
    }
}

fn resident_kib(runner: &Child) -> u64 {
    memory(runner.id(), "VmRSS").expect("the runner lives") / 1024
}

/// From the start of the process to the moment at which the callback has its first request.
fn first_event(task: &str, model_url: &str) -> Duration {
    let server = Callback::start();
    let workspace = tempfile::tempdir().expect("a folder");
    let started = Instant::now();
    let mut runner = start(task, model_url, &server.url, workspace.path());
    let at = server
        .first_request
        .recv_timeout(Duration::from_secs(20))
        .expect("an event");
    assert!(runner.wait().expect("our own child").success(), "the task succeeds");
    at - started
}

pub(super) fn start(task: &str, model_url: &str, callback_url: &str, workspace: &Path) -> Child {
    Command::new(crate::runner())
        .env_clear()
        .envs([
            ("MODE", "active"),
            ("TASK_ID", "1"),
            ("LOG_LEVEL", "ERROR"),
            ("ANTHROPIC_API_KEY", support::claude::KEY),
            ("ALLOWED_MODELS", "bench-model"),
        ])
        .env("MODEL_ALIASES", format!("bench-model={MODEL}"))
        .env("TASK_CONFIG", task)
        .env("CALLBACK_URL", callback_url)
        .env("ANTHROPIC_BASE_URL", model_url)
        .env("PLUGIN_DIR", crate::plugins())
        .env("WORKSPACE", workspace)
        .stdin(Stdio::null())
        .stdout(Stdio::inherit())
        .spawn()
        .expect("the runner starts")
}

/// A callback that says when it was first asked. Plain threads and sockets: it must not be slower than what it
/// measures.
struct Callback {
    url: String,
    first_request: Receiver<Instant>,
}

impl Callback {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/events", listener.local_addr().expect("an address"));
        let (sender, first_request) = channel();
        // Ends with the process: the benchmark starts a few hundred of them.
        thread::spawn(move || {
            for connection in listener.incoming().take(1) {
                let _ = connection.and_then(|connection| answer(connection, &sender, r#"{"ok":true}"#));
            }
        });
        Self { url, first_request }
    }
}

fn answer(connection: TcpStream, first_request: &Sender<Instant>, body: &str) -> std::io::Result<()> {
    let mut writer = connection.try_clone()?;
    let mut reader = BufReader::new(connection);
    loop {
        let mut length = 0;
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let _ = first_request.send(Instant::now());
        while line.trim() != "" {
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            line.clear();
            reader.read_line(&mut line)?;
        }
        std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink())?;
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ";
        writer.write_all(format!("{head}{}\r\n\r\n{body}", body.len()).as_bytes())?;
    }
}
