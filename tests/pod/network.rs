//! The network of one pod: a namespace of its own, and a cable from there to the one that this program is in. gVisor
//! takes the cable's end over with its own network stack, as it does in a cluster.

use std::fs;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

/// Where the API server and the model are. The pods' `/etc/hosts` has the same (xtask/src/pod/mod.rs).
pub const API: &str = "10.88.0.1";
pub const MODEL: &str = "10.88.0.2";
/// The ends of the cable: ours, and the pod's.
const GATEWAY: &str = "10.88.0.254";
const POD: &str = "10.88.0.9";

/// The name of our end.
const CABLE: &str = "plue0";

/// Gives the two servers their addresses. Refuses to where there is any network: this is for a namespace of our own.
pub async fn prepare() -> Result<()> {
    let interfaces = fs::read_to_string("/proc/net/dev").context("could not read /proc/net/dev")?;
    let others: Vec<&str> = interfaces
        .lines()
        .filter_map(|line| Some(line.split_once(':')?.0.trim()))
        .filter(|name| *name != "lo")
        .collect();
    ensure!(
        others.is_empty(),
        "this changes the network, so it runs in a network namespace of its own (`cargo xtask pod` makes it), \
         and here is: {}",
        others.join(", ")
    );
    hide_root_sign().await?;
    ip("link set lo up").await?;
    for address in [API, MODEL] {
        ip(&format!("address add {address}/32 dev lo")).await?;
    }
    Ok(())
}

/// Debian's runsc takes a namespace where this file can be seen for the machine's own, and refuses to take its
/// interfaces; Linux shows it in all of them since 6.11 (<https://github.com/google/gvisor/issues/10704>). Nobody
/// outside of our mount namespace, which `cargo xtask pod` makes too, sees that it is gone.
async fn hide_root_sign() -> Result<()> {
    const SIGN: &str = "/proc/sys/net/core/rmem_default";
    if fs::exists(SIGN).unwrap_or_default() {
        // Each network namespace has a folder `net` of its own, and there is only one place above all of them.
        run("sh", ["-euc", HIDE].into_iter())
            .await
            .context("could not hide /proc/sys/net")?;
    }
    Ok(())
}

/// Everything of /proc/sys but `net`. The originals stay open as descriptors while an empty folder is put over them.
const HIDE: &str = "
exec 3</proc/sys/fs 4</proc/sys/kernel 5</proc/sys/vm
mount -t tmpfs -o size=64k,mode=755 none /proc/sys
mkdir /proc/sys/fs /proc/sys/kernel /proc/sys/vm
mount --bind --no-canonicalize /proc/self/fd/3 /proc/sys/fs
mount --bind --no-canonicalize /proc/self/fd/4 /proc/sys/kernel
mount --bind --no-canonicalize /proc/self/fd/5 /proc/sys/vm";

/// The namespace lives as long as the value.
pub struct Network {
    holder: Child,
}

impl Network {
    pub async fn new() -> Result<Self> {
        // A process in it keeps a namespace. What it prints says that it is there.
        let mut holder = Command::new("unshare")
            .args(["--net", "--", "sh", "-c", "echo; exec sleep infinity"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("could not start `unshare`; is it installed?")?;
        let mut ready = [0];
        let stdout = holder.stdout.as_mut().context("unshare has no output")?;
        stdout
            .read_exact(&mut ready)
            .await
            .context("no network namespace can be made here")?;
        let network = Self { holder };
        let id = network.id()?;
        ip(&format!("link add {CABLE} type veth peer name eth0 netns {id}")).await?;
        ip(&format!("address add {GATEWAY}/24 dev {CABLE}")).await?;
        ip(&format!("link set {CABLE} up")).await?;
        for inside in [
            format!("address add {POD}/24 dev eth0"),
            "link set lo up".to_owned(),
            "link set eth0 up".to_owned(),
            format!("route add default via {GATEWAY}"),
        ] {
            let enter = ["--target", &id, "--net", "ip"].map(str::to_owned);
            run("nsenter", enter.iter().map(String::as_str).chain(inside.split(' '))).await?;
        }
        Ok(network)
    }

    /// Where the kernel shows it.
    pub fn path(&self) -> Result<String> {
        Ok(format!("/proc/{}/ns/net", self.id()?))
    }

    fn id(&self) -> Result<String> {
        let id = self
            .holder
            .id()
            .context("the process that keeps the network has ended")?;
        Ok(id.to_string())
    }
}

async fn ip(arguments: &str) -> Result<()> {
    run("ip", arguments.split(' ')).await
}

async fn run(program: &str, arguments: impl Iterator<Item = &str>) -> Result<()> {
    let arguments: Vec<&str> = arguments.collect();
    let output = Command::new(program)
        .args(&arguments)
        .stdin(Stdio::null())
        .output()
        .await
        .with_context(|| format!("could not start {program}"))?;
    ensure!(
        output.status.success(),
        "{program} {} failed: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
