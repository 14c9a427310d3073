//! What the runner tells of itself: the log's levels by module, and traces and metrics for a collector.

use serde_json::{Value, json};
use support::api_server::Settings;
use support::claude::KEY;
use support::collector::{Attributes, Collector, Received};
use support::{ApiServer, Turn};

use support::scene::{Outcome, Scene};

mod carried;
mod collector;
mod log_levels;
mod spans;

async fn traced() -> (Scene, Collector) {
    traced_by(ApiServer::with()).await
}

async fn traced_by(api: Settings) -> (Scene, Collector) {
    let collector = Collector::start().await.unwrap();
    let scene = Scene::with(api).await;
    (scene.env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url()), collector)
}

/// What the collector has, after checks that hold for every run.
fn told(collector: &Collector) -> Received {
    let received = collector.received();
    assert_eq!(received.problems, Vec::<String>::new());
    for (path, headers, body) in &received.requests {
        assert!(!String::from_utf8_lossy(body).contains(KEY), "the key is in {path}");
        assert!(
            !format!("{headers:?}").contains(KEY),
            "the key is in the headers of {path}"
        );
    }
    received
}

#[track_caller]
fn assert_says(attributes: &Attributes, expected: &[(&str, Value)]) {
    for (name, value) in expected {
        assert_eq!(attributes.get(*name), Some(value), "{name} in {attributes:#?}");
    }
}

/// An agent that reads a file that is there and one that is not.
async fn agent_with_tools(scene: Scene) -> Outcome {
    let mut first = Turn::new()
        .call("t1", "read_file", json!({ "path": "notes.txt" }))
        .call("t2", "read_file", json!({ "path": "missing.txt" }));
    first.usage = [100, 20, 30, 4];
    let scene = scene.file("notes.txt", "what the notes say");
    scene
        .agent(
            json!({ "tools": ["read_file"], "max_tokens": 1000 }),
            [first, Turn::says("Done.")],
        )
        .await
        .run()
        .await
}
