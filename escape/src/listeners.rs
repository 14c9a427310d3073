//! Sockets of the outside: whoever reaches one of them has left the sandbox.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use tokio::net::{TcpListener, UdpSocket, UnixDatagram, UnixListener};
use tokio::task::JoinHandle;

/// See the module. Dropping it closes them.
pub struct Listeners {
    pub tcp: SocketAddr,
    /// None on a machine without IPv6.
    pub tcp6: Option<SocketAddr>,
    pub udp: SocketAddr,
    /// Without the NUL in front.
    pub abstract_name: String,
    pub path: PathBuf,
    reached: Reached,
    tasks: Vec<JoinHandle<()>>,
}

type Reached = Arc<Mutex<Vec<String>>>;

impl Listeners {
    pub async fn open(scene: &str, folder: &Path) -> Result<Self> {
        let reached = Reached::default();
        let mut tasks = Vec::new();
        let tcp = free(|port| TcpListener::bind(("127.0.0.1", port)))
            .await
            .context("listen on loopback")?;
        let tcp_address = tcp.local_addr()?;
        tasks.push(accept(tcp, "TCP", &reached));
        let tcp6_address = match free(|port| TcpListener::bind(("::1", port))).await {
            Ok(listener) => {
                let address = listener.local_addr()?;
                tasks.push(accept(listener, "TCP over IPv6", &reached));
                Some(address)
            }
            Err(_) => None,
        };
        let udp = free(|port| UdpSocket::bind(("127.0.0.1", port)))
            .await
            .context("bind a UDP socket")?;
        let udp_address = udp.local_addr()?;
        tasks.push(tokio::spawn({
            let reached = Arc::clone(&reached);
            async move {
                let mut buffer = [0; 2048];
                while udp.recv_from(&mut buffer).await.is_ok() {
                    note(&reached, "UDP");
                }
            }
        }));
        let path = folder.join("listener.socket");
        tasks.push(accept_unix(
            UnixListener::bind(&path).context("bind a socket file")?,
            "the socket file",
            &reached,
        ));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777))?;
        let abstract_name = format!("plue-escape-{scene}");
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&abstract_name)?;
        let listener = std::os::unix::net::UnixListener::bind_addr(&address).context("bind an abstract socket")?;
        listener.set_nonblocking(true)?;
        tasks.push(accept_unix(
            UnixListener::from_std(listener)?,
            "the abstract socket",
            &reached,
        ));
        let address = std::os::unix::net::SocketAddr::from_abstract_name(format!("{abstract_name}-datagram"))?;
        let socket = std::os::unix::net::UnixDatagram::bind_addr(&address).context("bind an abstract socket")?;
        socket.set_nonblocking(true)?;
        let socket = UnixDatagram::from_std(socket)?;
        tasks.push(tokio::spawn({
            let reached = Arc::clone(&reached);
            async move {
                let mut buffer = [0; 64];
                while socket.recv(&mut buffer).await.is_ok() {
                    note(&reached, "the abstract datagram socket");
                }
            }
        }));
        Ok(Self {
            tcp: tcp_address,
            tcp6: tcp6_address,
            udp: udp_address,
            abstract_name,
            path,
            reached,
            tasks,
        })
    }

    /// Which of them were reached so far.
    pub fn reached(&self) -> Vec<String> {
        self.reached.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Ports that no kernel gives to who asks for any.
const PORTS: Range<u16> = 10_000..16_000;

/// Binds one of them. A port of those that the kernel gives away may have been somebody else's a moment ago, on this
/// machine of many tests, and who still calls there would be taken for an attack.
async fn free<T, F: Future<Output = io::Result<T>>>(bind: impl Fn(u16) -> F) -> io::Result<T> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..100 {
        let number = getrandom::u32().map_err(io::Error::other)?;
        let width = u32::from(PORTS.end - PORTS.start);
        match bind(PORTS.start + (number % width) as u16).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = error,
            result => return result,
        }
    }
    Err(last)
}

fn note(reached: &Reached, which: &str) {
    reached
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(which.to_owned());
}

fn accept(listener: TcpListener, which: &'static str, reached: &Reached) -> JoinHandle<()> {
    let reached = Arc::clone(reached);
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            note(&reached, which);
        }
    })
}

fn accept_unix(listener: UnixListener, which: &'static str, reached: &Reached) -> JoinHandle<()> {
    let reached = Arc::clone(reached);
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            note(&reached, which);
        }
    })
}
