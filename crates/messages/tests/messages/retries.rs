use std::io::Write;
use std::time::{Duration, Instant};

use plue_messages::TurnEvent;

use crate::logs::Logs;
use crate::server::{KEY, Reply, Server, response, run, stream, stream_bytes, text_of};
use crate::streams::{block, event, saying, start};

fn error_body(kind: &str) -> String {
    format!(r#"{{"type":"error","error":{{"type":"{kind}","message":"m"}}}}"#)
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_the_turn_succeeds() {
    let error_event = |kind: &str| stream(&(start() + "event: error\ndata: " + &error_body(kind) + "\n\n"));
    let thinking = start()
        + &block(
            0,
            r#"{"type":"thinking","thinking":""}"#,
            &[r#"{"type":"thinking_delta","thinking":"hm"}"#],
        );
    let ramp = r#"{"error":{"type":"rate_limit_error","message":"m","details":{"error_code":"ramp_limit_exceeded"}}}"#;
    let cases = [
        ("408", response(408, &[], "")),
        ("409", response(409, &[], &error_body("conflict_error"))),
        ("429", response(429, &[], &error_body("rate_limit_error"))),
        ("429 of a ramp", response(429, &[], ramp)),
        ("500", response(500, &[], &error_body("api_error"))),
        (
            "502 with a page",
            response(502, &["content-type: text/html"], "<html>Bad Gateway</html>"),
        ),
        ("503", response(503, &[], "")),
        ("504", response(504, &[], &error_body("timeout_error"))),
        ("529", response(529, &[], &error_body("overloaded_error"))),
        (
            "a status that says so itself",
            response(400, &["x-should-retry: true"], ""),
        ),
        ("a connection that closes", Reply::Close(Vec::new())),
        (
            "a head that is cut off",
            Reply::Close(b"HTTP/1.1 200 OK\r\ncont".to_vec()),
        ),
        (
            "an answer that is no HTTP",
            Reply::Close(b"SSH-2.0-OpenSSH_9.9\r\n\r\n".to_vec()),
        ),
        ("silence", Reply::Hang(Vec::new())),
        ("silence after the head", Reply::Hang(stream_bytes(""))),
        ("silence after the start", Reply::Hang(stream_bytes(&start()))),
        ("a stream that is empty", stream("")),
        ("a stream that ends early", stream(&start())),
        ("a stream that ends in thinking", stream(&thinking)),
        ("a stream that is broken", stream(&event(r#"{"type":"message_stop"}"#))),
        ("an error event: overloaded", error_event("overloaded_error")),
        ("an error event: api", error_event("api_error")),
        ("an error event: rate limit", error_event("rate_limit_error")),
        ("an error event: unknown", error_event("brand_new_error")),
        (
            "an error event: no JSON",
            stream(&(start() + "event: error\ndata: oops\n\n")),
        ),
    ];
    for (what, reply) in cases {
        let server = Server::start([reply, stream(&saying("second"))]).await;
        let client = server.client(|config| config.idle_timeout = Duration::from_millis(300));
        assert_eq!(text_of(&client).await, "second", "{what}");
        let requests = server.requests();
        assert_eq!(requests.len(), 2, "{what}");
        assert_eq!(requests[0].body, requests[1].body, "{what}");
    }
}

#[tokio::test]
async fn a_status_that_asks_not_to_be_tried_again_is_not() {
    let server = Server::start([response(503, &["x-should-retry: false"], ""), stream(&saying("x"))]).await;
    let (_, error) = run(&server.client(|_| {})).await;
    assert!(error.unwrap().to_string().contains("503"));
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn patience_bounds_all_attempts_together_and_the_error_says_how_long_it_was() {
    for (patience, least, most) in [(0, 1, 1), (30, 2, 12)] {
        let server = Server::start((0..100).map(|_| response(529, &[], &error_body("overloaded_error")))).await;
        let client = server.client(|config| config.patience = Duration::from_millis(patience));
        let (events, error) = run(&client).await;
        let error = error.unwrap().to_string();
        assert!(error.contains("answered 529: overloaded_error: m"), "{error}");
        assert!(
            error.contains(". Gave up") && error.contains("MODEL_PATIENCE ("),
            "{error}"
        );
        let attempts = server.requests().len();
        assert!((least..=most).contains(&attempts), "{attempts}");
        let waits = events
            .iter()
            .filter(|event| matches!(event, TurnEvent::Waiting { .. }))
            .count();
        assert_eq!(waits, usize::from(patience > 0), "told once: {events:?}");
    }
}

#[tokio::test]
async fn who_asks_for_more_than_there_is_patience_for_is_not_waited_for() {
    let server = Server::start([response(429, &["retry-after: 3600"], "")]).await;
    let (_, error) = run(&server.client(|_| {})).await;
    let error = error.unwrap().to_string();
    assert!(
        error.contains("asks to wait 3600 s") && error.contains("MODEL_PATIENCE"),
        "{error}"
    );
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn an_attempt_that_nobody_answers_takes_no_more_than_the_patience_that_is_left() {
    let server = Server::start([response(500, &[], ""), Reply::Hang(Vec::new())]).await;
    let client = server.client(|config| config.patience = Duration::from_millis(300));
    let (_, error) = run(&client).await;
    assert!(error.unwrap().to_string().contains("MODEL_PATIENCE (0.3 s) is over"));
}

#[tokio::test]
async fn a_stream_of_nothing_but_pings_is_left_and_asked_for_again() {
    let opened =
        start() + &event(r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#);
    let empty = event(r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":""}}"#);
    for again in [event(r#"{"type":"ping"}"#), ": keep-alive\n\n".to_owned(), empty] {
        let endless = Reply::Endless(
            stream_bytes(&opened),
            again.clone().into_bytes(),
            Duration::from_millis(20),
        );
        let server = Server::start([endless, stream(&saying("x"))]).await;
        let client = server.client(|config| config.stall_timeout = Duration::from_millis(400));
        assert_eq!(text_of(&client).await, "x", "{again}");
    }
}

#[tokio::test]
async fn a_turn_that_was_shown_is_asked_for_again_and_what_it_cost_is_told() {
    let half = start()
        + &block(
            0,
            r#"{"type":"text","text":""}"#,
            &[r#"{"type":"text_delta","text":"Hel"}"#],
        );
    let error = "event: error\ndata: ".to_owned() + &error_body("overloaded_error") + "\n\n";
    let malformed = "event: content_block_start\ndata: {\n\n";
    for (what, broken) in [
        ("the end", half.clone()),
        ("an error", half.clone() + &error),
        ("what cannot be read", half.clone() + malformed),
    ] {
        let server = Server::start([stream(&broken), stream(&saying("Hello"))]).await;
        let (events, error) = run(&server.client(|_| {})).await;
        assert!(error.is_none(), "{what}: {error:?}");
        let kinds: Vec<String> = events
            .iter()
            .map(|event| match event {
                TurnEvent::Text(text) => format!("text {text}"),
                TurnEvent::Wasted { usage, .. } => format!("wasted {:?} {:?}", usage.input_tokens, usage.output_tokens),
                TurnEvent::Restarted { .. } => "restarted".into(),
                TurnEvent::Waiting { .. } => "waiting".into(),
                TurnEvent::Finished(_) => "finished".into(),
                other => format!("{other:?}"),
            })
            .collect();
        let expected = [
            "text Hel",
            "wasted Some(10) Some(1)",
            "restarted",
            "waiting",
            "text Hello",
            "finished",
        ];
        assert_eq!(kinds, expected, "{what}");
    }
    // What cannot pass is not asked for again.
    let refused = half + "event: error\ndata: " + &error_body("invalid_request_error") + "\n\n";
    let server = Server::start([stream(&refused), stream(&saying("x"))]).await;
    assert!(run(&server.client(|_| {})).await.1.is_some());
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_turn_that_is_complete_is_taken_however_its_stream_ends() {
    let whole = saying("x");
    let without_stop = whole.strip_suffix(&event(r#"{"type":"message_stop"}"#)).unwrap();
    let with_error = without_stop.to_owned() + "event: error\ndata: " + &error_body("overloaded_error") + "\n\n";
    for (what, reply) in [
        ("it ends", stream(without_stop)),
        ("without its blank line", stream(whole.trim_end())),
        ("an error comes", stream(&with_error)),
        ("nothing more comes", Reply::Hang(stream_bytes(without_stop))),
    ] {
        let server = Server::start([reply]).await;
        let client = server.client(|config| config.idle_timeout = Duration::from_millis(300));
        assert_eq!(text_of(&client).await, "x", "{what}");
        assert_eq!(server.requests().len(), 1, "{what}");
    }
}

#[tokio::test]
async fn a_message_in_one_piece_is_taken_and_so_is_a_compressed_stream() {
    let message = r#"{"id":"m","type":"message","model":"x","content":[{"type":"text","text":"hi"}],"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":1}}"#;
    for content_type in ["content-type: application/json", "content-type: text/event-stream"] {
        let server = Server::start([response(200, &[content_type], message)]).await;
        assert_eq!(text_of(&server.client(|_| {})).await, "hi");
    }
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(saying("hi").as_bytes()).unwrap();
    let mut bytes =
        b"HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\nconnection: close\r\n\r\n"
            .to_vec();
    bytes.extend(encoder.finish().unwrap());
    let server = Server::start([Reply::Close(bytes)]).await;
    assert_eq!(text_of(&server.client(|_| {})).await, "hi");
    assert_eq!(
        server.requests()[0].header("accept-encoding"),
        ["identity"],
        "nobody asks for it"
    );
}

#[tokio::test]
async fn the_wait_doubles_and_never_falls_under_three_quarters() {
    let failures = (0..4).map(|_| response(500, &[], ""));
    let server = Server::start(failures.chain([stream(&saying("x"))])).await;
    text_of(&server.client(|config| config.retry_base = Duration::from_millis(40))).await;
    let times: Vec<_> = server.requests().iter().map(|request| request.at).collect();
    let waits: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (wait, full) in waits.iter().zip([40, 80, 160, 320]) {
        assert!(*wait >= Duration::from_millis(full * 3 / 4), "{waits:?}");
    }
}

#[tokio::test]
async fn a_server_that_names_a_wait_gets_it() {
    let cases: &[(&[&str], u64)] = &[
        (&["retry-after: 1"], 1000),
        (&["retry-after: 0.3"], 300),
        (&["retry-after-ms: 250"], 250),
        (&["retry-after-ms: 250", "retry-after: 30"], 250),
        (&["retry-after: 0"], 0),
        (&["retry-after: -5"], 0),
        (&["retry-after: NaN"], 0),
        (&["retry-after: soon"], 0),
        (&["retry-after: Sun, 06 Nov 1994 08:49:37 GMT"], 0),
    ];
    for (headers, milliseconds) in cases {
        let server = Server::start([response(429, headers, ""), stream(&saying("x"))]).await;
        text_of(&server.client(|_| {})).await;
        let requests = server.requests();
        let wait = requests[1].at - requests[0].at;
        let least = Duration::from_millis(*milliseconds);
        assert!(
            wait >= least && wait < least + Duration::from_secs(10),
            "{headers:?}: {wait:?}"
        );
    }
}

#[tokio::test]
async fn each_retry_is_one_warning_with_attempt_wait_and_reason_and_without_the_key() {
    let logs = Logs::start();
    let server = Server::start([
        response(
            529,
            &["request-id: req_1"],
            &error_body(&format!("overloaded_error {KEY}")),
        ),
        Reply::Close(Vec::new()),
        stream(&saying("x")),
    ])
    .await;
    text_of(&server.client(|_| {})).await;
    let warnings: Vec<String> = logs
        .lines()
        .into_iter()
        .filter(|line| line.starts_with("WARN"))
        .collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    for (line, parts) in warnings.iter().zip([
        ["attempt=1", "wait_ms=", "529", "req_1"],
        ["attempt=2", "wait_ms=", "reason=", "127.0.0.1"],
    ]) {
        for part in parts {
            assert!(line.contains(part), "{part:?} is not in {line:?}");
        }
    }
    assert!(
        !logs.lines().iter().any(|line| line.contains(KEY)),
        "{:?}",
        logs.lines()
    );
    assert!(
        logs.lines().iter().any(|line| line.contains("req_stream")),
        "{:?}",
        logs.lines()
    );
}

#[tokio::test]
async fn dropping_a_turn_ends_its_request() {
    let server = Server::start([Reply::Hang(stream_bytes(&start())), stream(&saying("next"))]).await;
    let client = server.client(|config| config.patience = Duration::ZERO);
    let cut_short = tokio::time::timeout(Duration::from_millis(200), run(&client)).await;
    assert!(cut_short.is_err());
    assert_eq!(text_of(&client).await, "next");
}

#[tokio::test]
async fn thinking_that_was_given_out_does_not_hinder_a_retry_and_the_retry_is_told() {
    let thinking = start()
        + &block(
            0,
            r#"{"type":"thinking","thinking":""}"#,
            &[r#"{"type":"thinking_delta","thinking":"hm"}"#],
        );
    let server = Server::start([stream(&thinking), stream(&saying("x"))]).await;
    let (events, error) = run(&server.client(|_| {})).await;
    assert!(error.is_none());
    assert!(
        matches!(
            &events[..],
            [
                TurnEvent::Thinking(_),
                TurnEvent::Wasted { .. },
                TurnEvent::Restarted { .. },
                TurnEvent::Waiting { .. },
                TurnEvent::Text(_),
                TurnEvent::Finished(_)
            ]
        ),
        "{events:?}"
    );
}

#[tokio::test]
async fn an_error_that_never_ends_is_left_and_says_what_came_of_it() {
    let head = b"HTTP/1.1 400 X\r\ncontent-type: application/json\r\n\r\nit began ".to_vec();
    let server = Server::start([Reply::Endless(head, b"x".to_vec(), Duration::from_millis(100))]).await;
    let began = Instant::now();
    let (_, error) = run(&server.client(|_| {})).await;
    let error = error.unwrap().to_string();
    assert!(error.contains("answered 400: it began xxx"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_only_announces_itself_counts_as_silence() {
    for (status, apart) in [("100 Continue", 0), ("103 Early Hints", 5)] {
        let again = format!("HTTP/1.1 {status}\r\n\r\n").into_bytes();
        let server = Server::start([Reply::Endless(again.clone(), again, Duration::from_millis(apart))]).await;
        let client = server.client(|config| {
            config.idle_timeout = Duration::from_millis(500);
            config.patience = Duration::ZERO;
        });
        let began = Instant::now();
        let (_, error) = run(&client).await;
        let error = error.unwrap().to_string();
        assert!(
            error.contains("nothing came from the Messages API for 0.5 s"),
            "{status}: {error}"
        );
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{status}: {:?}",
            began.elapsed()
        );
    }
}
