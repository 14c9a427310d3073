//! Signals and kills at any time: of the runner, of its worker, of the sandbox and of what runs in it.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use support::processes::below;
use support::{Assignment, Turn};

use crate::seed::{Seed, each_seed};
use support::scene::Scene;
use support::standby::{Standby, worker_of, workflow};

/// A time within a task that takes about a second.
fn sometime(seed: Seed) -> Duration {
    seed.of("when").up_to(Duration::from_millis(1100))
}

/// An agent with calls, or a workflow with steps.
async fn some_task(seed: Seed, scene: Scene) -> Scene {
    if seed.of("kind").percent(50) {
        let command = json!({ "command": "for i in 1 2 3 4; do echo $i; sleep 0.1; done" });
        let turns = [
            Turn::says("First. ").call("t1", "shell", command.clone()),
            Turn::says("Second. ").call("t2", "shell", command),
            Turn::says("Done."),
        ];
        return scene.agent(json!({ "tools": ["shell"] }), turns).await;
    }
    let script = "for i in 1 2 3 4; do echo $i; sleep 0.1; done";
    scene.workflow(&json!([{ "run": script }, { "run": script }, { "run": "echo last" }]))
}

fn kill(process: i32) {
    // It may have ended meanwhile.
    let _ = kill_process(Pid::from_raw(process).unwrap(), Signal::KILL);
}

#[tokio::test]
async fn a_runner_that_is_told_to_stop_at_any_time_tells_one_ending() {
    each_seed(|seed| async move {
        let scene = some_task(seed, Scene::new().await).await;
        let running = scene.start();
        tokio::time::sleep(sometime(seed)).await;
        let told = running.signal(Signal::TERM).is_ok();
        let outcome = scene.finish(running).await;
        let code = outcome.finished.code;
        if code == -15 {
            // Before it could listen. Nothing was accepted, and nobody was told of anything.
            assert_eq!(outcome.events().len(), 0);
            return;
        }
        assert_eq!(
            outcome.scene.api.final_violations(),
            Vec::<String>::new(),
            "{}",
            outcome.finished.stdout
        );
        let ending = outcome.scene.api.terminal().unwrap();
        if ending["type"] == "done" {
            assert_eq!(code, 0, "the task was over already");
        } else {
            assert!(told);
            assert_eq!((&ending["code"], code), (&json!("cancelled"), 143), "{ending}");
        }
        assert_eq!(outcome.scene.left_running(), [""; 0]);
    })
    .await;
}

#[tokio::test]
async fn whatever_is_killed_of_a_tool_or_a_step_the_task_has_one_ending() {
    each_seed(|seed| async move {
        let scene = some_task(seed, Scene::new().await).await;
        let agent = scene.model.is_some();
        let running = scene.start();
        tokio::time::sleep(sometime(seed)).await;
        let mut processes = running.id().map(|id| below(id.cast_signed())).unwrap_or_default();
        processes.sort();
        let victim = if processes.is_empty() {
            None
        } else {
            Some(seed.of("who").pick(&processes).clone())
        };
        if let Some((id, _)) = &victim {
            kill(*id);
        }
        let outcome = scene.finish(running).await;
        let context = format!("killed {victim:?}\n{}", outcome.finished.stdout);
        assert_eq!(outcome.scene.api.final_violations(), Vec::<String>::new(), "{context}");
        let ending = outcome.scene.api.terminal().unwrap();
        // A tool that is killed is a failed call, and the agent goes on. A step that is killed fails, and so does its
        // task.
        let code = ending["code"].as_str().unwrap_or("done");
        let expected: &[&str] = if agent {
            &["done"]
        } else {
            &["done", "step_failed", "sandbox"]
        };
        assert!(expected.contains(&code), "{ending}\n{context}");
        if agent {
            assert_eq!(outcome.events_of("tool_end").len(), 2, "{context}");
            assert_eq!(outcome.text(), "First. Second. Done.");
        }
        assert_eq!(outcome.scene.left_running(), [""; 0], "{context}");
    })
    .await;
}

#[tokio::test]
async fn a_worker_that_is_killed_at_any_time_costs_its_task_and_no_other() {
    each_seed(|seed| async move {
        let scene = Standby::new().await.tasks(2);
        let script = "for i in $(seq 1 40); do echo $i; sleep 0.02; done";
        let scene = scene
            .workflow(1, &json!([{ "run": script }, { "run": "echo last" }]))
            .workflow(2, &json!([{ "run": "echo next" }]));
        let running = scene.start();
        scene
            .api
            .wait_until("the first task to be given", |api| api.waiting() < 2)
            .await;
        tokio::time::sleep(sometime(seed)).await;
        // Between two tasks there is none, and at the end there is no runner any more.
        if let Some(worker) = running.id().and_then(worker_of) {
            kill(worker);
        }
        let ended = scene.finish(running).await;
        let ending = ended.ending(1);
        let lines = ended.lines(1, 0);
        assert!(
            lines
                .iter()
                .enumerate()
                .all(|(index, line)| *line == (index + 1).to_string()),
            "{lines:?}"
        );
        if ending["type"] == "error" {
            assert_eq!(ending["code"], "worker_lost", "{ending}");
        } else {
            assert_eq!(lines.len(), 40);
        }
        // When the first was over already, it was the worker of the second that died, or one that waited for it.
        let second = ended.ending(2);
        if second["type"] == "error" {
            assert_eq!(
                (&second["code"], &ending["type"]),
                (&json!("worker_lost"), &json!("done"))
            );
        }
        assert_eq!(ended.finished.code, 0, "{}", ended.finished.stdout);
        assert_eq!(ended.scene.left(), [".plue-workspace"]);
    })
    .await;
}

#[tokio::test]
async fn a_standby_runner_that_is_told_to_stop_at_any_time_tells_one_ending_for_each_task() {
    each_seed(|seed| async move {
        let scene = Standby::new().await;
        for id in 1..=4 {
            let script = "for i in 1 2; do echo $i; sleep 0.1; done";
            scene
                .api
                .assign(Assignment::new(id, workflow(&json!([{ "run": script }]))));
        }
        let running = scene.start();
        scene.registered(1).await;
        tokio::time::sleep(sometime(seed)).await;
        running.signal(Signal::TERM).unwrap();
        let ended = scene.finish(running).await;
        assert_eq!(ended.finished.code, 143, "{}", ended.finished.stdout);
        let given = 4 - ended.scene.api.waiting() as i64;
        for id in 1..=given {
            let ending = ended.ending(id);
            let cancelled = ending["code"] == "cancelled";
            assert!(
                ending["type"] == "done" || (cancelled && id == given),
                "{id} of {given}: {ending}"
            );
        }
        assert_eq!(ended.scene.left(), [".plue-workspace"]);
    })
    .await;
}
