//! `plue-runner drain`: a runner that is to go finishes what it has, and takes nothing more.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use support::{Answer, ApiServer, Assignment, Finished, RunnerProcess};

use support::scene::Scene;
use support::standby::{Standby, workflow};

/// The command beside this runner.
async fn drain(scene: &Standby, arguments: &[&str]) -> Finished {
    let spool = scene.outside().join("spool");
    RunnerProcess::built()
        .args(&[&["drain"], arguments].concat())
        .env("SPOOL_DIR", spool.to_string_lossy())
        .run()
        .await
        .unwrap()
}

#[tokio::test]
async fn a_drained_runner_finishes_its_task_and_takes_no_other() {
    let scene = Standby::new()
        .await
        .workflow(4, &json!([{ "run": "echo ready; sleep 1; echo whole" }]));
    let running = scene.start();
    scene.api.task(4).wait_for(|event| event["type"] == "log").await;
    scene
        .api
        .assign(Assignment::new(5, workflow(&json!([{ "run": "true" }]))));
    // A runner that has ended is gone when somebody has waited for it, as the kernel does for the first process of a
    // pod.
    let (drained, ended) = tokio::join!(drain(&scene, &[]), running.finish());
    let ended = ended.unwrap();
    assert_eq!((ended.code, drained.code), (0, 0), "{}{}", ended.stdout, drained.stdout);
    assert!(drained.stdout.contains("has ended"), "{}", drained.stdout);
    assert_eq!(scene.ending(4).await["type"], "done", "{}", ended.stdout);
    assert_eq!(scene.api.task(4).final_violations(), Vec::<String>::new());
    assert_eq!(scene.api.waiting(), 1, "the next task is for another runner");
    assert_eq!(scene.left(), [".plue-workspace"]);
}

#[tokio::test]
async fn an_idle_runner_that_is_drained_ends_at_once() {
    let scene = Standby::new().await;
    let running = scene.start();
    scene.registered(2).await;
    let (drained, ended) = tokio::join!(drain(&scene, &[]), running.finish());
    assert_eq!((ended.unwrap().code, drained.code), (0, 0), "{}", drained.stdout);
}

#[tokio::test]
async fn draining_has_an_end_of_its_own_and_the_task_another() {
    let scene = Standby::new()
        .await
        .workflow(4, &json!([{ "run": "echo ready; sleep 300" }]));
    let running = scene.start();
    scene.api.task(4).wait_for(|event| event["type"] == "log").await;
    let drained = drain(&scene, &["--at-most", "1"]).await;
    assert_eq!(drained.code, 1, "{}", drained.stdout);
    assert!(drained.stdout.contains("still at work after 1 s"), "{}", drained.stdout);
    running.signal(Signal::TERM).unwrap();
    let ended = scene.finish(running).await;
    assert_eq!(ended.finished.code, 143);
    ended.failed(4, "cancelled");
}

#[tokio::test]
async fn who_drains_where_no_runner_is_hears_so_and_nobody_else_is_told() {
    let scene = Standby::new().await;
    let drained = drain(&scene, &[]).await;
    assert_eq!(drained.code, 1);
    assert!(drained.stdout.contains("no runner has"), "{}", drained.stdout);
    // What a runner has left that was killed, and whose number another process has now.
    let mut other = tokio::process::Command::new("sleep")
        .arg("60")
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    for (updated, expected) in [(1000, "has said nothing"), (now.as_millis(), "is no runner")] {
        let report = json!({ "state": "idle", "pid": other.id().unwrap(), "updated_ms": updated as u64 });
        let spool = scene.outside().join("spool");
        std::fs::write(spool.join("plue-runner-health.json"), report.to_string()).unwrap();
        let drained = drain(&scene, &["--at-most", "5"]).await;
        assert_eq!(drained.code, 1);
        assert!(drained.stdout.contains(expected), "{}", drained.stdout);
    }
    assert!(other.try_wait().unwrap().is_none(), "another process was told to drain");
}

#[tokio::test]
async fn a_task_that_a_held_question_brings_is_kept() {
    let late = Answer::Late(Duration::from_secs(5), Box::new(Answer::Ok));
    let settings = ApiServer::with().answering_registrations(move |_| late.clone());
    let scene = Standby::with(settings).await.workflow(4, &json!([{ "run": "true" }]));
    let running = scene.start();
    scene
        .api
        .wait_until("the task to be given", |api| api.waiting() == 0)
        .await;
    let (drained, ended) = tokio::join!(drain(&scene, &[]), running.finish());
    assert_eq!((ended.unwrap().code, drained.code), (0, 0), "{}", drained.stdout);
    assert_eq!(scene.api.task(4).terminal().unwrap()["type"], "done");
}

#[tokio::test]
async fn a_runner_that_hangs_is_not_waited_for() {
    let scene = Standby::new()
        .await
        .workflow(4, &json!([{ "run": "echo ready; sleep 300" }]));
    let running = scene.start();
    scene.api.task(4).wait_for(|event| event["type"] == "log").await;
    running.signal(Signal::STOP).unwrap();
    // It is known after 30 s.
    let drained = drain(&scene, &["--at-most", "120"]).await;
    assert_eq!(drained.code, 1, "{}", drained.stdout);
    assert!(drained.stdout.contains("has said nothing"), "{}", drained.stdout);
    // As kubelet does at the end; a runner that went on would tell again what it did not hear the answer to.
    running.signal(Signal::KILL).unwrap();
    drop(running);
}

#[tokio::test]
async fn a_runner_of_one_task_has_nothing_to_drain_and_is_not_disturbed() {
    let scene = Scene::new()
        .await
        .workflow(&json!([{ "run": "echo ready; sleep 1; echo whole" }]));
    let running = scene.start();
    scene.api.wait_for(|event| event["type"] == "log").await;
    running.signal(Signal::USR1).unwrap();
    let outcome = scene.finish(running).await;
    outcome.done();
    assert_eq!(outcome.lines("stdout", 0), ["ready", "whole"]);
}
