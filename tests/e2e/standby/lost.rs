//! A worker that dies or hangs: its task ends all the same, and the runner goes on.

use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use serde_json::json;
use support::{Answer, ApiServer, Ending, Turn};

use support::standby::Standby;

fn send(process: i32, signal: Signal) {
    kill_process(Pid::from_raw(process).unwrap(), signal).unwrap();
}

#[tokio::test]
async fn a_worker_that_is_killed_loses_nothing_that_it_had_told() {
    let scene = Standby::new().await.tasks(2);
    let scene = scene
        .workflow(1, &json!([{ "run": "seq 1 1000; echo ready; sleep 300" }]))
        .workflow(2, &json!([{ "run": "echo next" }]));
    let running = scene.start();
    let ready = |event: &serde_json::Value| event["message"].as_str().is_some_and(|text| text.ends_with("ready"));
    scene.api.task(1).wait_for(ready).await;
    send(scene.worker(&running).await, Signal::KILL);
    let ended = scene.finish(running).await;
    let error = ended.failed(1, "worker_lost");
    assert!(error["message"].as_str().unwrap().contains("signal 9"), "{error}");
    let mut expected: Vec<String> = (1..=1000).map(|number| number.to_string()).collect();
    expected.push("ready".into());
    assert_eq!(ended.lines(1, 0), expected);
    // What was open has an end.
    assert_eq!(ended.scene.api.task(1).events_of("step_end")[0]["step_state"], "error");
    ended.done(2);
    assert_eq!(ended.lines(2, 0), ["next"]);
}

#[tokio::test]
async fn a_worker_that_is_killed_in_a_tool_ends_the_call_too() {
    let turn = Turn::says("I look.").call("t", "shell", json!({ "command": "touch started; sleep 300" }));
    let scene = Standby::new().await.model([turn]).await.tasks(1);
    let task = json!({ "type": "agent", "model": support::scene::MODEL, "tools": ["shell"],
        "messages": [{ "role": "user", "content": "Go." }] });
    scene.api.assign(support::Assignment::new(1, task));
    let running = scene.start();
    while !scene.workspace().join("started").exists() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    send(scene.worker(&running).await, Signal::KILL);
    let ended = scene.finish(running).await;
    ended.failed(1, "worker_lost");
    let end = &ended.scene.api.task(1).events_of("tool_end")[0];
    assert_eq!((&end["tool_id"], &end["tool_state"]), (&json!("t"), &json!("error")));
}

#[tokio::test]
async fn a_worker_that_hangs_is_ended() {
    let scene = Standby::new().await.tasks(2);
    let scene = scene
        .workflow(1, &json!([{ "run": "echo ready; sleep 300" }]))
        .workflow(2, &json!([{ "run": "true" }]));
    let running = scene.start();
    scene.api.task(1).wait_for(|event| event["type"] == "log").await;
    send(scene.worker(&running).await, Signal::STOP);
    let ended = scene.finish(running).await;
    let error = ended.failed(1, "worker_lost");
    assert!(error["message"].as_str().unwrap().contains("hung"), "{error}");
    ended.done(2);
}

#[tokio::test]
async fn a_worker_that_hangs_does_not_hold_up_a_signal() {
    let scene = Standby::new().await.env("SHUTDOWN_GRACE", "3");
    let scene = scene.workflow(1, &json!([{ "run": "echo ready; sleep 300" }]));
    let running = scene.start();
    scene.api.task(1).wait_for(|event| event["type"] == "log").await;
    send(scene.worker(&running).await, Signal::STOP);
    running.signal(Signal::TERM).unwrap();
    let ended = scene.finish(running).await;
    ended.failed(1, "cancelled");
    assert_eq!(ended.finished.code, 143);
}

#[tokio::test]
async fn a_worker_that_dies_while_it_waits_is_replaced() {
    let scene = Standby::new().await.tasks(1);
    let running = scene.start();
    scene.registered(2).await;
    let first = scene.worker(&running).await;
    send(first, Signal::KILL);
    let mut second = first;
    while second == first {
        tokio::time::sleep(Duration::from_millis(20)).await;
        second = scene.worker(&running).await;
    }
    scene.api.assign(support::Assignment::new(
        1,
        super::workflow(&json!([{ "run": "true" }])),
    ));
    scene.finish(running).await.done(1);
}

#[tokio::test]
async fn a_worker_whose_supervisor_is_killed_ends_with_everything_it_started() {
    let scene = Standby::new()
        .await
        .model([Turn::says("x").ending(Ending::Stall)])
        .await;
    let scene = scene.workflow(1, &json!([{ "run": "echo ready; sleep 300" }]));
    let running = scene.start();
    scene.api.task(1).wait_for(|event| event["type"] == "log").await;
    let worker = scene.worker(&running).await;
    send(running.id().unwrap().cast_signed(), Signal::KILL);
    for _ in 0..500 {
        if !std::path::Path::new(&format!("/proc/{worker}")).exists() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the worker lives on without its supervisor");
}

#[tokio::test]
async fn a_task_for_which_no_worker_can_be_started_has_its_error() {
    let late = Answer::Late(Duration::from_millis(1500), Box::new(Answer::Ok));
    let settings = ApiServer::with().answering_registrations(move |_| late.clone());
    let scene = Standby::with(settings).await;
    let plugins = scene.outside().join("plugins");
    std::fs::create_dir(&plugins).unwrap();
    let scene = scene
        .env("PLUGIN_DIR", &plugins.to_string_lossy())
        .workflow(1, &json!([{ "run": "true" }]));
    let running = scene.start();
    scene
        .api
        .wait_until("the task to be given", |api| api.waiting() == 0)
        .await;
    // The next worker finds a plugin that does not load.
    let broken = plugins.join("broken");
    std::fs::create_dir(&broken).unwrap();
    std::fs::write(broken.join("plugin.toml"), "name =").unwrap();
    send(scene.worker(&running).await, Signal::KILL);
    let ended = scene.finish(running).await;
    let error = ended.failed(1, "worker_lost");
    assert!(
        error["message"].as_str().unwrap().contains("no other can be started"),
        "{error}"
    );
    assert_eq!(ended.finished.code, 2, "{}", ended.finished.stdout);
}

#[tokio::test]
async fn a_worker_that_dies_while_the_server_thinks_costs_no_task() {
    let late = Answer::Late(Duration::from_millis(1500), Box::new(Answer::Ok));
    let settings = ApiServer::with().answering_registrations(move |_| late.clone());
    let scene = Standby::with(settings).await.tasks(1);
    let scene = scene.workflow(1, &json!([{ "run": "true" }]));
    let running = scene.start();
    scene
        .api
        .wait_until("the task to be given", |api| api.waiting() == 0)
        .await;
    send(scene.worker(&running).await, Signal::KILL);
    scene.finish(running).await.done(1);
}

#[tokio::test]
async fn a_task_for_which_no_worker_can_be_started_yet_has_its_ending_when_the_runner_is_told_to_go() {
    let late = Answer::Late(Duration::from_millis(3000), Box::new(Answer::Ok));
    let settings = ApiServer::with().answering_registrations(move |_| late.clone());
    let scene = Standby::with(settings).await;
    let running = scene.start();
    // It beats, so that it has every connection but the one for a task's events.
    scene.api.wait_until("a beat", |api| !api.heartbeats().is_empty()).await;
    let asked = scene.api.registrations().len();
    scene.api.assign(support::Assignment::new(
        1,
        super::workflow(&json!([{ "run": "true" }])),
    ));
    scene.registered(asked + 1).await;
    // The machine has no descriptors left. Those of the dead worker are enough for a connection, and not for a process.
    send(scene.worker(&running).await, Signal::KILL);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let supervisor = running.id().unwrap();
    let open: Vec<u64> = std::fs::read_dir(format!("/proc/{supervisor}/fd"))
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    let free = |limit: &u64| limit - open.iter().filter(|number| *number < limit).count() as u64;
    let few = Rlimit {
        current: (0..1024).rfind(|limit| free(limit) == 0),
        maximum: Some(1024),
    };
    prlimit(Pid::from_raw(supervisor.cast_signed()), Resource::Nofile, few).unwrap();
    scene
        .api
        .wait_until("the task to be given", |api| api.waiting() == 0)
        .await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    running.signal(Signal::TERM).unwrap();
    let ending = scene.ending(1).await;
    assert_eq!(ending["code"], "cancelled", "{ending}");
    let ended = scene.finish(running).await;
    assert_eq!(ended.finished.code, 143, "{}", ended.finished.stdout);
}
