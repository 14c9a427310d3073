//! Tasks that are refused: nothing is run, and every problem is named with its path.

use serde_json::{Value, json};

use support::scene::{MODEL, Scene};

/// Starts a runner with this task, and gives the message of its `error` event.
async fn refusal(task: &Value) -> String {
    let scene = Scene::new()
        .await
        .task(task)
        .env("ANTHROPIC_API_KEY", "sk-unused-by-invalid-tasks");
    let outcome = scene
        .env("ALLOWED_MODELS", MODEL)
        .env("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")
        .run()
        .await;
    outcome.refused("invalid_task")["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_agent_task_that_is_wrong_is_refused_with_the_path() {
    let messages = json!([{ "role": "user", "content": "Hi" }]);
    let with = |key: &str, value: Value| {
        let mut task = json!({ "type": "agent", "model": MODEL, "messages": messages });
        task[key] = value;
        task
    };
    let message = |message: Value| with("messages", json!([message]));
    let cases: Vec<(Value, &[&str])> = vec![
        (json!({}), &["messages"]),
        (with("type", json!("robot")), &["type", "robot", "workflow"]),
        (with("type", json!(7)), &["type"]),
        (
            with("model", json!("gpt-9")),
            &["model", "gpt-9", MODEL, "ALLOWED_MODELS"],
        ),
        (with("model", json!(null)), &["model", "null"]),
        (with("model", json!(true)), &["model", "true"]),
        (with("messages", json!([])), &["messages"]),
        (with("messages", json!("Hi")), &["messages", "string"]),
        (with("messages", json!(null)), &["messages"]),
        (message(json!("Hi")), &["messages[0]", "string"]),
        (message(json!({ "content": "Hi" })), &["messages[0].role", "missing"]),
        (
            message(json!({ "role": "system", "content": "Hi" })),
            &["messages[0].role", "system", "user"],
        ),
        (
            message(json!({ "role": "assistant", "content": "Hi" })),
            &["messages[0].role"],
        ),
        (message(json!({ "role": "user" })), &["messages[0].content", "missing"]),
        (
            message(json!({ "role": "user", "content": 7 })),
            &["messages[0].content", "7"],
        ),
        (
            message(json!({ "role": "user", "content": "" })),
            &["messages[0].content", "empty"],
        ),
        (
            message(json!({ "role": "user", "content": [] })),
            &["messages[0].content"],
        ),
        (
            message(json!({ "role": "user", "content": [7] })),
            &["messages[0].content[0]"],
        ),
        (
            message(json!({ "role": "user", "content": [{ "text": "x" }] })),
            &["messages[0].content[0].type"],
        ),
        (
            message(json!({ "role": "user", "content": [{ "type": "text", "text": 1 }] })),
            &["messages[0].content[0].text"],
        ),
        (with("system_prompt", json!(["x"])), &["system_prompt", "array"]),
        (with("tools", json!("grep")), &["tools", "grep"]),
        (with("tools", json!([1])), &["tools[0]", "1"]),
        (with("tools", json!(["grep", "rm"])), &["tools[1]", "rm", "read_file"]),
        (with("tools", json!(["grep", "grep"])), &["tools[1]", "twice"]),
        (with("max_turns", json!(0)), &["max_turns", "0", "1000"]),
        (with("max_turns", json!(1001)), &["max_turns", "1001", "1000"]),
        (with("max_turns", json!(true)), &["max_turns", "true"]),
        (with("max_turns", json!("5")), &["max_turns", "\"5\""]),
        (with("max_turns", json!(1.5)), &["max_turns", "1.5"]),
        (with("max_turns", json!(-1)), &["max_turns", "-1"]),
        (with("max_tokens", json!(0)), &["max_tokens"]),
        (with("effort", json!("most")), &["effort", "most", "xhigh"]),
        (with("thinking", json!(true)), &["thinking"]),
        (with("thinking", json!({ "type": "deep" })), &["thinking.type", "deep"]),
        (with("max_cost_usd", json!(0)), &["max_cost_usd"]),
        (with("timeout_seconds", json!("1h")), &["timeout_seconds"]),
    ];
    assert!(cases.len() >= 20);
    for (task, named) in cases {
        let message = refusal(&task).await;
        assert!(
            named.iter().all(|name| message.contains(name)),
            "{task}\n gave {message:?}\n without one of {named:?}"
        );
    }
}

#[tokio::test]
async fn a_workflow_that_is_wrong_is_refused_with_the_path() {
    let step = |step: Value| json!({ "type": "workflow", "steps": [{ "run": "true" }, step] });
    let cases: Vec<(Value, &[&str])> = vec![
        (json!({ "type": "workflow" }), &["steps"]),
        (json!({ "type": "workflow", "steps": [] }), &["steps"]),
        (json!({ "type": "workflow", "steps": {} }), &["steps", "object"]),
        (json!({ "type": "workflow", "steps": [], "jobs": {} }), &["jobs"]),
        (json!({ "type": "workflow", "jobs": {} }), &["jobs"]),
        (
            json!({ "type": "workflow", "jobs": { "a": { "steps": [{}] } } }),
            &["jobs.a.steps[0]"],
        ),
        (step(json!("make")), &["steps[1]", "make"]),
        (step(json!({})), &["steps[1]", "run"]),
        (
            step(json!({ "type": "deploy" })),
            &["steps[1].type", "deploy", "checkout"],
        ),
        (step(json!({ "type": "run" })), &["steps[1].run", "missing"]),
        (step(json!({ "run": 7 })), &["steps[1].run", "7"]),
        (step(json!({ "run": "" })), &["steps[1].run", "empty"]),
        (step(json!({ "run": "a\u{0}b" })), &["steps[1].run", "NUL"]),
        (step(json!({ "run": "true", "name": 1 })), &["steps[1].name"]),
        (
            step(json!({ "run": "true", "env": ["A=1"] })),
            &["steps[1].env", "array"],
        ),
        (
            step(json!({ "run": "true", "env": { "A": null } })),
            &["steps[1].env.A", "null"],
        ),
        (
            step(json!({ "run": "true", "env": { "A=B": "1" } })),
            &["steps[1].env.A=B"],
        ),
        (
            step(json!({ "run": "true", "timeout_seconds": 0 })),
            &["steps[1].timeout_seconds", "0"],
        ),
        (
            step(json!({ "run": "true", "timeout_seconds": true })),
            &["steps[1].timeout_seconds", "true"],
        ),
        (
            step(json!({ "run": "true", "timeout-minutes": "5" })),
            &["steps[1].timeout_minutes"],
        ),
        (
            step(json!({ "run": "true", "working_directory": 5 })),
            &["steps[1].working_directory"],
        ),
        (
            step(json!({ "run": "true", "working_directory": ".." })),
            &["steps[1].working_directory", "leaves the workspace"],
        ),
        (
            step(json!({ "run": "true", "working-directory": "a/../../b" })),
            &["steps[1].working_directory", "leaves the workspace"],
        ),
        (
            step(json!({ "run": "true", "working_directory": "/etc" })),
            &["steps[1].working_directory", "/etc", "WORKSPACE"],
        ),
        (
            json!({ "type": "workflow", "jobs": { "a": { "env": 7, "steps": [{ "run": "true" }] } } }),
            &["jobs.a.env", "7"],
        ),
        (step(json!({ "type": "env" })), &["steps[1].env", "missing"]),
    ];
    for (task, named) in cases {
        let message = refusal(&task).await;
        assert!(
            named.iter().all(|name| message.contains(name)),
            "{task}\n gave {message:?}\n without one of {named:?}"
        );
    }
}

#[tokio::test]
async fn all_problems_are_told_at_once() {
    let task = json!({
        "type": "agent",
        "model": "gpt-9",
        "messages": [{ "role": "robot", "content": 7 }, "Hi"],
        "tools": ["rm"],
        "max_turns": true,
        "system_prompt": 1,
    });
    let message = refusal(&task).await;
    let paths = [
        "model",
        "messages[0].role",
        "messages[0].content",
        "messages[1]",
        "tools[0]",
        "max_turns",
        "system_prompt",
    ];
    for path in paths {
        assert!(message.contains(path), "{path} is missing in {message}");
    }
}

#[tokio::test]
async fn an_invalid_workflow_runs_none_of_its_steps() {
    let one = json!({ "run": "touch made" });
    for (task, says) in [
        (
            json!({ "type": "workflow", "steps": [one, { "type": "deploy" }] }),
            "steps[1].type: must be one of run, checkout, env",
        ),
        (
            json!({ "type": "workflow", "steps": [one, { "run": "sleep 60", "timeout": 5 }] }),
            "steps[1].timeout: is not known; did you mean `timeout_seconds` or `timeout_minutes`?",
        ),
        (
            json!({ "jobs": { "a": { "steps": [one] }, "b": { "if": "false", "steps": [one] } } }),
            "jobs.b.if: is not known",
        ),
        (
            json!({ "steps": [one], "timeout_second": 5 }),
            "timeout_second: is not known; did you mean `timeout_seconds`?",
        ),
    ] {
        let outcome = Scene::new().await.task(&task).run().await;
        let error = outcome.refused("invalid_task");
        assert!(error["message"].as_str().unwrap().contains(says), "{error}");
        assert!(!outcome.scene.workspace().join("made").exists(), "{task}");
    }
}

#[tokio::test]
async fn settings_that_the_model_does_not_take_are_refused_before_it_is_asked() {
    for (key, value) in [
        ("thinking", json!({ "type": "disabled" })),
        ("thinking", json!({ "type": "enabled", "budget_tokens": 2000 })),
    ] {
        let mut task = json!({ "model": MODEL, "messages": [{ "role": "user", "content": "Hi" }] });
        task[key] = value.clone();
        let message = refusal(&task).await;
        assert!(message.contains(key) && message.contains(MODEL), "{value}: {message}");
    }
}

#[tokio::test]
async fn a_cost_limit_that_cannot_be_kept_is_refused() {
    let fields = json!({ "model": "a-gateways-own", "max_cost_usd": 1 });
    let scene = Scene::new().await.agent(fields, Vec::<support::Turn>::new()).await;
    let outcome = scene.env("ALLOWED_MODELS", "a-gateways-own").run().await;
    assert_eq!(outcome.finished.code, 2);
    let error = outcome.scene.api.terminal().unwrap();
    assert_eq!(error["code"], "invalid_task");
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("max_cost_usd: cannot be kept"),
        "{error}"
    );
}
