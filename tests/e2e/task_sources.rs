//! Where the task comes from: `TASK_CONFIG`, standard input, or a file.

use std::fs;

use serde_json::json;

use support::scene::Scene;

const JSON: &str = r#"{"type":"workflow","steps":[{"name":"One","run":"echo hello"}]}"#;
const YAML: &str = "type: workflow\nsteps:\n  - name: One\n    run: |\n      echo hello\n";
const JOBS: &str = "\
name: CI
on: push
jobs:
  build:
    steps:
      - name: One
        run: echo hello $GREETING $PORT
        env:
          GREETING: you
          PORT: 80
        working-directory: sub
        timeout-minutes: 1
  later:
    runs-on: anything
    env:
      BIG: 18446744073709551616
    steps:
      - run: echo second job $BIG
";

#[tokio::test]
async fn a_task_is_read_from_the_variable_standard_input_or_a_file() {
    let cases = [
        ("TASK_CONFIG", JSON, ""),
        ("stdin", JSON, ""),
        ("file", JSON, "task.json"),
        ("file", YAML, "task.yaml"),
        ("file", YAML, "task.yml"),
        ("file", JSON, "task"),
        ("file", YAML, "task"),
    ];
    for (source, text, name) in cases {
        let scene = Scene::new().await;
        let file = scene.outside().join(name);
        let scene = match source {
            "TASK_CONFIG" => scene.env("TASK_CONFIG", text),
            "stdin" => scene.stdin(text.as_bytes()),
            _ => {
                fs::write(&file, text).unwrap();
                scene.env("TASK_FILE", &file.to_string_lossy())
            }
        };
        let outcome = scene.run().await;
        outcome.done();
        assert_eq!(outcome.lines("stdout", 0), ["hello"], "{source} {name}");
        assert_eq!(outcome.events_of("step_start")[0]["step_name"], "One");
    }
}

#[tokio::test]
async fn jobs_of_a_ci_file_run_one_after_the_other() {
    let scene = Scene::new().await.file("sub/x", "");
    let file = scene.outside().join("ci.yaml");
    fs::write(&file, JOBS).unwrap();
    let outcome = scene.env("TASK_FILE", &file.to_string_lossy()).run().await;
    outcome.done();
    assert_eq!(outcome.lines("stdout", 0), ["hello you 80"]);
    assert_eq!(outcome.lines("stdout", 1), ["second job 18446744073709551616"]);
    assert_eq!(outcome.events_of("step_start")[1]["step_name"], "step-1");
}

#[tokio::test]
async fn a_task_that_cannot_be_read_is_an_invalid_task() {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let cases = [
        ("", "empty"),
        ("{", "JSON"),
        (r#"{"type":"workflow","type":"agent"}"#, "twice"),
        ("[1, 2]", "object"),
        ("\"text\"", "object"),
        (deep.as_str(), "recursion"),
    ];
    for (text, expected) in cases {
        let outcome = Scene::new().await.stdin(text.as_bytes()).run().await;
        let message = outcome.refused("invalid_task")["message"].as_str().unwrap().to_owned();
        assert!(message.contains(expected), "{text:.20}: {message}");
    }
}

#[tokio::test]
async fn a_task_that_is_no_text_is_an_invalid_task() {
    Scene::new()
        .await
        .stdin(b"{\"type\": \"\xff\"}")
        .run()
        .await
        .refused("invalid_task");
}

#[tokio::test]
async fn a_task_file_that_is_missing_is_named() {
    let outcome = Scene::new().await.env("TASK_FILE", "/nowhere/task.yaml").run().await;
    assert_eq!(outcome.finished.code, 2);
    assert!(
        outcome.finished.stdout.contains("/nowhere/task.yaml"),
        "{}",
        outcome.finished.stdout
    );
}

#[tokio::test]
async fn a_source_that_never_ends_is_read_only_so_far() {
    let outcome = Scene::new().await.env("TASK_FILE", "/dev/zero").run().await;
    let message = outcome.refused("invalid_task")["message"].as_str().unwrap().to_owned();
    assert!(message.contains("longer than"), "{message}");
}

#[tokio::test]
async fn yaml_that_multiplies_itself_is_refused() {
    let scene = Scene::new().await;
    let file = scene.outside().join("task.yaml");
    let mut text = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for (before, name) in ('a'..='k').zip('b'..) {
        text.push_str(&format!(
            "{name}: &{name} [{}]\n",
            vec![format!("*{before}"); 9].join(",")
        ));
    }
    fs::write(&file, text).unwrap();
    let outcome = scene.env("TASK_FILE", &file.to_string_lossy()).run().await;
    outcome.refused("invalid_task");
}

#[tokio::test]
async fn a_key_of_a_task_that_nobody_knows_is_a_warning() {
    let task = json!({ "type": "workflow", "steps": [{ "run": "true" }], "session_id": "s", "repository": {} });
    let outcome = Scene::new().await.task(&task).run().await;
    outcome.done();
    let warnings = outcome.finished.log.iter().filter(|line| line["level"] == "WARNING");
    let warnings: Vec<String> = warnings.map(ToString::to_string).collect();
    for key in ["session_id", "repository"] {
        let says = format!("the task, {key}: is not known");
        assert!(warnings.iter().any(|line| line.contains(&says)), "{key}: {warnings:?}");
    }
}
