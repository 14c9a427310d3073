//! A Messages API on loopback that says, byte for byte, what a test scripts.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::StreamExt;
use plue_messages::{
    ClientConfig, Conversation, ConversationConfig, InitialMessage, MessagesClient, Model, ModelError, Role, TurnEvent,
};
use serde_json::value::RawValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// The key that every test uses. It may appear in nothing but the one header.
pub const KEY: &str = "sk-ant-test-0123456789";

/// What is done with one request.
pub enum Reply {
    /// These bytes, then the connection is closed.
    Close(Vec<u8>),
    /// These bytes, then nothing more, for as long as the client waits.
    Hang(Vec<u8>),
    /// The first bytes, then the second ones again and again, so far apart, for as long as the client takes them.
    Endless(Vec<u8>, Vec<u8>, Duration),
    /// These pieces, each sent by itself, and the connection stays open for the next request.
    KeepOpen(Vec<Vec<u8>>),
}

/// A response with this status; `headers` are whole lines.
pub fn response(status: u16, headers: &[&str], body: &str) -> Reply {
    let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    Reply::Close(
        format!(
            "HTTP/1.1 {status} X\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
        .into_bytes(),
    )
}

/// The beginning of a streamed response, without its end.
pub fn stream_bytes(events: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nrequest-id: req_stream\r\n\
         connection: close\r\n\r\n{events}"
    )
    .into_bytes()
}

/// A whole streamed response.
pub fn stream(events: &str) -> Reply {
    Reply::Close(stream_bytes(events))
}

/// One request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    /// The first line, `POST /v1/messages HTTP/1.1`.
    pub line: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub at: Instant,
    /// Which connection it came on, from 0.
    pub connection: usize,
}

impl Request {
    pub fn header(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(other, _)| other == name)
            .map(|(_, value)| value.as_str())
            .collect()
    }
}

pub struct Server {
    pub url: String,
    requests: Arc<Mutex<Vec<Request>>>,
    // Dropping it ends the connections.
    _connections: JoinSet<()>,
}

impl Server {
    /// Answers the requests that come with these replies, in order; one more is a closed connection.
    pub async fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let replies = Arc::new(Mutex::new(replies.into_iter().collect::<VecDeque<_>>()));
        let mut tasks = JoinSet::new();
        let seen = Arc::clone(&requests);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            for number in 0.. {
                let (socket, _) = listener.accept().await.unwrap();
                connections.spawn(serve(socket, number, Arc::clone(&seen), Arc::clone(&replies)));
            }
        });
        Self {
            url,
            requests,
            _connections: tasks,
        }
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// A client of this server that does not wait long.
    pub fn client(&self, change: impl FnOnce(&mut ClientConfig)) -> MessagesClient {
        client_of(&self.url, change)
    }
}

pub fn client_of(url: &str, change: impl FnOnce(&mut ClientConfig)) -> MessagesClient {
    let mut config = ClientConfig::new(url.parse().unwrap(), KEY.to_owned());
    config.retry_base = Duration::from_millis(2);
    change(&mut config);
    MessagesClient::new(config).unwrap()
}

async fn serve(
    mut socket: TcpStream,
    connection: usize,
    requests: Arc<Mutex<Vec<Request>>>,
    replies: Arc<Mutex<VecDeque<Reply>>>,
) {
    while let Some(request) = read_request(&mut socket, connection).await {
        requests.lock().unwrap().push(request);
        let reply = replies.lock().unwrap().pop_front();
        match reply {
            None => return,
            Some(Reply::Close(bytes)) => {
                let _ = socket.write_all(&bytes).await;
                let _ = socket.shutdown().await;
                return;
            }
            Some(Reply::Hang(bytes)) => {
                let _ = socket.write_all(&bytes).await;
                let _ = socket.read(&mut [0]).await;
                return;
            }
            Some(Reply::Endless(bytes, again, apart)) => {
                let mut sent = socket.write_all(&bytes).await;
                while sent.is_ok() {
                    tokio::time::sleep(apart).await;
                    sent = socket.write_all(&again).await;
                }
                return;
            }
            Some(Reply::KeepOpen(pieces)) => {
                for piece in pieces {
                    let _ = socket.write_all(&piece).await;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        }
    }
}

async fn read_request(socket: &mut TcpStream, connection: usize) -> Option<Request> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        if socket.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let text = String::from_utf8(bytes[..head].to_vec()).unwrap();
    let mut lines = text.lines();
    let line = lines.next().unwrap().to_owned();
    let headers: Vec<(String, String)> = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length: usize = headers
        .iter()
        .find(|(name, _)| name == "content-length")
        .unwrap()
        .1
        .parse()
        .unwrap();
    while bytes.len() < head + 4 + length {
        if socket.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let body = bytes[head + 4..].to_vec();
    Some(Request {
        line,
        headers,
        body,
        at: Instant::now(),
        connection,
    })
}

/// A conversation in which the user said hi.
pub fn conversation(model: &str) -> Conversation {
    let content = RawValue::from_string(r#""hi""#.to_owned()).unwrap();
    Conversation::new(ConversationConfig {
        model,
        system: None,
        tools: &[],
        thinking: None,
        show_thinking: false,
        effort: None,
        output_schema: None,
        messages: &[InitialMessage {
            role: Role::User,
            content,
        }],
    })
}

/// Runs one turn to its end: what was given out, and the error if there was one.
pub async fn run(client: &MessagesClient) -> (Vec<TurnEvent>, Option<ModelError>) {
    run_model(client, "claude-haiku-5-5").await
}

pub async fn run_model(client: &MessagesClient, model: &str) -> (Vec<TurnEvent>, Option<ModelError>) {
    let turn = async {
        let mut events = Vec::new();
        let mut stream = client.turn(conversation(model).request(100));
        while let Some(event) = stream.next().await {
            match event {
                Ok(TurnEvent::Began { .. }) => {}
                Ok(event) => events.push(event),
                Err(error) => {
                    assert!(stream.next().await.is_none(), "something came after the error");
                    return (events, Some(error));
                }
            }
        }
        (events, None)
    };
    tokio::time::timeout(Duration::from_secs(30), turn)
        .await
        .expect("the turn takes too long")
}

/// The text of a turn that must be good.
pub async fn text_of(client: &MessagesClient) -> String {
    let (events, error) = run(client).await;
    assert!(error.is_none(), "{error:?}");
    assert!(matches!(events.last(), Some(TurnEvent::Finished(_))), "{events:?}");
    events
        .iter()
        .filter_map(|event| {
            if let TurnEvent::Text(text) = event {
                Some(text.as_str())
            } else {
                None
            }
        })
        .collect()
}
