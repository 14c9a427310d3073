//! A server on a free port of the loopback interface that ends with its owner.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use rustix::net::Shutdown;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Any free port.
pub const ANYWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A running server. Dropping it closes its port.
pub struct Loopback {
    address: SocketAddr,
    server: JoinHandle<()>,
}

impl Loopback {
    /// Serves `router` on a free port of 127.0.0.1. Handlers can take the connection they are on as
    /// `ConnectInfo<Wire>`.
    pub async fn serve(router: Router) -> io::Result<Self> {
        Self::serve_at(router, ANYWHERE).await
    }

    /// Serves it at an address of the loopback interface.
    pub async fn serve_at(router: Router, at: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(at).await?;
        let address = listener.local_addr()?;
        let service = router.into_make_service_with_connect_info::<Wire>();
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, service).await {
                eprintln!("the server on {address} ended: {error}");
            }
        });
        Ok(Self { address, server })
    }

    /// The address of a path on this server.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// The connection under a request, for handlers that cut it instead of answering. It is a duplicate of the socket's
/// descriptor, since hyper owns the socket itself.
#[derive(Clone)]
pub struct Wire(Option<Arc<OwnedFd>>);

impl Wire {
    /// Ends the connection at once, in both directions. The peer sees it end in the middle of an answer.
    pub fn cut(&self) {
        if let Some(socket) = &self.0 {
            let _ = rustix::net::shutdown(socket, Shutdown::Both);
        }
    }
}

impl Connected<IncomingStream<'_, TcpListener>> for Wire {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self(rustix::io::dup(stream.io()).ok().map(Arc::new))
    }
}

/// An address where nobody listens: a port that was free a moment ago.
pub async fn closed_port() -> io::Result<SocketAddr> {
    TcpListener::bind(("127.0.0.1", 0)).await?.local_addr()
}
