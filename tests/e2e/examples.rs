//! The examples of the crates, as their READMEs say to start them.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use support::claude::KEY;
use support::{Claude, RunnerProcess, Turn};

/// An example that cargo has built: `cargo test` does, when it is not told which tests to build.
fn example(name: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let program: PathBuf = test.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(
        program.is_file(),
        "{} is not there: run `cargo build --release --examples`",
        program.display()
    );
    Command::new(program)
}

fn text(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

#[test]
fn the_sandbox_confines_one_command() {
    let folder = tempfile::tempdir().unwrap();
    let output = example("run_command")
        .arg(folder.path())
        .args(["sh", "-c", "echo $$ > file; exit 4"])
        .output()
        .unwrap();
    assert_eq!(text(&output), "Exited, code 4\n");
    let id: u32 = fs::read_to_string(folder.path().join("file"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    assert!(id < 100, "{id} is no PID of a namespace that was made for it");
}

#[test]
fn the_tool_host_calls_one_component() {
    let workspace = tempfile::tempdir().unwrap();
    fs::write(workspace.path().join("notes.txt"), "one\ntwo\n").unwrap();
    let call = |tool: &str, input: &str| {
        let output = example("call_tool")
            .arg(RunnerProcess::built().plugins())
            .arg(workspace.path())
            .args([tool, input])
            .output();
        text(&output.unwrap())
    };
    assert!(call("read_file", r#"{"path": "notes.txt"}"#).contains("two"));
    assert!(call("read_file", r#"{"path": "../notes.txt"}"#).starts_with("denied: "));
}

#[tokio::test]
async fn the_messages_api_streams_one_turn() {
    let model = Claude::script([Turn::says("Four.")]).await.unwrap();
    let mut question = example("stream_turn");
    question
        .arg("How much is two and two?")
        .env("ANTHROPIC_API_KEY", KEY)
        .env("ANTHROPIC_BASE_URL", model.url());
    let output = tokio::task::spawn_blocking(move || question.output()).await.unwrap();
    let text = text(&output.unwrap());
    assert!(text.starts_with("Four.\n(end_turn, "), "{text}");
}

#[test]
fn a_secret_is_masked_on_the_command_line() {
    let mut masking = example("mask")
        .arg("hunter2-hunter2")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = masking.stdin.take().unwrap();
    input
        .write_all(b"plain hunter2-hunter2, coded aHVudGVyMi1odW50ZXIy.\n")
        .unwrap();
    drop(input);
    assert_eq!(text(&masking.wait_with_output().unwrap()), "plain ***, coded ***.\n");
}
