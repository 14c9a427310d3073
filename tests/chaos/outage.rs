//! A callback that is away for a while, and comes back.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use support::{Answer, ApiServer};

use crate::proxy::Proxy;
use crate::seed::each_seed;
use support::scene::Scene;
use support::standby::Standby;

/// Half a minute by a clock that runs ten times as fast: the first wait of the retry rule is 50 ms in place of 500.
const AWAY: Duration = Duration::from_secs(3);

#[tokio::test]
async fn a_callback_that_is_away_for_half_a_minute_misses_nothing() {
    each_seed(|seed| async move {
        let scene = Scene::with(ApiServer::with()).await;
        let (mut way, url) = Proxy::to(&scene.api.url()).await;
        let script = "for i in $(seq 1 150); do echo line $i; sleep 0.01; done";
        let scene = scene
            .workflow(&json!([{ "run": script }, { "run": "echo last" }]))
            .env("CALLBACK_URL", &url)
            .env("CALLBACK_RETRY_BASE_MS", "50");
        let running = scene.start();
        tokio::time::sleep(seed.of("when").up_to(Duration::from_millis(1500))).await;
        // What is on its way is not taken, so that nothing is taken whose answer is lost with the connection.
        scene.api.answer(|_| Answer::Cut);
        tokio::time::sleep(Duration::from_millis(50)).await;
        way.down().await;
        tokio::time::sleep(AWAY).await;
        scene.api.answer(|_| Answer::Ok);
        way.up().await;
        let outcome = scene.finish(running).await;
        let done = outcome.done();
        assert!(done.get("lost_events").is_none(), "{done}");
        let expected: Vec<String> = (1..=150).map(|line| format!("line {line}")).collect();
        assert_eq!(outcome.lines("stdout", 0), expected);
        assert_eq!(outcome.lines("stdout", 1), ["last"]);
    })
    .await;
}

/// What it waits between two attempts does not grow with the time that the server is away: tasks wait for it when it is
/// back.
#[tokio::test]
async fn an_idle_runner_is_there_soon_after_a_long_outage() {
    let scene = Standby::new().await.env("CALLBACK_RETRY_BASE_MS", "500");
    let (mut way, url) = Proxy::to(&scene.api.register_url()).await;
    let scene = scene.env("REGISTER_URL", &url);
    let running = scene.start();
    scene.registered(1).await;
    way.down().await;
    let asked = scene.api.registrations().len();
    tokio::time::sleep(Duration::from_secs(18)).await;
    way.up().await;
    // Within 5 s and the time that a busy machine takes; waits that double would be half-way from 15.5 s to 31.5 s now.
    tokio::time::timeout(Duration::from_secs(9), scene.registered(asked + 1))
        .await
        .expect("the runner asks again");
    running.signal(Signal::TERM).unwrap();
    scene.finish_under_names(running).await;
}
