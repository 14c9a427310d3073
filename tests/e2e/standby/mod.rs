//! Standby: one runner, one task after the other, as the API server gives them.

mod drain;
mod ending;
mod lost;
mod names;
mod registering;
mod restart;
mod rotation;
mod workspace;

use serde_json::json;
use support::standby::{Standby, workflow};
use support::{Assignment, Turn};

#[tokio::test]
async fn tasks_run_one_after_the_other_each_with_its_own_events_and_ending() {
    let scene = Standby::new().await.model([Turn::says("Hello.")]).await;
    scene
        .api
        .assign(Assignment::new(11, workflow(&json!([{ "run": "echo one" }]))));
    let agent =
        json!({ "type": "agent", "model": support::scene::MODEL, "messages": [{ "role": "user", "content": "Go." }] });
    scene.api.assign(Assignment::new(12, agent));
    scene
        .api
        .assign(Assignment::new(13, workflow(&json!([{ "run": "exit 3" }]))));
    let ended = scene.tasks(3).run().await;
    assert_eq!(ended.finished.code, 0, "{}", ended.finished.stdout);
    ended.done(11);
    assert_eq!(ended.done(12)["turns"], 1);
    ended.failed(13, "step_failed");
    assert_eq!(ended.lines(11, 0), ["one"]);
    for id in [11, 12, 13] {
        let events = ended.scene.api.task(id).events();
        assert!(
            events.iter().all(|event| event["task_id"] == id),
            "an id goes back as the number that came"
        );
        assert_eq!(events[0]["seq"], 1, "each task counts from 1");
    }
}

#[tokio::test]
async fn a_task_comes_wrapped_without_type_or_with_a_path_in_place_of_a_url() {
    let scene = Standby::new().await.tasks(4);
    let task = |id| Assignment::new(id, workflow(&json!([{ "run": "echo ran" }])));
    scene.api.assign(task(1).wrapped());
    scene.api.assign(task(2).without_type().session("s-1"));
    scene.api.assign(task(3).with_path());
    scene.api.assign(task(4).without_type().wrapped().with_path());
    let ended = scene.run().await;
    for id in 1..=4 {
        ended.done(id);
        assert_eq!(ended.lines(id, 0), ["ran"]);
    }
}

#[tokio::test]
async fn an_invalid_task_gets_its_error_and_the_next_one_runs() {
    let scene = Standby::new().await.tasks(4);
    scene.api.assign(Assignment::new(
        1,
        json!({ "type": "workflow", "steps": [{ "runs": "x" }] }),
    ));
    scene.api.assign(Assignment::new(2, json!("no object")));
    scene.api.assign(Assignment::new(
        3,
        json!({ "type": "agent", "messages": [{ "role": "user", "content": "Go." }] }),
    ));
    let ended = scene.workflow(4, &json!([{ "run": "true" }])).run().await;
    let error = ended.failed(1, "invalid_task");
    assert!(error["message"].as_str().unwrap().contains("steps[0]"), "{error}");
    ended.failed(2, "invalid_task");
    // No key, and said as an active runner says it.
    ended.failed(3, "model_auth");
    ended.done(4);
    assert_eq!(ended.finished.code, 0);
}

#[tokio::test]
async fn nothing_of_one_task_is_visible_to_the_next() {
    let scene = Standby::new().await.tasks(2);
    let leave =
        "echo secret > file; echo secret > /tmp/file; mkdir -p deep/er; (setsid sleep 300 &) ; echo $HOME > home";
    let look = "ls -A; ls -A /tmp | grep -v '^home' || true; ps ax 2>/dev/null | grep -c '[s]leep 300' || true";
    let scene = scene
        .workflow(1, &json!([{ "run": leave }]))
        .workflow(2, &json!([{ "run": look }]));
    let ended = scene.run().await;
    ended.done(1);
    ended.done(2);
    let seen: Vec<String> = ended.lines(2, 0);
    assert!(
        !seen.iter().any(|line| line.contains("file") || line.contains("deep")),
        "{seen:?}"
    );
    assert_eq!(ended.scene.left(), [".plue-workspace"]);
}

#[tokio::test]
async fn a_flood_of_output_arrives_whole_through_both_processes() {
    let scene = Standby::new().await.tasks(1);
    let ended = scene.workflow(1, &json!([{ "run": "seq 1 200000" }])).run().await;
    ended.done(1);
    let lines = ended.lines(1, 0);
    assert_eq!(lines.len(), 200_000);
    assert!(
        lines
            .iter()
            .enumerate()
            .all(|(index, line)| *line == (index + 1).to_string())
    );
}
