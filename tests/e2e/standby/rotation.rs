//! Secrets that are replaced while a runner stands by: it goes on with the new ones, and tells neither.

use rustix::process::Signal;
use serde_json::{Value, json};
use support::claude::KEY;
use support::{ApiServer, Assignment, Turn};

use crate::secret_files::Volume;
use support::scene::MODEL;
use support::standby::{Standby, workflow};

const OLD: &str = "former-token-0123456789";
const NEW: &str = "present-token-0123456789";
const NEW_KEY: &str = "sk-ant-present-0123456789abcdef";

fn agent() -> Value {
    json!({ "type": "agent", "model": MODEL, "messages": [{ "role": "user", "content": "Go." }] })
}

/// A standby runner whose token is a file.
async fn scene() -> (Standby, Volume) {
    let scene = Standby::with(ApiServer::with().token(OLD)).await;
    let volume = Volume::new(scene.outside().join("secrets"), &[("TOKEN", OLD), ("KEY", KEY)]);
    let scene = scene.env("CALLBACK_TOKEN_FILE", &volume.path("TOKEN"));
    (scene, volume)
}

#[tokio::test]
async fn a_key_that_is_replaced_counts_for_the_next_task_and_neither_is_told() {
    let (scene, mut volume) = scene().await;
    let scene = scene
        .model([Turn::says("One."), Turn::says(&format!("Two {KEY} {NEW_KEY}."))])
        .await;
    // An empty variable is none.
    let scene = scene
        .env("ANTHROPIC_API_KEY", "")
        .env("ANTHROPIC_API_KEY_FILE", &volume.path("KEY"));
    scene.api.assign(Assignment::new(1, agent()));
    let running = scene.start();
    scene.ending(1).await;
    // The next worker waits already, with the key from before.
    let asked = scene.api.registrations().len();
    scene.registered(asked + 1).await;
    volume.swap(&[("TOKEN", OLD), ("KEY", &format!("{NEW_KEY}\n"))]);
    let model = scene.model.as_ref().unwrap();
    model.change_key(NEW_KEY);
    model.begin_anew();
    scene.api.assign(Assignment::new(2, agent()));
    scene.ending(2).await;
    // One that was started after that knows the former key from its supervisor.
    let script = format!("echo {KEY} {NEW_KEY}");
    scene
        .api
        .assign(Assignment::new(3, workflow(&json!([{ "run": script }]))));
    scene.ending(3).await;
    running.signal(Signal::TERM).unwrap();
    let ended = scene.finish(running).await;
    for id in [1, 2, 3] {
        ended.done(id);
    }
    let said: String = ended
        .scene
        .api
        .task(2)
        .events_of("token")
        .iter()
        .map(Value::to_string)
        .collect();
    assert!(!said.contains("sk-ant-"), "{said}");
    assert_eq!(ended.lines(3, 0), ["*** ***"]);
    assert!(!ended.finished.stdout.contains(NEW_KEY), "{}", ended.finished.stdout);
}

#[tokio::test]
async fn a_token_that_is_replaced_ends_no_runner_that_is_idle_or_at_work() {
    let (scene, mut volume) = scene().await;
    let script = "echo begun; while ! test -e go; do sleep 0.05; done; echo on";
    scene
        .api
        .assign(Assignment::new(1, workflow(&json!([{ "run": script }]))));
    let running = scene.start();
    let begun = |event: &Value| event["message"].as_str() == Some("begun");
    scene.api.task(1).wait_for(begun).await;
    // The server is first, as servers are: it takes one token, and the file comes later.
    volume.swap(&[("TOKEN", NEW), ("KEY", KEY)]);
    scene.api.change_token(NEW);
    let beats = scene.api.heartbeats().len();
    scene
        .api
        .wait_until("a beat", |api| api.heartbeats().len() > beats)
        .await;
    std::fs::write(scene.workspace().join("go"), "").unwrap();
    scene.ending(1).await;
    let asked = scene.api.registrations().len();
    scene.registered(asked + 2).await;
    scene.api.assign(Assignment::new(
        2,
        workflow(&json!([{ "run": format!("echo {OLD} {NEW}") }])),
    ));
    scene.ending(2).await;
    running.signal(Signal::TERM).unwrap();
    let ended = scene.finish(running).await;
    ended.done(1);
    ended.done(2);
    assert_eq!(ended.lines(1, 0), ["begun", "on"]);
    assert_eq!(ended.lines(2, 0), ["*** ***"]);
    for token in [OLD, NEW] {
        assert!(!ended.finished.stdout.contains(token), "{}", ended.finished.stdout);
    }
}

#[tokio::test]
async fn a_401_with_the_token_that_is_in_the_file_is_a_configuration_error() {
    let (scene, _volume) = scene().await;
    scene.api.change_token(NEW);
    let ended = scene.run().await;
    assert_eq!(ended.finished.code, 2, "{}", ended.finished.stdout);
    assert!(
        ended.finished.stdout.contains("CALLBACK_TOKEN_FILE"),
        "{}",
        ended.finished.stdout
    );
}

#[tokio::test]
async fn while_a_file_cannot_be_read_the_secret_from_before_counts() {
    let (scene, mut volume) = scene().await;
    scene
        .api
        .assign(Assignment::new(1, workflow(&json!([{ "run": "true" }]))));
    let running = scene.start();
    scene.ending(1).await;
    let asked = scene.api.registrations().len();
    scene.registered(asked + 1).await;
    // The worker of the next task waits already.
    volume.swap(&[("TOKEN", "")]);
    scene
        .api
        .assign(Assignment::new(2, workflow(&json!([{ "run": "true" }]))));
    scene.ending(2).await;
    volume.swap(&[("TOKEN", OLD)]);
    scene
        .api
        .assign(Assignment::new(3, workflow(&json!([{ "run": "true" }]))));
    scene.ending(3).await;
    running.signal(Signal::TERM).unwrap();
    let ended = scene.finish(running).await;
    for id in [1, 2, 3] {
        ended.done(id);
    }
    assert!(
        ended.finished.stdout.contains("what was read before counts"),
        "{}",
        ended.finished.stdout
    );
}
