//! `LOG_LEVEL` by module, and variables that are malformed.

use serde_json::json;

use super::agent_with_tools;
use support::scene::Scene;

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
        within(&all, "plue_messages") && within(&all, "plue_runner::run"),
        "{all:?}"
    );
    let quiet_model = run("info,model=Warning").await;
    assert!(
        !within(&quiet_model, "plue_messages") && within(&quiet_model, "plue_runner::run"),
        "{quiet_model:?}"
    );
    let only_model = run("CRITICAL,plue_messages::client=INFO").await;
    assert!(
        !only_model.is_empty() && only_model.iter().all(|(logger, _)| logger == "plue_messages::client"),
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
