//! The commands of README and `docs/guide`, run as they stand there, with the built runner first on the PATH.
//!
//! A fence of shell (`sh`) is run. One that cannot be run here says why in a second word, and [`NOT_RUN`] knows it.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal};
use serde_json::json;
use support::claude::KEY;
use support::{Claude, RunnerProcess, Turn};

/// Why a command is not run here, and what makes sure of it instead.
const NOT_RUN: [(&str, &str); 6] = [
    ("built", "makes what this test was given"),
    (
        "xtask",
        "is a command of the project: what it does is a stage of `cargo xtask test`, or that itself",
    ),
    (
        "key",
        "has a person type a secret; this test has a key, and a scripted model",
    ),
    ("toolchain", "the stage `component` builds and loads the same tool"),
    (
        "registry",
        "needs docker and its registry; the stage `pod` builds the same Dockerfile with buildah",
    ),
    (
        "cluster",
        "needs a cluster; the stage `manifests` renders and validates what is applied",
    ),
];

/// The address of the API server in the documents.
const PORT: &str = "8080";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn documents() -> Vec<String> {
    let guide = fs::read_dir(root().join("docs/guide")).unwrap();
    let guide = guide.map(|entry| format!("docs/guide/{}", entry.unwrap().file_name().to_string_lossy()));
    guide.chain(["README.md".to_owned()]).collect()
}

/// The fences of a document: the line and the words of its first line, and its text.
fn fences(document: &str) -> Vec<(usize, Vec<String>, String)> {
    let text = fs::read_to_string(root().join(document)).unwrap();
    let mut found = Vec::new();
    let mut lines = (1..).zip(text.lines());
    while let Some((number, line)) = lines.next() {
        if let Some(words) = line.strip_prefix("```") {
            let code: Vec<&str> = lines
                .by_ref()
                .map(|(_, line)| line)
                .take_while(|line| *line != "```")
                .collect();
            let words = words.split(' ').map(str::to_owned).collect();
            found.push((number, words, code.join("\n") + "\n"));
        }
    }
    found
}

#[test]
fn every_command_of_the_guide_is_run_or_says_why_not() {
    let mut unused: Vec<&str> = NOT_RUN.iter().map(|(word, _)| *word).collect();
    let mut run = Vec::new();
    for document in documents() {
        for (line, words, code) in fences(&document) {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            match words.as_slice() {
                ["sh"] => run.push(document.clone()),
                ["sh", why] => {
                    let known = NOT_RUN.iter().any(|(word, _)| word == why);
                    assert!(
                        known,
                        "{document}:{line}: {why:?} is no reason for not running a command"
                    );
                    unused.retain(|word| word != why);
                }
                [language] => {
                    let is_shell = ["", "bash", "shell", "console", "text"].contains(language);
                    assert!(
                        !is_shell,
                        "{document}:{line}: say which language this is; commands are `sh`:\n{code}"
                    );
                }
                _ => panic!("{document}:{line}: a fence with the words {words:?}"),
            }
        }
    }
    assert_eq!(unused, Vec::<&str>::new(), "nothing is left out for these reasons");
    run.dedup();
    // Each has a test below.
    run.sort();
    let tried = [
        "README.md",
        "docs/guide/in-a-cluster.md",
        "docs/guide/run-a-task.md",
        "docs/guide/standby.md",
        "docs/guide/write-a-tool.md",
    ];
    assert_eq!(run, tried);
}

/// Runs the commands of a document, in order and in one shell, beside a checkout's folders. Gives what they printed,
/// and where they ran.
async fn follow(document: &str, variables: &[(&str, &str)]) -> (String, tempfile::TempDir) {
    let folder = tempfile::Builder::new().prefix("plue-guide-").tempdir().unwrap();
    for name in ["deploy", "examples", "protocol"] {
        symlink(root().join(name), folder.path().join(name)).unwrap();
    }
    // Taken by nobody a moment ago.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
        .to_string();
    let mut script = "set -euo pipefail\n".to_owned();
    for (line, words, code) in fences(document) {
        if words == ["sh"] {
            script += &format!("echo '# {document}:{line}'\n{}", code.replace(PORT, &port));
        }
    }
    let runner = RunnerProcess::built();
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", runner.binary().parent().unwrap().display());
    let mut command = Command::new("timeout");
    command
        .args(["120", "bash", "-c", &script])
        .env_clear()
        .envs(variables.iter().copied())
        .env("PATH", path)
        // Python's own launchers look for their settings there.
        .env("HOME", std::env::var_os("HOME").unwrap_or_default())
        .current_dir(folder.path())
        .process_group(0);
    let output = folder.path().join("output");
    let log = fs::File::create(&output).unwrap();
    command
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .stdin(std::process::Stdio::null());
    let mut child = command.spawn().unwrap();
    let group = Pid::from_child(&child);
    let status = tokio::task::spawn_blocking(move || child.wait())
        .await
        .unwrap()
        .unwrap();
    // What a document has left in the background.
    let _ = rustix::process::kill_process_group(group, Signal::KILL);
    let said = fs::read_to_string(output).unwrap();
    assert!(status.success(), "{document}: {status}; is python3 there?\n{said}");
    (said, folder)
}

/// A model that reads `answer` and writes it in upper case.
async fn model() -> Claude {
    Claude::script([
        Turn::new().call("toolu_1", "read_file", json!({ "path": "answer" })),
        Turn::new().call(
            "toolu_2",
            "write_file",
            json!({ "path": "summary.txt", "content": "SIX TIMES SEVEN IS 42\n" }),
        ),
        Turn::says("Done."),
    ])
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guide_to_running_a_task_works_as_it_stands() {
    let model = model().await;
    let variables = [("ANTHROPIC_API_KEY", KEY), ("ANTHROPIC_BASE_URL", &model.url())];
    let (said, folder) = follow("docs/guide/run-a-task.md", &variables).await;
    assert_eq!(
        model.requests()[1].success("toolu_1").unwrap(),
        "six times seven is 42\n"
    );
    let events = fs::read_to_string(folder.path().join("events.txt")).unwrap();
    assert_eq!(events.matches(r#""type":"done""#).count(), 2, "{events}");
    for part in [
        "valid (workflow, 2 steps)",
        "SIX TIMES SEVEN IS 42",
        "did you mean `run`?",
        "exit code 2",
    ] {
        assert!(said.contains(part), "{part:?} is not in:\n{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guide_to_standby_works_as_it_stands() {
    let (said, folder) = follow("docs/guide/standby.md", &[]).await;
    for part in ["my-runner gets the task", "waits for a task", "has ended"] {
        assert!(said.contains(part), "{part:?} is not in:\n{said}");
    }
    let left = fs::read_dir(folder.path().join("workspace")).unwrap().count();
    assert_eq!(left, 1, "the marker, and nothing of the task");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guide_to_writing_a_tool_works_as_it_stands() {
    let (said, _) = follow("docs/guide/write-a-tool.md", &[]).await;
    assert!(said.contains("shell       workspace: read, runs commands"), "{said}");
    assert!(said.contains("valid (agent, claude-sonnet-5-5, count_words"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guide_to_a_cluster_works_as_far_as_it_is_run() {
    let (said, _) = follow("docs/guide/in-a-cluster.md", &[]).await;
    assert!(said.contains("task.json: valid (workflow, 2 steps)"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tasks_of_the_readme_work_as_they_stand() {
    let model = model().await;
    let variables = [("ANTHROPIC_API_KEY", KEY), ("ANTHROPIC_BASE_URL", &model.url())];
    let (said, _) = follow("README.md", &variables).await;
    assert_eq!(said.matches(r#""type":"done""#).count(), 2, "{said}");
}
