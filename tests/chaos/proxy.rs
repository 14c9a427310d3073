//! A way to a server that can break: while it is down nobody listens there, and what was on its way is cut.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

/// See the module.
pub struct Proxy {
    address: SocketAddr,
    to: SocketAddr,
    up: Option<JoinHandle<()>>,
    /// Keeps the address while nobody listens there: a busy machine would give its port to somebody else.
    kept: Option<TcpSocket>,
}

impl Proxy {
    /// A way to this server, open.
    pub async fn open(to: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        Self {
            address,
            to,
            up: Some(tokio::spawn(pass(listener, to))),
            kept: None,
        }
    }

    /// A way to the server of a URL, and the URL by that way.
    pub async fn to(url: &str) -> (Self, String) {
        let address = url.trim_start_matches("http://").split('/').next().unwrap();
        let way = Self::open(address.parse().unwrap()).await;
        let url = url.replace(address, &way.address().to_string());
        (way, url)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts all connections, and takes no more.
    pub async fn down(&mut self) {
        if let Some(up) = self.up.take() {
            up.abort();
            let _ = up.await;
            self.kept = Some(bound(self.address));
        }
    }

    /// Takes connections again, at the same address.
    pub async fn up(&mut self) {
        let kept = self.kept.take().unwrap_or_else(|| bound(self.address));
        let listener = kept.listen(1024).unwrap();
        self.up = Some(tokio::spawn(pass(listener, self.to)));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(up) = &self.up {
            up.abort();
        }
    }
}

/// A socket that has this address, and does not listen. Connections that were cut may still be known to the kernel.
fn bound(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

/// Ends, when it is aborted, with everything that it has begun.
async fn pass(listener: TcpListener, to: SocketAddr) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((mut from, _)) = listener.accept().await else {
            return;
        };
        connections.spawn(async move {
            if let Ok(mut to) = TcpStream::connect(to).await {
                let _ = copy_bidirectional(&mut from, &mut to).await;
            }
        });
    }
}
