//! A callback that is away for a while, and comes back.

use std::time::Duration;

use serde_json::json;
use support::{Answer, ApiServer};

use crate::harness::Scene;
use crate::proxy::Proxy;
use crate::seed::each_seed;

/// Half a minute by a clock that runs ten times as fast: the first wait of the retry rule is 50 ms in place of 500.
const AWAY: Duration = Duration::from_secs(3);

#[tokio::test]
async fn a_callback_that_is_away_for_half_a_minute_misses_nothing() {
    each_seed(|seed| async move {
        let scene = Scene::with(ApiServer::with()).await;
        let url: String = scene.api.url();
        let address = url
            .trim_start_matches("http://")
            .split('/')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        let mut way = Proxy::open(address).await;
        let url = url.replace(&address.to_string(), &way.address().to_string());
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
