use std::time::Duration;

use plue_messages::{ClientConfig, ModelError};

use crate::server::{KEY, Server, client_of, response, run, run_model, stream};
use crate::streams::start;

fn body(kind: &str, message: &str) -> String {
    format!(r#"{{"type":"error","error":{{"type":"{kind}","message":"{message}"}},"request_id":"req_body"}}"#)
}

fn class(error: &ModelError) -> &'static str {
    match error {
        ModelError::Auth(_) => "auth",
        ModelError::ModelNotFound(_) => "not found",
        ModelError::TooLong(_) => "too long",
        ModelError::Refused(_) => "refused",
        ModelError::Failed(_) => "failed",
    }
}

#[tokio::test]
async fn an_error_that_no_retry_helps_ends_the_turn_at_once_and_says_what_to_do() {
    let spend = r#"{"error":{"type":"rate_limit_error","message":"m","details":{"error_code":"enforced_spend_limit_reached"}}}"#;
    let contract = r#"{"error":{"type":"rate_limit_error","message":"m","details":{"error_code":"contract_spend_limit_reached"}}}"#;
    let cases: &[(u16, String, &str, &[&str])] = &[
        (
            400,
            body("invalid_request_error", "max_tokens: too large"),
            "refused",
            &["400", "invalid_request_error: max_tokens: too large"],
        ),
        (
            400,
            body("invalid_request_error", "prompt is too long: 2 > 1"),
            "too long",
            &["context window"],
        ),
        (
            400,
            body("invalid_request_error", "Input is too long for requested model."),
            "too long",
            &["context window"],
        ),
        (
            401,
            body("authentication_error", "invalid x-api-key"),
            "auth",
            &["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_STYLE"],
        ),
        (402, body("billing_error", "no money"), "auth", &["billing"]),
        (403, body("permission_error", "no"), "auth", &["ANTHROPIC_API_KEY"]),
        (
            404,
            body("not_found_error", "model: x"),
            "not found",
            &["MODEL_ALIASES", "ANTHROPIC_BASE_URL"],
        ),
        (
            404,
            "<html>nginx</html>".to_owned(),
            "failed",
            &[
                "no Messages API at http://127.0.0.1:",
                "/v1/messages: check ANTHROPIC_BASE_URL",
            ],
        ),
        (
            404,
            body("not_found_error", "Not Found"),
            "failed",
            &["no Messages API at"],
        ),
        (
            404,
            r#"{"detail":"Not Found"}"#.to_owned(),
            "failed",
            &["no Messages API at"],
        ),
        (
            413,
            "<html><title>413 Request\nEntity Too Large</title></html>".to_owned(),
            "too long",
            &["32 MB", "413 Request Entity"],
        ),
        (422, String::new(), "failed", &["422", "no explanation was given"]),
        (
            429,
            spend.to_owned(),
            "failed",
            &["spending limit", "enforced_spend_limit_reached"],
        ),
        (429, contract.to_owned(), "failed", &["spending limit"]),
        (302, String::new(), "failed", &["ANTHROPIC_BASE_URL", "redirect"]),
        (418, format!("\u{7}{}", "x".repeat(200_000)), "failed", &["418"]),
        (
            401,
            format!("your key {KEY} is wrong"),
            "auth",
            &["your key *** is wrong"],
        ),
    ];
    for (status, body, expected, says) in cases {
        let server = Server::start([response(*status, &["location: http://127.0.0.1:1/"], body)]).await;
        let (events, error) = run(&server.client(|_| {})).await;
        let error = error.unwrap();
        let text = error.to_string();
        assert_eq!(class(&error), *expected, "{text}");
        for part in *says {
            assert!(text.contains(part), "{status}: {part:?} is not in {text:?}");
        }
        assert!(
            text.len() < 1500 && !text.contains(KEY) && !text.contains(char::is_control),
            "{text}"
        );
        assert!(events.is_empty());
        assert_eq!(server.requests().len(), 1, "{status} was tried again");
    }
}

#[tokio::test]
async fn a_404_for_a_retired_model_names_the_alias_to_set() {
    let cases = [
        (
            "claude-sonnet-4-20250514",
            "MODEL_ALIASES=claude-sonnet-4-20250514=claude-sonnet-5-5",
        ),
        (
            "claude-3-5-sonnet-20241022",
            "MODEL_ALIASES=claude-3-5-sonnet-20241022=claude-sonnet-5-5",
        ),
        (
            "claude-3-5-haiku-20241022",
            "MODEL_ALIASES=claude-3-5-haiku-20241022=claude-haiku-5-5",
        ),
        (
            "claude-3-opus-20240229",
            "MODEL_ALIASES=claude-3-opus-20240229=claude-opus-5-5",
        ),
        ("claude-sonnet-4-5", "MODEL_ALIASES=claude-sonnet-4-5=claude-sonnet-5-5"),
    ];
    for (model, alias) in cases {
        let server = Server::start([response(404, &[], &body("not_found_error", &format!("model: {model}")))]).await;
        let (_, error) = run_model(&server.client(|_| {}), model).await;
        let error = error.unwrap();
        assert_eq!(class(&error), "not found");
        assert!(error.to_string().contains(alias), "{error}");
    }
}

#[tokio::test]
async fn an_error_names_the_request_id() {
    let cases: [(&[&str], &str); 2] = [(&["request-id: req_head"], "req_head"), (&[], "req_body")];
    for (headers, expected) in cases {
        let server = Server::start([response(400, headers, &body("invalid_request_error", "m"))]).await;
        let (_, error) = run(&server.client(|_| {})).await;
        assert!(error.unwrap().to_string().contains(expected));
    }
}

#[tokio::test]
async fn an_answer_that_is_no_stream_says_to_check_the_url() {
    for (kind, body) in [
        ("text/html; charset=utf-8", "<html>"),
        ("application/json", "<html>"),
        ("application/json", r#"{"status":"ok"}"#),
        ("text/event-stream", "<!doctype html>"),
    ] {
        let server = Server::start([response(200, &[&format!("content-type: {kind}")], body)]).await;
        let (_, error) = run(&server.client(|_| {})).await;
        let error = error.unwrap().to_string();
        assert!(error.contains("ANTHROPIC_BASE_URL") && error.contains(kind), "{error}");
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn an_error_event_that_no_retry_helps_has_the_class_of_its_status() {
    let cases = [
        ("invalid_request_error", "failed"),
        ("authentication_error", "auth"),
        ("billing_error", "auth"),
        ("permission_error", "auth"),
        ("not_found_error", "failed"),
        ("request_too_large", "too long"),
    ];
    for (kind, expected) in cases {
        let error = format!("event: error\ndata: {}\n\n", body(kind, "m"));
        let server = Server::start([stream(&(start() + &error))]).await;
        let (_, error) = run(&server.client(|_| {})).await;
        assert_eq!(class(&error.unwrap()), expected, "{kind}");
        assert_eq!(server.requests().len(), 1, "{kind}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_with_the_reason() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let impatient = |config: &mut ClientConfig| config.patience = Duration::from_millis(50);
    let (_, error) = run(&client_of(&url, impatient)).await;
    let error = error.unwrap().to_string();
    assert!(
        error.contains(&url) && error.contains("refused") && error.contains("MODEL_PATIENCE (0.05 s)"),
        "{error}"
    );
}
