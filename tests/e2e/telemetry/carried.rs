//! The trace that a task belongs to: taken, and carried on.

use serde_json::{Value, json};
use support::collector::Span;

use super::{agent_with_tools, told, traced};
use support::scene::{MODEL, Scene};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn traceparent(span: &Span) -> String {
    format!("00-{}-{}-01", span.trace, span.id)
}

#[tokio::test]
async fn the_trace_goes_on_from_traceparent_to_the_model_and_the_callback() {
    let (scene, collector) = traced().await;
    let outcome = agent_with_tools(scene.env("TRACEPARENT", PARENT)).await;
    outcome.done();
    let told = told(&collector);
    let task = told.span("task");
    assert_eq!((task.trace.as_str(), task.parent.as_str()), (TRACE, "00f067aa0ba902b7"));
    let chats = told.spans_of(&format!("chat {MODEL}"));
    let requests = outcome.model().requests();
    assert_eq!((requests.len(), chats.len()), (2, 2));
    for (request, chat) in requests.iter().zip(chats) {
        assert_eq!(request.headers["traceparent"], traceparent(chat).as_str());
    }
    for attempt in outcome.scene.api.attempts() {
        assert_eq!(
            attempt.headers["traceparent"],
            traceparent(task).as_str(),
            "{}",
            attempt.event
        );
    }
}

#[tokio::test]
async fn a_trace_that_is_not_sampled_is_carried_on_and_not_exported() {
    let (scene, collector) = traced().await;
    let unsampled = PARENT.replace("-01", "-00");
    let outcome = agent_with_tools(scene.env("TRACEPARENT", &unsampled)).await;
    outcome.done();
    assert!(told(&collector).spans.is_empty());
    for request in outcome.model().requests() {
        let context = request.headers["traceparent"].to_str().unwrap();
        assert!(
            context.starts_with(&format!("00-{TRACE}-")) && context.ends_with("-00"),
            "{context}"
        );
    }
}

#[tokio::test]
async fn without_a_collector_traceparent_is_carried_on_as_it_came() {
    let outcome = agent_with_tools(Scene::new().await.env("TRACEPARENT", PARENT)).await;
    outcome.done();
    for request in outcome.model().requests() {
        assert_eq!(request.headers["traceparent"], PARENT);
    }
    for attempt in outcome.scene.api.attempts() {
        assert_eq!(attempt.headers["traceparent"], PARENT);
    }
    let outcome = agent_with_tools(Scene::new().await).await;
    assert!(
        outcome
            .model()
            .requests()
            .iter()
            .all(|request| !request.headers.contains_key("traceparent"))
    );
    let attempts = outcome.scene.api.attempts();
    assert!(
        attempts
            .iter()
            .all(|attempt| !attempt.headers.contains_key("traceparent"))
    );
}

#[tokio::test]
async fn a_malformed_traceparent_is_a_warning_and_ignored() {
    let scene = Scene::new().await.env("TRACEPARENT", "00-xyz-01");
    let outcome = scene.workflow(&json!([{ "run": "true" }])).run().await;
    outcome.done();
    let warnings: Vec<&Value> = outcome
        .finished
        .log
        .iter()
        .filter(|line| line["level"] == "WARNING")
        .collect();
    assert_eq!(warnings.len(), 1, "{}", outcome.finished.stdout);
    assert!(warnings[0]["message"].as_str().unwrap().contains("TRACEPARENT"));
    for attempt in outcome.scene.api.attempts() {
        assert!(!attempt.headers.contains_key("traceparent"));
    }
}
