//! What the runner tells of itself: the log's levels by module, and traces and metrics for a collector.

use std::time::Duration;

use serde_json::{Value, json};
use support::api_server::Settings;
use support::claude::KEY;
use support::collector::{Attributes, Collector, Mood, Received, Span};
use support::{ApiServer, Reply, Turn};

use crate::harness::{MODEL, Outcome, Scene};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

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

#[track_caller]
fn assert_child(child: &Span, parent: &Span) {
    assert_eq!((&child.trace, &child.parent), (&parent.trace, &parent.id), "{child:#?}");
    assert!(
        child.from >= parent.from && child.to <= parent.to,
        "{child:#?} {parent:#?}"
    );
}

fn traceparent(span: &Span) -> String {
    format!("00-{}-{}-01", span.trace, span.id)
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
async fn log_levels_are_kept_by_module() {
    let run = async |level: &str| {
        let scene = Scene::new().await.env("LOG_LEVEL", level);
        let outcome = agent_with_tools(scene).await;
        outcome.done();
        let loggers = outcome.finished.log.iter().map(|line| {
            let text = |name: &str| line[name].as_str().unwrap().to_owned();
            (text("logger"), text("level"))
        });
        loggers.collect::<Vec<_>>()
    };
    let within = |lines: &[(String, String)], module: &str| lines.iter().any(|(logger, _)| logger.starts_with(module));
    let all = run("INFO").await;
    assert!(
        within(&all, "plue_runner::model") && within(&all, "plue_runner::run"),
        "{all:?}"
    );
    let quiet_model = run("info,model=Warning").await;
    assert!(
        !within(&quiet_model, "plue_runner::model") && within(&quiet_model, "plue_runner::run"),
        "{quiet_model:?}"
    );
    let only_model = run("CRITICAL,plue_runner::model::client=INFO").await;
    assert!(
        !only_model.is_empty()
            && only_model
                .iter()
                .all(|(logger, _)| logger == "plue_runner::model::client"),
        "{only_model:?}"
    );
    let crates = run("ERROR,hyper_util=DEBUG").await;
    assert!(
        !crates.is_empty()
            && crates
                .iter()
                .all(|(logger, level)| logger.starts_with("hyper_util") && level == "DEBUG"),
        "{crates:?}"
    );
}

#[tokio::test]
async fn a_malformed_log_level_or_variable_of_the_collector_is_named_with_an_example() {
    for (name, value) in [
        ("LOG_LEVEL", "INFO,events=loud"),
        ("LOG_LEVEL", "INFO,DEBUG"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "Bearer the-token"),
        ("OTEL_RESOURCE_ATTRIBUTES", "staging"),
    ] {
        let scene = Scene::new()
            .await
            .workflow(&json!([{ "run": "true" }]))
            .env(name, value);
        let error = scene.run().await.refused("internal");
        let message = error["message"].as_str().unwrap();
        assert!(
            message.starts_with(&format!("{name}: ")) && message.contains(&format!("(example: {name}=")),
            "{message}"
        );
        assert!(!message.contains("the-token"), "{message}");
    }
}
