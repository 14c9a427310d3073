//! Variables that are missing or malformed: exit 2, and one line that names each with an example.

use serde_json::json;
use support::ApiServer;

use support::scene::{MODEL, Scene};

async fn scene() -> Scene {
    Scene::new().await.workflow(&json!([{ "run": "touch made" }]))
}

#[tokio::test]
async fn what_is_missing_or_malformed_where_nobody_can_be_told_is_one_line() {
    let cases = [
        ("TASK_ID", None),
        ("TASK_ID", Some("")),
        ("TASK_ID", Some("a\nb")),
        ("CALLBACK_URL", None),
        ("CALLBACK_URL", Some("not a url")),
        ("CALLBACK_URL", Some("ftp://host/path")),
        ("CALLBACK_URL", Some("/internal/tasks/7")),
        ("CALLBACK_URL", Some("http://")),
    ];
    for (name, value) in cases {
        let scene = scene().await;
        let outcome = match value {
            Some(value) => scene.env(name, value).run().await,
            None => scene.without(name).run().await,
        };
        let line = outcome.only_a_line();
        assert!(
            line.contains(name) && line.contains(&format!("example: {name}=")),
            "{name}={value:?}: {line}"
        );
        assert_eq!(outcome.scene.api.attempts().len(), 0, "{name}={value:?}");
        assert!(!outcome.scene.workspace().join("made").exists());
    }
}

#[tokio::test]
async fn what_is_malformed_beside_a_good_callback_is_told_there_too() {
    let cases = [
        ("MODE", "passive"),
        ("LOG_LEVEL", "loud"),
        ("ANTHROPIC_BASE_URL", "api.anthropic.com"),
        ("ANTHROPIC_BASE_URL", "https://user:word@host/"),
        ("ANTHROPIC_API_KEY", "a b"),
        ("ANTHROPIC_AUTH_STYLE", "basic"),
        ("MODEL_ALIASES", "just-one-name"),
        ("CALLBACK_RETRY_BASE_MS", "-1"),
        ("CALLBACK_EXTRA_EVENTS", "maybe"),
        ("FLUSH_TIMEOUT", "ten"),
        ("SHUTDOWN_GRACE", "1h"),
        ("SANDBOX", "none"),
        ("TASK_FILE", "/tmp/also-a-task"),
        ("WORKSPACE", "/nowhere/at/all"),
    ];
    for (name, value) in cases {
        let scene = Scene::with(ApiServer::with().request_id("req-7")).await;
        let scene = scene
            .workflow(&json!([{ "run": "touch made" }]))
            .env("REQUEST_ID", "req-7")
            .env(name, value);
        let outcome = scene.run().await;
        let line = outcome.only_a_line();
        let log = &outcome.finished.log[0];
        assert_eq!(
            (&log["task_id"], &log["request_id"]),
            (&json!("task-7"), &json!("req-7")),
            "{log}"
        );
        let error = outcome.refused("internal");
        let message = error["message"].as_str().unwrap();
        for said in [message, log["error"].as_str().unwrap()] {
            assert!(
                said.starts_with(&format!("{name}: ")) && said.contains(&format!("(example: {name}=")),
                "{name}={value}: {said}"
            );
        }
        assert!(!line.contains("user:word"), "{line}");
        assert!(!outcome.scene.workspace().join("made").exists(), "{name}={value}");
    }
}

#[tokio::test]
async fn all_that_is_wrong_is_in_one_line() {
    let outcome = scene()
        .await
        .without("TASK_ID")
        .env("CALLBACK_URL", "x")
        .env("LOG_LEVEL", "loud")
        .run()
        .await;
    let line = outcome.only_a_line();
    assert!(
        ["TASK_ID", "CALLBACK_URL", "LOG_LEVEL"]
            .iter()
            .all(|name| line.contains(name)),
        "{line}"
    );
}

#[tokio::test]
async fn an_agent_task_without_a_key_is_refused() {
    let task = json!({ "model": MODEL, "messages": [{ "role": "user", "content": "Hi" }] });
    let outcome = Scene::new().await.task(&task).env("ALLOWED_MODELS", MODEL).run().await;
    let error = outcome.refused("model_auth");
    assert!(
        error["message"].as_str().unwrap().contains("ANTHROPIC_API_KEY"),
        "{error}"
    );
    assert!(
        outcome.finished.stdout.contains("ANTHROPIC_API_KEY"),
        "{}",
        outcome.finished.stdout
    );
}

#[tokio::test]
async fn log_levels_are_read_in_any_letter_case() {
    for level in ["debug", "Info", "WARNING", "error", "Critical"] {
        let outcome = scene().await.env("LOG_LEVEL", level).run().await;
        outcome.done();
        let quiet = ["error", "Critical"].contains(&level);
        assert!(
            !quiet || outcome.finished.log.is_empty(),
            "{level}: {}",
            outcome.finished.stdout
        );
    }
}

#[tokio::test]
async fn log_lines_name_the_task_and_the_request() {
    let scene = Scene::with(ApiServer::with().request_id("req-7")).await;
    let outcome = scene
        .workflow(&json!([{ "run": "true" }]))
        .env("REQUEST_ID", "req-7")
        .run()
        .await;
    outcome.done();
    assert!(!outcome.finished.log.is_empty());
    for line in &outcome.finished.log {
        assert_eq!(
            (&line["task_id"], &line["request_id"]),
            (&json!("task-7"), &json!("req-7")),
            "{line}"
        );
    }
}

#[tokio::test]
async fn a_task_id_of_digits_goes_back_as_the_string_that_it_was() {
    let outcome = scene().await.env("TASK_ID", "0042").run().await;
    assert_eq!(outcome.done()["task_id"], "0042");
}
