//! What is told of a task: its spans and its metrics.

use serde_json::json;
use support::collector::Span;
use support::{Answer, ApiServer, Reply};

use super::{agent_with_tools, assert_says, told, traced, traced_by};
use support::scene::MODEL;

#[track_caller]
fn assert_child(child: &Span, parent: &Span) {
    assert_eq!((&child.trace, &child.parent), (&parent.trace, &parent.id), "{child:#?}");
    assert!(
        child.from >= parent.from && child.to <= parent.to,
        "{child:#?} {parent:#?}"
    );
}

#[tokio::test]
async fn an_agents_turns_and_tool_calls_are_spans_with_the_names_of_the_conventions() {
    let (scene, collector) = traced_by(ApiServer::with().request_id("req-7")).await;
    let outcome = agent_with_tools(scene.env("REQUEST_ID", "req-7")).await;
    outcome.done();
    let told = told(&collector);

    let task = told.span("task");
    assert_eq!((task.parent.as_str(), task.kind, task.failed), ("", 5, false));
    assert_says(
        &task.attributes,
        &[("plue.task.id", json!("task-7")), ("plue.request.id", json!("req-7"))],
    );

    let agent = told.span("invoke_agent");
    assert_child(agent, task);
    assert_eq!((agent.kind, agent.failed), (1, false));
    assert_says(
        &agent.attributes,
        &[
            ("gen_ai.operation.name", json!("invoke_agent")),
            ("gen_ai.provider.name", json!("anthropic")),
            ("gen_ai.request.model", json!(MODEL)),
            ("gen_ai.usage.input_tokens", json!(100 + 30 + 4 + 100)),
            ("gen_ai.usage.output_tokens", json!(40)),
        ],
    );

    let chats = told.spans_of(&format!("chat {MODEL}"));
    assert_eq!(chats.len(), 2);
    for chat in &chats {
        assert_child(chat, agent);
        assert_eq!((chat.kind, chat.failed), (3, false));
        assert_says(
            &chat.attributes,
            &[
                ("gen_ai.operation.name", json!("chat")),
                ("gen_ai.provider.name", json!("anthropic")),
                ("gen_ai.request.model", json!(MODEL)),
                ("gen_ai.request.max_tokens", json!(1000)),
                ("gen_ai.request.stream", json!(true)),
                ("gen_ai.response.model", json!(MODEL)),
            ],
        );
        let id = chat.attributes["gen_ai.response.id"].as_str().unwrap();
        assert!(id.starts_with("msg_"), "{id}");
    }
    assert_says(
        &chats[0].attributes,
        &[
            ("gen_ai.response.finish_reasons", json!(["tool_use"])),
            ("gen_ai.usage.input_tokens", json!(134)),
            ("gen_ai.usage.output_tokens", json!(20)),
            ("gen_ai.usage.cache_read.input_tokens", json!(30)),
            ("gen_ai.usage.cache_creation.input_tokens", json!(4)),
        ],
    );
    assert_says(
        &chats[1].attributes,
        &[("gen_ai.response.finish_reasons", json!(["end_turn"]))],
    );

    let calls = told.spans_of("execute_tool read_file");
    assert_eq!(calls.len(), 2);
    for (call, id) in calls.iter().zip(["t1", "t2"]) {
        assert_child(call, agent);
        assert_eq!(call.kind, 1);
        assert_says(
            &call.attributes,
            &[
                ("gen_ai.operation.name", json!("execute_tool")),
                ("gen_ai.tool.name", json!("read_file")),
                ("gen_ai.tool.call.id", json!(id)),
                ("gen_ai.tool.type", json!("function")),
            ],
        );
    }
    assert_eq!((calls[0].failed, calls[0].attributes.get("error.type")), (false, None));
    assert!(calls[1].failed);
    assert_says(&calls[1].attributes, &[("error.type", json!("not_found"))]);
    assert_eq!(told.spans.len(), 6);

    // Prompts, arguments and results are the task's.
    for (_, _, body) in &told.requests {
        let body = String::from_utf8_lossy(body);
        for content in ["Go.", "notes.txt", "what the notes say", "Done."] {
            assert!(!body.contains(content), "{content} in {body}");
        }
    }
    assert_says(&told.resource, &[("service.name", json!("plue-runner"))]);
    assert!(
        told.requests
            .iter()
            .all(|(_, headers, _)| headers["x-request-id"] == "req-7")
    );
    assert_eq!(
        outcome
            .finished
            .log
            .iter()
            .filter(|line| line["level"] != "INFO")
            .count(),
        0
    );
}

#[tokio::test]
async fn tokens_and_durations_are_metrics() {
    let (scene, collector) = traced().await;
    agent_with_tools(scene).await.done();
    let told = told(&collector);
    let usage = told.points_of("gen_ai.client.token.usage");
    for (kind, sum) in [("input", 234.0), ("output", 40.0)] {
        let point = usage
            .iter()
            .find(|point| point.attributes["gen_ai.token.type"] == kind)
            .unwrap();
        assert_eq!((point.count, point.sum, point.unit.as_str()), (2, sum, "{token}"));
        assert_says(
            &point.attributes,
            &[
                ("gen_ai.operation.name", json!("chat")),
                ("gen_ai.provider.name", json!("anthropic")),
                ("gen_ai.request.model", json!(MODEL)),
                ("gen_ai.response.model", json!(MODEL)),
            ],
        );
    }
    let durations = told.points_of("gen_ai.client.operation.duration");
    assert_eq!(
        (durations.len(), durations[0].count, durations[0].unit.as_str()),
        (1, 2, "s")
    );
    assert!(durations[0].sum > 0.0);
    let tasks = told.points_of("plue.task.duration");
    assert_eq!((tasks.len(), tasks[0].count), (1, 1));
    assert_says(&tasks[0].attributes, &[("plue.task.outcome", json!("success"))]);
}

#[tokio::test]
async fn what_becomes_of_events_is_metrics() {
    let api = ApiServer::with().answering(|attempt| match attempt.event["type"].as_str() {
        Some("step_start") => Answer::Status(400),
        Some("step_end") if attempt.number <= 3 => Answer::Status(503),
        _ => Answer::Ok,
    });
    let (scene, collector) = traced_by(api).await;
    let outcome = scene.workflow(&json!([{ "run": "echo hello" }])).run().await;
    outcome.done_with_losses();
    let told = told(&collector);
    for (metric, events) in [
        ("plue.events.delivered", 3.0),
        ("plue.events.lost", 1.0),
        ("plue.events.retried", 3.0),
        ("plue.events.spooled", 0.0),
    ] {
        let points = told.points_of(metric);
        assert_eq!((points.len(), points[0].unit.as_str()), (1, "{event}"), "{metric}");
        assert_eq!(points[0].sum, events, "{metric}");
    }
}

#[tokio::test]
async fn a_workflows_steps_are_spans_and_the_failure_says_its_code() {
    let (scene, collector) = traced().await;
    let steps = json!([{ "name": "build", "run": "true" }, { "name": "test", "run": "exit 3" }]);
    scene.workflow(&steps).run().await.failed("step_failed");
    let told = told(&collector);
    let task = told.span("task");
    assert!(task.failed);
    assert_says(&task.attributes, &[("error.type", json!("step_failed"))]);
    let (build, test) = (told.span("step build"), told.span("step test"));
    for (index, step) in [build, test].into_iter().enumerate() {
        assert_child(step, task);
        assert_says(&step.attributes, &[("plue.step.index", json!(index))]);
    }
    assert!(!build.failed && test.failed);
    assert_says(
        &test.attributes,
        &[("process.exit.code", json!(3)), ("error.type", json!("step_failed"))],
    );
    assert_says(
        &told.points_of("plue.task.duration")[0].attributes,
        &[("plue.task.outcome", json!("step_failed"))],
    );
}

#[tokio::test]
async fn a_turn_that_fails_says_its_code_and_all_its_attempts_are_one_span() {
    let (scene, collector) = traced().await;
    let replies = [Reply::error(529), Reply::error(400)];
    let outcome = scene.agent(json!({}), replies).await.run().await;
    outcome.failed("model_error");
    let told = told(&collector);
    let chat = told.span(&format!("chat {MODEL}"));
    assert!(chat.failed && told.span("invoke_agent").failed);
    assert_says(&chat.attributes, &[("error.type", json!("model_error"))]);
    let durations = told.points_of("gen_ai.client.operation.duration");
    assert_says(&durations[0].attributes, &[("error.type", json!("model_error"))]);
}
