use plue_messages::{AuthStyle, ClientConfig, MessagesClient, TurnEvent};

use crate::server::{KEY, Reply, Server, run, stream, text_of};
use crate::streams::saying;

#[tokio::test]
async fn a_turn_over_a_real_socket_gives_its_text_and_its_request_id() {
    let server = Server::start([stream(&saying("hello"))]).await;
    let (events, error) = run(&server.client(|_| {})).await;
    assert!(error.is_none(), "{error:?}");
    assert!(
        matches!(&events[0], TurnEvent::Text(text) if text == "hello"),
        "{events:?}"
    );
    let TurnEvent::Finished(turn) = &events[1] else {
        panic!("{events:?}")
    };
    assert_eq!(turn.request_id.as_deref(), Some("req_stream"));
}

#[tokio::test]
async fn a_request_carries_the_version_one_key_and_nothing_that_is_refused() {
    let cases = [
        (AuthStyle::XApiKey, "x-api-key", KEY.to_owned(), "authorization"),
        (AuthStyle::Bearer, "authorization", format!("Bearer {KEY}"), "x-api-key"),
    ];
    for (style, name, value, other) in cases {
        let server = Server::start([stream(&saying("x"))]).await;
        let client = server.client(|config| {
            config.auth_style = style;
            config.request_id = Some("run-7".to_owned());
        });
        text_of(&client).await;
        let request = &server.requests()[0];
        assert_eq!(request.line, "POST /v1/messages HTTP/1.1");
        assert_eq!(request.header(name), [value.as_str()]);
        assert!(request.header(other).is_empty(), "{request:?}");
        assert_eq!(request.header("anthropic-version"), ["2026-10-21"]);
        assert_eq!(request.header("content-type"), ["application/json"]);
        assert_eq!(request.header("x-request-id"), ["run-7"]);
        let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        for refused in ["temperature", "top_p", "top_k", "tools", "tool_choice"] {
            assert!(body.get(refused).is_none(), "{body}");
        }
        assert_eq!((&body["stream"], &body["max_tokens"]), (&true.into(), &100.into()));
    }
}

#[tokio::test]
async fn without_a_request_id_no_header_is_sent() {
    let server = Server::start([stream(&saying("x"))]).await;
    text_of(&server.client(|_| {})).await;
    assert!(server.requests()[0].header("x-request-id").is_empty());
}

#[tokio::test]
async fn a_base_url_with_a_path_works() {
    let cases = [
        ("", "/v1/messages"),
        ("/", "/v1/messages"),
        ("/claude", "/claude/v1/messages"),
        ("/a/b/", "/a/b/v1/messages"),
    ];
    for (path, expected) in cases {
        let server = Server::start([stream(&saying("x"))]).await;
        let base = format!("{}{path}", server.url).parse().unwrap();
        text_of(&server.client(|config| config.base_url = base)).await;
        assert_eq!(server.requests()[0].line, format!("POST {expected} HTTP/1.1"));
    }
}

#[tokio::test]
async fn the_next_turn_uses_the_same_connection() {
    let chunked = |text: &str| {
        let events = saying(text);
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        let piece = format!("{:x}\r\n{events}\r\n", events.len());
        // The end of the body comes behind the end of the turn, as it does from a real server.
        Reply::KeepOpen(vec![
            head.as_bytes().to_vec(),
            piece.into_bytes(),
            b"0\r\n\r\n".to_vec(),
        ])
    };
    let server = Server::start([chunked("one"), chunked("two")]).await;
    let client = server.client(|_| {});
    assert_eq!(text_of(&client).await, "one");
    assert_eq!(text_of(&client).await, "two");
    let connections: Vec<usize> = server.requests().iter().map(|request| request.connection).collect();
    assert_eq!(connections, [0, 0]);
}

#[test]
fn a_configuration_that_cannot_work_is_refused_with_the_variable_to_change() {
    let config = |url: &str, key: &str| ClientConfig::new(url.parse().unwrap(), key.to_owned());
    let mut bad_id = config("http://localhost", KEY);
    bad_id.request_id = Some("a\nb".to_owned());
    let cases = [
        (config("http://localhost", "key\n"), "ANTHROPIC_API_KEY"),
        (config("http://localhost", " key"), "ANTHROPIC_API_KEY"),
        (config("http://localhost", "schlüssel"), "ANTHROPIC_API_KEY"),
        (config("http://localhost", ""), "ANTHROPIC_API_KEY"),
        (config("ftp://localhost", KEY), "ANTHROPIC_BASE_URL"),
        (config("data:text/plain,x", KEY), "ANTHROPIC_BASE_URL"),
        (config("http://user:word@localhost", KEY), "ANTHROPIC_BASE_URL"),
        (bad_id, "REQUEST_ID"),
    ];
    for (config, variable) in cases {
        let shown = format!("{config:?}");
        let error = MessagesClient::new(config).expect_err(&shown).to_string();
        assert!(error.contains(variable), "{shown}: {error}");
    }
}

#[test]
fn the_key_is_in_no_debug_output() {
    let config = ClientConfig::new("https://localhost".parse().unwrap(), KEY.to_owned());
    assert!(!format!("{config:?}").contains(KEY));
    let client = MessagesClient::new(ClientConfig {
        base_url: "http://localhost".parse().unwrap(),
        ..config
    })
    .unwrap();
    assert!(!format!("{client:?}").contains(KEY));
}
