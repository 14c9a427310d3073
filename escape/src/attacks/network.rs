//! Ways out of a command by a network.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use plue_sandbox::mutation::Protection;

use crate::attack::{Attack, Baseline, Class};
use crate::scene::Scene;
use crate::sys;
use crate::target::{Outcome, Target};

const NETWORK: &[Protection] = &[Protection::Network];
const PATIENCE: Duration = Duration::from_secs(2);
const NO_ROUTE: Baseline = Baseline::Unless(
    &[
        libc::ENETUNREACH,
        libc::EHOSTUNREACH,
        libc::EADDRNOTAVAIL,
        libc::EAFNOSUPPORT,
    ],
    "this machine has no way there itself",
);

const NO_ANSWER: Baseline = Baseline::Unless(
    &[
        libc::ENETUNREACH,
        libc::EHOSTUNREACH,
        libc::EADDRNOTAVAIL,
        libc::ECONNREFUSED,
        libc::EAGAIN,
        libc::EAFNOSUPPORT,
    ],
    "this machine has no name service, or it says nothing",
);

const fn attack(id: &'static str, what: &'static str, run: fn(&Target) -> Outcome) -> Attack {
    Attack::program(id, Class::Network, what, run)
}

/// Whether there is a way to an address. Connecting a UDP socket sends nothing.
fn route(from: &str, to: &str) -> Outcome {
    Outcome::of(
        &format!("a way to {to}"),
        UdpSocket::bind(from).and_then(|socket| socket.connect(to)),
    )
}

fn tcp(address: SocketAddr) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&address, PATIENCE)
}

/// Sends a question to a name service and waits for any answer.
fn ask(server: IpAddr) -> io::Result<usize> {
    // A header that asks one question, and the name `localhost.` with type A and class IN.
    const QUESTION: &[u8] = b"\x50\x4c\x01\0\0\x01\0\0\0\0\0\0\x09localhost\0\0\x01\0\x01";
    let from: SocketAddr = match server {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(from)?;
    socket.connect((server, 53))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(QUESTION)?;
    socket.recv(&mut [0; 512])
}

/// Something that the callback might take for an event.
fn forge(target: &Target) -> io::Result<String> {
    let rest = target.callback.strip_prefix("http://").unwrap_or_default();
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let address: SocketAddr = host.parse().map_err(io::Error::other)?;
    let mut stream = tcp(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let body = r#"{"type":"done","task_id":"task-7","seq":0,"sandbox":"strict"}"#;
    write!(
        stream,
        "POST /{path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nConnection: \
            close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn unix_abstract(target: &Target) -> io::Result<std::os::unix::net::SocketAddr> {
    std::os::unix::net::SocketAddr::from_abstract_name(&target.abstract_socket)
}

/// Listens at a socket file in each place that holds what is somebody's own, for as long as the scene is there.
fn serve(scene: &Scene) -> anyhow::Result<()> {
    scene.private.iter().try_for_each(|folder| serve_in(scene, folder))
}

fn serve_in(scene: &Scene, folder: &Path) -> anyhow::Result<()> {
    let path = folder.join("service.socket");
    let listener = UnixListener::bind(&path).with_context(|| format!("listen at {}", path.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
    scene.meanwhile(move || {
        let _open = &listener;
        std::thread::sleep(Duration::from_millis(50));
        true
    });
    Ok(())
}

pub const ATTACKS: &[&[Attack]] = &[&[
    attack(
        "network/tcp-to-the-loopback-outside",
        "connects to a listener of the machine's loopback",
        |target| Outcome::of("connect", tcp(target.tcp)),
    )
    .falls_without(NETWORK),
    attack(
        "network/tcp-over-ipv6",
        "connects to a listener of the machine's loopback by IPv6",
        |target| match target.tcp6 {
            Some(address) => Outcome::of("connect", tcp(address)),
            None => Outcome::refused("listen on ::1", &io::Error::from_raw_os_error(libc::EAFNOSUPPORT)),
        },
    )
    .baseline(NO_ROUTE),
    attack(
        "network/tcp-over-mapped-ipv4",
        "connects by an IPv6 socket to an IPv4 address (::ffff:127.0.0.1)",
        |target| {
            let address = SocketAddr::new(Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(), target.tcp.port());
            Outcome::of("connect", tcp(address))
        },
    )
    .baseline(NO_ROUTE),
    attack(
        "network/tcp-to-any-address",
        "connects to 0.0.0.0, which is the own machine",
        |target| {
            Outcome::of(
                "connect",
                tcp(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), target.tcp.port())),
            )
        },
    )
    .falls_without(NETWORK),
    attack(
        "network/tcp-to-another-loopback-address",
        "connects to 127.0.0.1 from 127.0.0.2",
        |target| {
            let result = sys::connect_from(Ipv4Addr::new(127, 0, 0, 2), target.tcp.port());
            Outcome::of("connect", result)
        },
    )
    .falls_without(NETWORK),
    attack("network/udp", "sends a datagram to the machine's loopback", |target| {
        let sent = UdpSocket::bind("127.0.0.1:0").and_then(|socket| {
            socket.connect(target.udp)?;
            socket.send(b"plue")?;
            // A port that nobody has open answers, and the next call says so.
            std::thread::sleep(Duration::from_millis(100));
            socket.send(b"plue")
        });
        match sent {
            Ok(_) if target.baseline => Outcome::GotThrough("it was sent".to_owned()),
            Ok(_) => Outcome::held("it was sent; whether it came is seen outside"),
            Err(error) => Outcome::refused("send", &error),
        }
    })
    .falls_without(NETWORK),
    attack(
        "network/name-service",
        "asks the machine's name service, and gets an answer",
        |_| {
            let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
            let servers = text
                .lines()
                .filter_map(|line| line.strip_prefix("nameserver "))
                .filter_map(|server| server.trim().parse::<IpAddr>().ok());
            let none = Outcome::refused(
                "find a name service",
                &io::Error::from_raw_os_error(libc::EADDRNOTAVAIL),
            );
            let asked = servers.map(|server| Outcome::of(&format!("a question to {server}"), ask(server)));
            Outcome::any([none].into_iter().chain(asked))
        },
    )
    .baseline(NO_ANSWER),
    attack("network/the-internet", "has a way to the internet", |_| {
        route("0.0.0.0:0", "192.0.2.1:443")
    })
    .baseline(NO_ROUTE),
    attack(
        "network/the-internet-by-ipv6",
        "has a way to the internet by IPv6",
        |_| route("[::]:0", "[2001:db8::1]:443"),
    )
    .baseline(NO_ROUTE),
    attack(
        "network/cloud-metadata",
        "has a way to the cloud's metadata (169.254.169.254)",
        |_| route("0.0.0.0:0", "169.254.169.254:80"),
    )
    .baseline(NO_ROUTE),
    attack("network/cluster-api", "has a way to the cluster's API server", |_| {
        let host = std::env::var("KUBERNETES_SERVICE_HOST").unwrap_or_else(|_| "10.96.0.1".to_owned());
        route("0.0.0.0:0", &format!("{host}:443"))
    })
    .baseline(NO_ROUTE),
    attack("network/broadcast", "sends to everybody on the network", |_| {
        Outcome::of(
            "a broadcast",
            UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
                socket.set_broadcast(true)?;
                socket.connect("255.255.255.255:9")
            }),
        )
    })
    .baseline(NO_ROUTE),
    attack(
        "network/forged-event",
        "sends a forged event to the callback",
        |target| match forge(target) {
            Ok(answer) => Outcome::GotThrough(format!(
                "the callback answered: {}",
                answer.lines().next().unwrap_or_default()
            )),
            Err(error) => Outcome::refused("connect", &error),
        },
    )
    .falls_without(NETWORK),
    attack(
        "network/pod-token",
        "reads the token that lets a pod talk to its cluster",
        |_| {
            let folders = ["/var/run/secrets", "/run/secrets"];
            let found = folders.iter().flat_map(fs::read_dir).flatten().flatten().next();
            match found {
                Some(entry) => Outcome::GotThrough(format!("{} is in sight", entry.path().display())),
                None => Outcome::refused("find a secret of the pod", &io::Error::from_raw_os_error(libc::ENOENT)),
            }
        },
    )
    .baseline(Baseline::Unless(&[libc::ENOENT], "this machine has no such secrets")),
    attack(
        "network/abstract-socket",
        "connects to an abstract socket, which no mount hides (CVE-2020-15257)",
        |target| {
            Outcome::of(
                "connect",
                unix_abstract(target).and_then(|address| UnixStream::connect_addr(&address)),
            )
        },
    )
    .falls_without(NETWORK),
    attack(
        "network/abstract-datagram",
        "sends a datagram to an abstract socket",
        |target| {
            let name = format!("{}-datagram", target.abstract_socket);
            let sent = std::os::unix::net::SocketAddr::from_abstract_name(name)
                .and_then(|address| UnixDatagram::unbound()?.send_to_addr(b"plue", &address));
            Outcome::of("send", sent)
        },
    )
    .falls_without(NETWORK),
    attack(
        "network/abstract-sockets-listed",
        "sees the abstract sockets of the outside in /proc/net/unix",
        |target| sees(target, "/proc/net/unix", &target.abstract_socket),
    )
    .baseline(NO_LIST)
    .falls_without(NETWORK),
    attack("network/socket-file", "connects to a socket file outside", |target| {
        Outcome::of("connect", UnixStream::connect(&target.socket))
    })
    .falls_without(&[Protection::Mount]),
    attack(
        "network/socket-file-of-a-service",
        "connects to a socket file among what runs, where services have theirs",
        |target| {
            let none = Outcome::refused("find such a place", &io::Error::from_raw_os_error(libc::ENODATA));
            let tries = target.private.iter().map(|folder| {
                let path = folder.join("service.socket");
                Outcome::of("connect", UnixStream::connect(path))
            });
            Outcome::any([none].into_iter().chain(tries))
        },
    )
    .setup(serve)
    .baseline(Baseline::Unless(
        &[libc::ENODATA],
        "no home and no /run takes files of ours",
    ))
    .falls_without(&[Protection::Mount]),
    attack(
        "network/socket-file-in-the-image",
        "connects to the socket of a service that has it among the programs",
        |target| match &target.visible {
            Some(folder) => Outcome::of("connect", UnixStream::connect(folder.join("service.socket"))),
            None => Outcome::refused("find such a place", &io::Error::from_raw_os_error(libc::ENODATA)),
        },
    )
    .setup(|scene| scene.visible.iter().try_for_each(|folder| serve_in(scene, folder)))
    .baseline(Baseline::Unless(
        &[libc::ENODATA],
        "no folder of the image takes files of ours",
    ))
    .falls_without(&[Protection::Mount]),
    attack(
        "network/socket-file-in-run",
        "connects to the sockets of the machine's services",
        |_| {
            let candidates = [
                "/run/docker.sock",
                "/var/run/docker.sock",
                "/run/containerd/containerd.sock",
                "/run/dbus/system_bus_socket",
                "/run/systemd/private",
                "/run/systemd/journal/stdout",
            ];
            Outcome::any(candidates.map(|path| Outcome::of(path, UnixStream::connect(path))))
        },
    )
    .baseline(Baseline::Unless(
        &[libc::ENOENT, libc::ECONNREFUSED, libc::EACCES],
        "this machine has no such services",
    )),
    attack(
        "network/connections-listed",
        "sees the connections of the outside in /proc/net/tcp",
        |target| sees(target, "/proc/net/tcp", &format!(":{:04X} ", target.tcp.port())),
    )
    .baseline(NO_LIST)
    .falls_without(NETWORK),
    attack(
        "network/interfaces",
        "has a network interface besides its loopback",
        |_| {
            let text = match fs::read_to_string("/proc/net/dev") {
                Ok(text) => text,
                Err(error) => return Outcome::refused("read /proc/net/dev", &error),
            };
            // Tunnels that the kernel makes by itself lead nowhere.
            const IDLE: [&str; 8] = [
                "lo", "sit0", "tunl0", "gre0", "gretap0", "erspan0", "ip6tnl0", "ip_vti0",
            ];
            let names = text
                .lines()
                .filter_map(|line| line.split_once(':'))
                .map(|(name, _)| name.trim().to_owned());
            match names
                .into_iter()
                .find(|name| !IDLE.contains(&&**name) && !name.starts_with("ip6"))
            {
                Some(name) => Outcome::GotThrough(format!("there is {name}")),
                None => Outcome::refused("find an interface", &io::Error::from_raw_os_error(libc::ENODEV)),
            }
        },
    )
    .baseline(Baseline::Unless(
        &[libc::ENODEV, libc::ENOENT],
        "this machine has none itself",
    )),
    attack("network/packet-socket", "listens to all packets (AF_PACKET)", |_| {
        Outcome::of("AF_PACKET", sys::socket(libc::AF_PACKET, libc::SOCK_RAW, 0x0300))
    })
    .baseline(Baseline::InNamespacesUnless(
        &[libc::EAFNOSUPPORT, libc::EPERM],
        "this kernel has it not",
    ))
    .falls_without(&[Protection::Seccomp, Protection::Privileges]),
    attack("network/raw-icmp", "sends ICMP by a raw socket", |_| {
        Outcome::of(
            "a raw socket",
            sys::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
        )
    })
    .baseline(Baseline::InNamespacesUnless(
        &[libc::EPERM, libc::EPROTONOSUPPORT],
        "this kernel has it not",
    ))
    .falls_without(&[Protection::Privileges]),
    attack(
        "network/ping-socket",
        "sends ICMP by the kind of socket that needs no rights, to an address of the internet",
        |_| Outcome::of("a ping", sys::ping(Ipv4Addr::new(192, 0, 2, 1))),
    )
    .baseline(Baseline::Unless(
        &[
            libc::EACCES,
            libc::EPERM,
            libc::EPROTONOSUPPORT,
            libc::ENETUNREACH,
            libc::EHOSTUNREACH,
        ],
        "this kernel gives such sockets to nobody here, or there is no way out",
    )),
    attack(
        "network/empty-choice-of-a-network",
        "connects to the machine's loopback where the operator's COMMAND_NETWORK is empty, which must not mean all",
        |target| Outcome::of("connect", tcp(target.tcp)),
    )
    .env(&[("COMMAND_NETWORK", "")])
    .falls_without(NETWORK),
    attack("network/raw-ipv6", "sends what it likes by a raw IPv6 socket", |_| {
        Outcome::of(
            "a raw socket",
            sys::socket(libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_RAW),
        )
    })
    .baseline(Baseline::InNamespacesUnless(
        &[libc::EPERM, libc::EPROTONOSUPPORT, libc::EAFNOSUPPORT],
        "this kernel has it not",
    )),
    attack(
        "network/socket-pairs",
        "makes sockets of other families by socketpair, which refuses them after it has made them",
        |_| {
            let families = [
                ("AF_NETLINK", libc::AF_NETLINK, libc::SOCK_RAW),
                ("AF_VSOCK", libc::AF_VSOCK, libc::SOCK_STREAM),
                ("AF_ALG", libc::AF_ALG, libc::SOCK_SEQPACKET),
                ("AF_TIPC", libc::AF_TIPC, libc::SOCK_STREAM),
                ("AF_BLUETOOTH", libc::AF_BLUETOOTH, libc::SOCK_RAW),
                ("AF_CAN", libc::AF_CAN, libc::SOCK_RAW),
            ];
            Outcome::any(families.map(|(name, family, kind)| Outcome::of(name, sys::socket_pair(family, kind))))
        },
    )
    .baseline(Baseline::Unless(
        &[
            libc::EAFNOSUPPORT,
            libc::ESOCKTNOSUPPORT,
            libc::EPROTONOSUPPORT,
            libc::EPERM,
        ],
        "this kernel has none of them",
    )),
]];

/// Whether a list of the kernel has something in it.
const NO_LIST: Baseline = Baseline::Unless(
    &[libc::ENOENT, libc::ENODATA, libc::ENOTSUP],
    "there is no such list here, or this kernel shows it whole in every network namespace, as gVisor does",
);

fn sees(target: &Target, list: &str, wanted: &str) -> Outcome {
    match fs::read_to_string(list) {
        // No namespace hides what the kernel does not keep apart.
        Ok(text) if text.contains(wanted) && target.baseline && is_seen_in_every_namespace(list, wanted) => {
            Outcome::refused(list, &io::Error::from_raw_os_error(libc::ENOTSUP))
        }
        Ok(text) if text.contains(wanted) => Outcome::GotThrough(format!("{wanted:?} is in {list}")),
        Ok(text) if text.lines().count() <= 1 => Outcome::refused(list, &io::Error::from_raw_os_error(libc::ENODATA)),
        Ok(_) => Outcome::held(format!("{wanted:?} is not in {list}")),
        Err(error) => Outcome::refused(list, &error),
    }
}

/// Whether the list has it in a network namespace that was made for nothing else.
fn is_seen_in_every_namespace(list: &str, wanted: &str) -> bool {
    let script = format!("grep -qF -- '{wanted}' {list}");
    let found = std::env::current_exe().and_then(|program| {
        std::process::Command::new(program)
            .args(["in-namespaces", "/bin/sh", "-c", &script])
            .status()
    });
    found.is_ok_and(|status| status.success())
}
