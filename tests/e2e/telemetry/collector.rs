//! The way to the collector: where it goes, what goes along, and what happens when nobody is there.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::Turn;
use support::claude::KEY;
use support::collector::{Collector, Mood};

use super::{agent_with_tools, assert_says, told, traced};
use support::scene::Scene;

#[tokio::test]
async fn headers_and_attributes_go_to_the_collector_and_no_secret_is_told_to_it() {
    let (scene, collector) = traced().await;
    let token = "collector-token-0123456789";
    let turns = [
        Turn::new().call(KEY, &format!("tool-{KEY}"), json!({ "command": KEY })),
        Turn::says("Done."),
    ];
    let outcome = scene
        .env(
            "OTEL_EXPORTER_OTLP_HEADERS",
            &format!("authorization=Bearer%20{token},x-tenant=blue"),
        )
        .env("OTEL_SERVICE_NAME", "fleet")
        .env(
            "OTEL_RESOURCE_ATTRIBUTES",
            &format!("deployment.environment.name=staging,note={KEY}"),
        )
        .agent(json!({}), turns)
        .await
        .run()
        .await;
    outcome.done();
    let told = told(&collector);
    for (_, headers, _) in &told.requests {
        assert_eq!(headers["authorization"], format!("Bearer {token}"));
        assert_eq!(headers["x-tenant"], "blue");
    }
    let call = told.span("execute_tool tool-***");
    assert_says(
        &call.attributes,
        &[
            ("gen_ai.tool.name", json!("tool-***")),
            ("gen_ai.tool.call.id", json!("***")),
            ("error.type", json!("unknown_tool")),
        ],
    );
    assert_says(
        &told.resource,
        &[
            ("service.name", json!("fleet")),
            ("deployment.environment.name", json!("staging")),
            ("note", json!("***")),
        ],
    );
    assert!(!outcome.finished.stdout.contains(token));
}

#[tokio::test]
async fn no_other_variable_changes_where_traces_go_and_what_is_in_them() {
    let (mut scene, collector) = traced().await;
    let elsewhere = Collector::start().await.unwrap();
    let other = elsewhere.url();
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", other.as_str()),
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", other.as_str()),
        ("HTTP_PROXY", other.as_str()),
        ("http_proxy", other.as_str()),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "x-other=1"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_TRACES_SAMPLER", "always_off"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "0"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "1"),
    ] {
        scene = scene.env(name, value);
    }
    let outcome = agent_with_tools(scene).await;
    outcome.done();
    let told = told(&collector);
    assert_eq!(told.spans.len(), 6);
    assert!(told.spans.iter().all(|span| !span.attributes.is_empty()));
    assert!(
        told.requests
            .iter()
            .all(|(_, headers, _)| !headers.contains_key("x-other"))
    );
    assert!(!told.points.is_empty());
    assert!(elsewhere.received().requests.is_empty());
}

#[tokio::test]
async fn a_collector_that_is_down_slow_or_wrong_changes_nothing_of_a_task_but_one_warning() {
    /// The bound on the flush, and what a slow machine may add.
    const BOUND: Duration = Duration::from_millis(3000 + 2000);
    let closed = support::loopback::closed_port().await.unwrap();
    let moods = [
        Mood::Silent,
        Mood::Status(503),
        Mood::Status(400),
        Mood::Redirect,
        Mood::Garbage,
    ];
    let mut doubles = Vec::new();
    for mood in moods {
        doubles.push((format!("{mood:?}"), Some(Collector::in_mood(mood).await.unwrap())));
    }
    doubles.push(("nobody".into(), None));
    let runs = doubles.into_iter().map(|(name, collector)| async move {
        let url = collector
            .as_ref()
            .map_or_else(|| format!("http://{closed}"), Collector::url);
        let scene = Scene::new().await.env("OTEL_EXPORTER_OTLP_ENDPOINT", &url);
        let outcome = agent_with_tools(scene).await;
        outcome.done();
        let kinds: Vec<String> = outcome.events().iter().map(|event| event["type"].to_string()).collect();
        let ended = outcome.scene.api.attempts().last().unwrap().at;
        let warnings = outcome.finished.log.iter().filter(|line| line["level"] == "WARNING");
        let warnings: Vec<Value> = warnings.cloned().collect();
        let expected = usize::from(name != "Garbage");
        assert_eq!(warnings.len(), expected, "{name}: {}", outcome.finished.stdout);
        for warning in &warnings {
            assert!(
                warning["message"].as_str().unwrap().contains("the collector"),
                "{warning}"
            );
        }
        let late = outcome.finished.ended - ended;
        assert!(late < BOUND, "{name}: the process ended {late:?} after its task");
        let elsewhere = collector
            .map(|collector| collector.received().requests)
            .unwrap_or_default();
        assert!(
            elsewhere.iter().all(|(path, ..)| path != "/elsewhere"),
            "a redirect was followed"
        );
        (name, kinds)
    });
    let mut results = futures::future::join_all(runs).await;
    let (_, expected) = results.pop().unwrap();
    for (name, kinds) in results {
        assert_eq!(kinds, expected, "{name}");
    }
}

#[tokio::test]
async fn after_a_second_signal_nobody_waits_for_the_collector() {
    let collector = Collector::in_mood(Mood::Silent).await.unwrap();
    let scene = Scene::new().await.env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url());
    let scene = scene.workflow(&json!([{ "run": "trap '' TERM; echo ready; while :; do sleep 1; done" }]));
    let running = scene.start();
    scene.api.wait_for(|event| event["type"] == "log").await;
    running.signal(Signal::TERM).unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    running.signal(Signal::TERM).unwrap();
    let outcome = scene.finish(running).await;
    assert_eq!(outcome.finished.code, 143, "{}", outcome.finished.stdout);
    let told = outcome.scene.api.attempts().last().unwrap().at;
    let late = outcome.finished.ended - told;
    // One that waited would have waited for the export to time out, which takes 2.5 s.
    assert!(
        late < Duration::from_secs(2),
        "the process ended {late:?} after its task"
    );
}
