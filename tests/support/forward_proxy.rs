//! The double of a company's HTTP proxy: it passes requests for `http` URLs on, and tunnels for `https` (CONNECT).
//! Names lead where the test says, so that what comes to their servers came by the proxy.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// One connection to the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// `CONNECT` for a tunnel, else the method of its first request.
    pub method: String,
    /// Host and port that it was for.
    pub to: String,
}

/// See the module.
pub struct ForwardProxy {
    address: SocketAddr,
    passed: Arc<Mutex<Vec<Passed>>>,
    serving: JoinHandle<()>,
}

struct Rules {
    names: BTreeMap<String, SocketAddr>,
    /// `Proxy-Authorization`, when the proxy asks for it.
    authorization: Option<String>,
    passed: Arc<Mutex<Vec<Passed>>>,
}

impl ForwardProxy {
    /// One that knows these names (`host:port`), and asks for this `Proxy-Authorization`, if any.
    pub async fn start(names: &[(&str, SocketAddr)], authorization: Option<&str>) -> io::Result<Self> {
        let passed = Arc::<Mutex<Vec<Passed>>>::default();
        let rules = Arc::new(Rules {
            names: names.iter().map(|(name, to)| ((*name).to_owned(), *to)).collect(),
            authorization: authorization.map(str::to_owned),
            passed: Arc::clone(&passed),
        });
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let rules = Arc::clone(&rules);
                tokio::spawn(async move { rules.serve(stream).await });
            }
        });
        Ok(Self {
            address,
            passed,
            serving,
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has let through.
    pub fn passed(&self) -> Vec<Passed> {
        self.passed.lock().unwrap().clone()
    }
}

impl Drop for ForwardProxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Rules {
    async fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut head = Vec::new();
        while !head.windows(4).any(|four| four == b"\r\n\r\n") {
            if stream.read_buf(&mut head).await? == 0 {
                return Ok(());
            }
        }
        let text = String::from_utf8_lossy(&head).into_owned();
        let mut words = text.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let authorized = self.authorization.as_ref().is_none_or(|wanted| {
            let mut lines = text.lines();
            lines.any(|line| line.to_ascii_lowercase().starts_with("proxy-authorization: ") && line.ends_with(wanted))
        });
        if !authorized {
            let refused = "HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n";
            return stream.write_all(refused.as_bytes()).await;
        }
        let host = target.strip_prefix("http://").unwrap_or(target).split('/').next();
        let host = host.unwrap_or_default().to_owned();
        let to = match host.contains(':') {
            true => host,
            false => format!("{host}:80"),
        };
        let Some(address) = self.names.get(&to) else {
            let unknown = "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n";
            return stream.write_all(unknown.as_bytes()).await;
        };
        self.passed.lock().unwrap().push(Passed {
            method: method.to_owned(),
            to,
        });
        let mut server = TcpStream::connect(address).await?;
        match method {
            "CONNECT" => stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?,
            // A server takes the form that proxies get (RFC 9112, section 3.2.2).
            _ => server.write_all(&head).await?,
        }
        copy_bidirectional(&mut stream, &mut server).await.map(drop)
    }
}
