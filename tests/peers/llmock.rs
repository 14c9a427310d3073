//! `llmock`: a Messages API that breaks what it sends, and judges from what it was asked how its client bore that.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use support::scene::{Outcome, Scene};
use tokio::process::{Child, Command};

/// One that its table of models knows, and ours too.
const MODEL: &str = "claude-sonnet-4-6";

/// How a task ends.
#[derive(Clone, Copy, Debug)]
enum Ends {
    Done,
    /// With this code.
    Fails(&'static str),
}
use Ends::{Done, Fails};

/// Each way in which it can be set, and how a task of text and one with tools end then.
const MODES: &[(&[&str], Ends, Ends)] = &[
    (&[], Done, Done),
    (&["--response-style", "echo"], Done, Done),
    (&["--response-style", "varied"], Done, Done),
    (&["--tool-mode", "off"], Done, Done),
    (&["--latency-ms", "300"], Done, Done),
    (&["--stream-chunk-delay-ms", "20"], Done, Done),
    (&["--error-rate", "408=0.3"], Done, Done),
    (&["--error-rate", "409=0.3"], Done, Done),
    (&["--error-rate", "429=0.3"], Done, Done),
    (&["--error-rate", "500=0.3"], Done, Done),
    (&["--error-rate", "503=0.3"], Done, Done),
    (&["--error-rate", "529=0.3"], Done, Done),
    (&["--error-rate", "503=1"], Fails("model_error"), Fails("model_error")),
    (&["--error-rate", "400=1"], Fails("model_error"), Fails("model_error")),
    (&["--error-rate", "401=1"], Fails("model_auth"), Fails("model_auth")),
    (&["--error-rate", "403=1"], Fails("model_auth"), Fails("model_auth")),
    (&["--error-rate", "404=1"], Fails("model_error"), Fails("model_error")),
    (&["--error-rate", "422=1"], Fails("model_error"), Fails("model_error")),
    (&["--stream-fault", "disconnect=0.3"], Done, Done),
    (&["--stream-fault", "truncate=0.3"], Done, Done),
    (&["--stream-fault", "malformed=0.3"], Done, Done),
    // A pause of a second is no silence to us.
    (
        &["--stream-fault", "stall=0.5", "--stream-stall-seconds", "1"],
        Done,
        Done,
    ),
    (&["--rpm", "100"], Done, Done),
    (&["--tpm", "10"], Fails("model_error"), Fails("model_error")),
    (
        &["--context-window", "3"],
        Fails("context_exceeded"),
        Fails("context_exceeded"),
    ),
];

/// One that runs, in its own process, until it is dropped.
struct Mock {
    at: SocketAddr,
    _process: Child,
}

impl Mock {
    async fn start(mode: &[&str]) -> Self {
        // Between the choice of a port and its use another may take it: then there is another one.
        for _ in 0..5 {
            let at = support::loopback::closed_port().await.unwrap();
            let mut process = Command::new(super::python())
                .args([
                    "-m",
                    "llmock.cli",
                    "serve",
                    "--host",
                    "127.0.0.1",
                    "--log-level",
                    "error",
                ])
                .args(["--port", &at.port().to_string()])
                .args(mode)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .kill_on_drop(true)
                .spawn()
                .unwrap();
            for _ in 0..600 {
                if tokio::net::TcpStream::connect(at).await.is_ok() {
                    return Self { at, _process: process };
                }
                if process.try_wait().unwrap().is_some() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        panic!("llmock does not start");
    }

    /// What it says of its client.
    async fn verdict(&self) -> Value {
        let report = Command::new(super::python())
            .args(["-m", "llmock.cli", "report", "--json", "--url"])
            .arg(format!("http://{}", self.at))
            .output()
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&report.stdout);
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
    }
}

async fn run(mock: &Mock, tools: &[&str], ends: Ends) -> Outcome {
    // What happens three times in ten is waited for until it is next to impossible; what always happens is not.
    let patience = if matches!(ends, Done) { "60" } else { "8" };
    let task = json!({
        "type": "agent", "model": MODEL, "tools": tools, "max_turns": 8,
        "messages": [{ "role": "user", "content": "Please list the files and read one of them." }],
    });
    let scene = Scene::new().await.task(&task);
    let scene = scene
        .file("a.txt", "one")
        .env("ANTHROPIC_API_KEY", "sk-ant-a-key-for-llmock")
        .env("ANTHROPIC_BASE_URL", &format!("http://{}/anthropic", mock.at))
        .env("ALLOWED_MODELS", MODEL)
        .env("MODEL_PATIENCE", patience)
        .env("CALLBACK_EXTRA_EVENTS", "1")
        .limit(Duration::from_secs(120));
    scene.run().await
}

#[tokio::test(flavor = "multi_thread")]
async fn its_verdict_is_passed_in_every_mode() {
    for (mode, text, tools) in MODES {
        let mock = Mock::start(mode).await;
        for (names, ends) in [(&[][..], text), (&["list_files", "read_file"][..], tools)] {
            let outcome = run(&mock, names, *ends).await;
            match ends {
                Done => drop(outcome.done()),
                Fails(code) => drop(outcome.failed(code)),
            }
        }
        let verdict = mock.verdict().await;
        println!(
            "{}: {} attempts, {} warnings",
            mode.join(" "),
            verdict["attempts"],
            verdict["warnings"]
        );
        assert_eq!(verdict["passed"], true, "{mode:?}: {verdict:#}");
        assert!(verdict["attempts"].as_u64().unwrap() >= 2, "{mode:?}: {verdict:#}");
    }
}
