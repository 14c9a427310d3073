use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;

/// A server on loopback that answers by the first line of a request, and keeps what it was asked.
struct Server {
    url: Url,
    asked: Arc<Mutex<Vec<String>>>,
    serving: JoinHandle<()>,
}

impl Server {
    async fn start(answer: &str) -> Self {
        let answer = answer.to_owned();
        Self::answering(move |_| answer.clone()).await
    }

    async fn answering(answer: impl Fn(&str) -> String + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/internal/runners/register", listener.local_addr().unwrap());
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let keep = Arc::clone(&asked);
        let serving = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                // The body of each is `{}`.
                while !request.ends_with(b"\r\n\r\n{}") {
                    assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0, "the request broke off");
                }
                let request = String::from_utf8(request).unwrap();
                let answer = answer(request.lines().next().unwrap());
                keep.lock().unwrap().push(request);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let url = url.parse().unwrap();
        Self { url, asked, serving }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

const TAKEN: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";

fn config() -> ApiConfig {
    ApiConfig {
        token: Some(Secret::new("t0ken-of-the-server")),
        renewal: None,
        transport: Transport::default(),
        request_id: None,
        timeout: Duration::from_secs(5),
        retry_base: Duration::from_millis(1),
        silence: ApiConfig::SILENCE,
        max_body: 1 << 20,
    }
}

fn client(url: &Url, trace: TraceSource) -> ApiClient {
    ApiClient::new(url.clone(), &config(), trace).unwrap()
}

fn no_trace() -> TraceSource {
    Arc::new(|| None)
}

async fn post(client: &ApiClient) -> Answer {
    let body = Bytes::from_static(b"{}");
    client.post("application/json", None, body, SHORT_ANSWER).await
}

fn has_token(request: &str) -> bool {
    request.contains("authorization: Bearer t0ken-of-the-server\r\n")
}

fn redirect(status: &str, location: &str) -> String {
    format!("HTTP/1.1 {status}\r\nlocation: {location}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
}

#[tokio::test]
async fn a_redirect_to_another_origin_is_refused_and_the_token_stays_with_the_server_that_it_was_given_for() {
    for status in [
        "301 Moved",
        "302 Found",
        "303 See Other",
        "307 Temporary",
        "308 Permanent",
    ] {
        let elsewhere = Server::start(TAKEN).await;
        let mut location = elsewhere.url.clone();
        location.set_query(Some("session=s3cr3t"));
        let server = Server::start(&redirect(status, location.as_str())).await;
        let answer = post(&client(&server.url, no_trace())).await;
        let Answer::Refused {
            status: refused,
            reason,
            ..
        } = answer
        else {
            panic!("{status}: {answer:?}");
        };
        assert!(status.starts_with(refused.as_str()), "{refused}");
        assert!(reason.contains(elsewhere.url.as_str()), "{reason}");
        assert!(!reason.contains("s3cr3t"), "{reason}");
        let asked = server.asked();
        assert!(asked.len() == 1 && has_token(&asked[0]), "{status}: {asked:?}");
        assert_eq!(elsewhere.asked(), [""; 0], "{status}");
    }
}

#[tokio::test]
async fn a_redirect_within_the_origin_is_followed_with_the_method_the_body_and_the_headers() {
    for status in ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"] {
        for absolute in [false, true] {
            let base = Arc::new(Mutex::new(String::new()));
            let own = Arc::clone(&base);
            let server = Server::answering(move |request| {
                let (old, new) = ("/internal/runners/register", "/v2/register?a=b");
                match request.contains(old) {
                    true if absolute => redirect(status, &format!("{}{new}", own.lock().unwrap())),
                    true => redirect(status, new),
                    false => TAKEN.to_owned(),
                }
            })
            .await;
            *base.lock().unwrap() = server.url.origin().ascii_serialization();
            let client = client(&server.url, no_trace());
            let body = Bytes::from_static(b"{}");
            let answer = client.post("application/json", Some("key-1"), body, SHORT_ANSWER).await;
            assert!(
                matches!(answer, Answer::Taken { whole: true, .. }),
                "{status}: {answer:?}"
            );
            let asked = server.asked();
            assert_eq!(asked.len(), 2, "{status}");
            let [first, second] = [&asked[0], &asked[1]].map(|asked| asked.split_once("\r\n").unwrap());
            assert_eq!(second.0, "POST /v2/register?a=b HTTP/1.1");
            assert_eq!(first.1, second.1, "headers and body");
            assert!(has_token(&asked[1]) && asked[1].contains("idempotency-key: key-1\r\n"));
        }
    }
}

#[tokio::test]
async fn a_see_other_a_redirect_without_a_place_and_a_circle_are_refused() {
    let own = "/internal/runners/register";
    for (answer, requests, says) in [
        (redirect("303 See Other", "/elsewhere"), 1, "/elsewhere"),
        (redirect("304 Not Modified", "/elsewhere"), 1, "/elsewhere"),
        (TAKEN.replace("200 OK", "307 Temporary"), 1, "without a Location"),
        (redirect("307 Temporary", "http://"), 1, "without a Location"),
        (redirect("307 Temporary", own), MAX_REDIRECTS + 1, "redirects"),
    ] {
        let server = Server::start(&answer).await;
        let answer = post(&client(&server.url, no_trace())).await;
        let Answer::Refused { reason, .. } = answer else {
            panic!("{says}: {answer:?}");
        };
        assert!(reason.contains(says), "{reason}");
        assert_eq!(server.asked().len(), requests, "{says}");
    }
}

#[tokio::test]
async fn who_we_are_is_said_where_a_redirect_leads_and_never_as_the_server_writes_it() {
    let server = Server::answering(|request| match request.contains("/register") {
        true => redirect("308 Permanent", "/v2"),
        false => TAKEN.to_owned(),
    })
    .await;
    let mut url = server.url.clone();
    url.set_username("runner").unwrap();
    url.set_password(Some("pass")).unwrap();
    let config = ApiConfig {
        token: None,
        ..config()
    };
    let client = ApiClient::new(url, &config, no_trace()).unwrap();
    assert!(matches!(post(&client).await, Answer::Taken { .. }));
    // `runner:pass` in base64.
    let basic = "authorization: Basic cnVubmVyOnBhc3M=\r\n";
    assert!(
        server.asked().iter().all(|asked| asked.contains(basic)),
        "{:?}",
        server.asked()
    );
}

#[tokio::test]
async fn a_path_is_one_of_the_same_origin_and_gets_the_token() {
    let server = Server::start(TAKEN).await;
    let client = client(&server.url, no_trace());
    for (path, expected) in [
        ("7/heartbeat", "POST /internal/runners/7/heartbeat HTTP/1.1"),
        ("/internal/tasks/7/stream", "POST /internal/tasks/7/stream HTTP/1.1"),
    ] {
        let answer = post(&client.at(path).unwrap()).await;
        assert!(
            matches!(answer, Answer::Taken { whole: true, .. }),
            "{path}: {answer:?}"
        );
        let asked = server.asked().pop().unwrap();
        assert_eq!(asked.lines().next(), Some(expected));
        assert!(has_token(&asked), "{path}");
    }
    assert!(matches!(post(&client).await, Answer::Taken { .. }));
    let asked = server.asked().pop().unwrap();
    assert_eq!(asked.lines().next(), Some("POST /internal/runners/register HTTP/1.1"));
}

#[test]
fn a_path_that_leads_to_another_origin_is_none() {
    let url = Url::parse("http://api:8080/internal/runners/register").unwrap();
    let client = client(&url, no_trace());
    for path in [
        "http://evil/x",
        "//evil/x",
        "/\\evil/x",
        "\\\\evil/x",
        "http://api/x",
        "http://api:8081/x",
        "https://api:8080/x",
        "http://api:8080@evil/x",
        "ftp://api:8080/x",
        "file:///etc/passwd",
        "data:,x",
        "http://",
    ] {
        assert!(client.at(path).is_none(), "{path}");
    }
    // A host that only looks like another one.
    assert!(
        client
            .at("http:evil")
            .is_some_and(|client| client.url.host_str() == Some("api"))
    );
}

#[tokio::test]
async fn each_request_asks_in_which_trace_it_stands() {
    let server = Server::start(TAKEN).await;
    let trace = Arc::new(Mutex::new(None));
    let told = Arc::clone(&trace);
    let client = client(&server.url, Arc::new(move || told.lock().unwrap().clone()));
    post(&client).await;
    *trace.lock().unwrap() = Some(HeaderValue::from_static("00-a-b-01"));
    post(&client).await;
    post(&client.at("7/heartbeat").unwrap()).await;
    let headers: Vec<bool> = server
        .asked()
        .iter()
        .map(|request| request.contains("traceparent: 00-a-b-01\r\n"))
        .collect();
    assert_eq!(headers, [false, true, true]);
}

#[test]
fn only_an_answer_of_the_server_itself_says_that_nothing_was_done() {
    for (status, body, fate) in [
        (500, "out of memory", Fate::Declined),
        (503, "{}", Fate::Declined),
        (500, "", Fate::Unclear),
        (503, "", Fate::Unclear),
        (502, "<html>", Fate::Unclear),
        (504, "<html>", Fate::Unclear),
        (429, "", Fate::Declined),
        (408, "", Fate::Declined),
    ] {
        let status = StatusCode::from_u16(status).unwrap_or_default();
        assert_eq!(Fate::of_status(status, body.as_bytes()), fate, "{status} {body:?}");
    }
}

const UNAUTHORIZED: &str = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// A client whose token is read again as this one.
fn renewing(url: &Url, again: Option<&'static str>) -> ApiClient {
    let config = ApiConfig {
        renewal: Some(Renewal::new(move || again.map(Secret::new))),
        ..config()
    };
    ApiClient::new(url.clone(), &config, no_trace()).unwrap()
}

#[tokio::test]
async fn a_token_that_is_refused_is_read_again_and_sent_once_when_it_is_another_one() {
    for (again, asked) in [
        (Some("the-next-token"), 2),
        (Some("t0ken-of-the-server"), 1),
        // A file that cannot be read.
        (None, 1),
        // One that no header may have.
        (Some("a\nb"), 1),
    ] {
        let server = Server::start(UNAUTHORIZED).await;
        let client = renewing(&server.url, again);
        let answer = post(&client).await;
        assert!(
            matches!(&answer, Answer::Refused { status, .. } if *status == StatusCode::UNAUTHORIZED),
            "{answer:?}"
        );
        let requests = server.asked();
        assert_eq!(requests.len(), asked, "{again:?}");
        assert!(has_token(&requests[0]));
        if asked == 2 {
            assert!(requests[1].contains("authorization: Bearer the-next-token\r\n"));
            // What was read counts from then on, also for the other paths of the server.
            post(&client.at("/other").unwrap()).await;
            let requests = server.asked();
            assert_eq!(requests.len(), 3);
            assert!(requests[2].contains("authorization: Bearer the-next-token\r\n"));
        }
    }
}

#[tokio::test]
async fn credentials_in_the_url_are_sent_in_place_of_the_token() {
    let server = Server::start(TAKEN).await;
    let mut url = server.url.clone();
    url.set_username("user").unwrap();
    url.set_password(Some("password")).unwrap();
    post(&client(&url, no_trace())).await;
    let request = &server.asked()[0];
    assert!(
        request.contains("authorization: Basic dXNlcjpwYXNzd29yZA==\r\n"),
        "{request}"
    );
    assert!(!has_token(request));
}
