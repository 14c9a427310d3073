//! The commands for people: `check` and `plugin`.

use std::fs;
use std::process::{Command, Output};

use support::RunnerProcess;

fn command(arguments: &[&str]) -> Output {
    let runner = RunnerProcess::built();
    Command::new(runner.plugins().with_file_name("plue-runner"))
        .args(arguments)
        .env_clear()
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn check_says_what_a_valid_task_is() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        (
            "task.json",
            r#"{"messages":[{"role":"user","content":"hi"}],"tools":["grep"]}"#,
            "valid (agent, claude-sonnet-4-20250514, grep, at most 20 turns)",
        ),
        (
            "task.yaml",
            "steps:\n  - run: make\n  - run: make test\n",
            "valid (workflow, 2 steps)",
        ),
        (
            "ci.yml",
            "on: push\njobs:\n  a:\n    steps:\n      - run: make\n",
            "valid (workflow, 1 step)",
        ),
    ];
    for (name, task, expected) in cases {
        let file = folder.path().join(name);
        fs::write(&file, task).unwrap();
        let output = command(&["check", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        assert!(
            text(&output).ends_with(&format!("{name}: {expected}\n")),
            "{}",
            text(&output)
        );
    }
}

#[test]
fn check_tells_all_problems_and_unknown_keys_are_among_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("task.json");
    fs::write(
        &file,
        r#"{"type":"workflow","stesp":1,"steps":[{"rn":"make"},{"run":true}]}"#,
    )
    .unwrap();
    let output = command(&["check", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    let text = text(&output);
    for expected in [
        ": 4 problems\n",
        "  steps[0]: has neither `run` nor `type`",
        "  steps[1].run: must be a string, found the boolean true",
        "  stesp: is not known; did you mean `steps`?",
        "  steps[0].rn: is not known; did you mean `run`?",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in:\n{text}");
    }
}

#[test]
fn check_of_a_file_that_cannot_be_read_says_so() {
    let output = command(&["check", "/nowhere/task.json"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output).starts_with("/nowhere/task.json: cannot be read: "),
        "{}",
        text(&output)
    );
}

#[test]
fn plugins_are_listed_with_their_grants() {
    let output = command(&["plugin", "list"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let lines: Vec<_> = text(&output).lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 5, "{lines:?}");
    assert!(
        lines.contains(&"shell       workspace: read, runs commands".to_owned()),
        "{lines:?}"
    );
    assert!(
        lines.contains(&"write_file  workspace: read-write".to_owned()),
        "{lines:?}"
    );
    let output = command(&["plugin", "list", "--plugin-dir", "/nowhere"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("/nowhere"), "{}", text(&output));
}
