//! Commands do not see the runner's environment, and no secret of it leaves.

use serde_json::json;
use support::Turn;

use support::scene::{Outcome, Scene};

const SECRETS: &[(&str, &str)] = &[
    ("CALLBACK_TOKEN", "callback-token-0123456789"),
    ("DATABASE_PASSWORD", "pw-0123456789-database"),
    ("SOMETHING", "an-ordinary-value-0123456789"),
];

/// What a command may see.
const ALLOWED: &[&str] = &[
    "PATH",
    "HOME",
    "LANG",
    "TERM",
    "CI",
    "PWD",
    "OLDPWD",
    "SHLVL",
    "_",
    "LC_ALL",
    "USER",
    "LOGNAME",
    "SHELL",
    "TMPDIR",
    "EMAIL",
    "GIT_CONFIG_COUNT",
    "GIT_CONFIG_KEY_0",
    "GIT_CONFIG_VALUE_0",
];

async fn scene() -> Scene {
    let scene = Scene::with(support::ApiServer::with().token(SECRETS[0].1)).await;
    SECRETS
        .iter()
        .fold(scene, |scene, (name, value)| scene.env(name, value))
}

fn check(outcome: &Outcome, environment: &str) {
    for line in environment.lines().filter(|line| line.contains('=')) {
        let name = line.split('=').next().unwrap();
        assert!(ALLOWED.contains(&name), "a command sees {line}");
    }
    assert!(environment.contains("PATH="), "{environment}");
    let said = format!(
        "{:?}{}{}",
        outcome.events(),
        outcome.finished.stdout,
        outcome.finished.stderr
    );
    for (name, value) in SECRETS {
        assert!(!said.contains(value), "{name} has left: {said}");
    }
}

#[tokio::test]
async fn a_step_sees_a_clean_environment() {
    let scene = scene().await.env("ANTHROPIC_API_KEY", support::claude::KEY);
    let outcome = scene.workflow(&json!([{ "run": "env" }])).run().await;
    outcome.done();
    check(&outcome, &outcome.lines("stdout", 0).join("\n"));
}

#[tokio::test]
async fn the_shell_tool_sees_a_clean_environment() {
    let turns = [
        Turn::new().call("t", "shell", json!({ "command": "env" })),
        Turn::says("Done."),
    ];
    let outcome = scene()
        .await
        .agent(json!({ "tools": ["shell"] }), turns)
        .await
        .run()
        .await;
    outcome.done();
    let text = outcome.events_of("tool_end")[0]["output"].as_str().unwrap().to_owned();
    check(&outcome, text.split_once("STDERR:").unwrap().0);
}

#[tokio::test]
async fn a_command_gets_no_open_file_of_the_runner_and_leads_its_own_session() {
    let list = "ls /proc/self/fd | tr '\\n' ' '";
    let script = format!("{list}; echo; cut -d ' ' -f 1,6 /proc/$$/stat");
    let outcome = Scene::new().await.workflow(&json!([{ "run": script }])).run().await;
    outcome.done();
    let lines = outcome.lines("stdout", 0);
    // The three of every program, and the folder that `ls` reads. What this test was started with is not among them.
    assert_eq!(lines[0], "0 1 2 3 ");
    let (pid, session) = lines[1].split_once(' ').unwrap();
    assert_eq!(pid, session, "the shell leads its session");
}
