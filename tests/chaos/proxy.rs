//! A way to a server that can break: while it is down nobody listens there, and what was on its way is cut.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

use support::loopback::ANYWHERE;

/// See the module.
pub struct Proxy {
    address: SocketAddr,
    to: SocketAddr,
    up: Option<JoinHandle<()>>,
    /// Has the address from beginning to end and never listens there. A busy machine would give the port to somebody
    /// else as soon as nobody has it, also in the moment between a listener and the next.
    _kept: TcpSocket,
}

impl Proxy {
    /// A way to this server, open.
    pub async fn open(to: SocketAddr) -> Self {
        let kept = bound(ANYWHERE);
        let address = kept.local_addr().unwrap();
        let mut proxy = Self {
            address,
            to,
            up: None,
            _kept: kept,
        };
        proxy.up().await;
        proxy
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
        }
    }

    /// Takes connections again, at the same address.
    pub async fn up(&mut self) {
        let listener = bound(self.address).listen(1024).unwrap();
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

/// A socket that has this address, and does not listen yet. Several may have it, as long as none of them listens, and
/// so may connections that were cut and that the kernel still knows.
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
