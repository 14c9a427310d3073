//! One pod in gVisor: what kubelet and containerd do with it, by the program `runsc`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use support::processes::{below, parent};
use tokio::io::AsyncReadExt;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::network::Network;
use crate::runsc::{LIMIT, Runsc};

/// What a kubelet does from outside, as the manifest and the image have it (`pod.json`).
#[derive(Debug, Deserialize)]
pub struct Facts {
    pub grace_seconds: u64,
    pub pre_stop: Option<Vec<String>>,
    pub startup: Option<Vec<String>>,
    pub liveness: Option<Vec<String>>,
    pub readiness: Option<Vec<String>>,
    /// The image's own HEALTHCHECK.
    pub health: Vec<String>,
}

/// Where pods come from.
pub struct Node {
    pub runsc: PathBuf,
    pub bundles: PathBuf,
    /// Whether this machine has control groups for the pods' limits.
    pub limits: bool,
}

/// What a pod takes of the machine's memory, in bytes: each process has its share of what several have (PSS).
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Of the runner: its processes' own memory, and the files of the image that they have mapped.
    pub runner: u64,
    /// Of all of it, gVisor's own processes included.
    pub whole: u64,
    /// As gVisor counts for `runsc events`: every mapped page of a file, whether it is in memory or not.
    pub counted: u64,
}

impl Memory {
    pub fn most(self, other: Self) -> Self {
        Self {
            runner: self.runner.max(other.runner),
            whole: self.whole.max(other.whole),
            counted: self.counted.max(other.counted),
        }
    }
}

/// One pod. It ends with the value.
pub struct Pod {
    runsc: Runsc,
    pub facts: Facts,
    pub folder: PathBuf,
    log: JoinHandle<String>,
    /// What `runsc wait` says at the end.
    ended: Option<JoinHandle<io::Result<Output>>>,
    /// Goes with the pod.
    _network: Network,
}

impl Node {
    /// Makes the pod `name` ready: its sandbox is up, and its process has not begun.
    pub async fn create(&self, name: &str) -> Result<Pod> {
        let folder = self.bundles.join(name);
        let facts = read_json(&folder.join("pod.json"))?;
        let runsc = Runsc {
            program: self.runsc.clone(),
            state: self.bundles.join("state"),
            limits: self.limits,
            id: format!("plue-{name}-{}", std::process::id()),
        };
        let network = Network::new().await.context("the pod's network")?;
        let mut config = read_json(&folder.join("config.json"))?;
        let namespaces = config["linux"]["namespaces"].as_array_mut();
        let namespaces = namespaces.context("config.json has no namespaces")?;
        // That of the last pod of this bundle.
        namespaces.retain(|namespace| namespace["type"] != "network");
        namespaces.push(json!({ "type": "network", "path": network.path()? }));
        fs::write(folder.join("config.json"), config.to_string()).context("could not write config.json")?;
        let bundle = folder.to_string_lossy();
        // gVisor writes to a file at an offset of its own, so it gets a pipe. The log and what goes wrong are one text.
        let (theirs, mut ours) = tokio::net::unix::pipe::pipe().context("make a pipe")?;
        let theirs = theirs.into_blocking_fd().context("make a pipe for a child")?;
        let status = runsc
            .command(&["create", "--bundle", &bundle, &runsc.id])
            .stdout(theirs.try_clone().context("make a pipe for a child")?)
            .stderr(theirs)
            .status();
        let status = timeout(LIMIT, status).await.context("`runsc create` does not end")??;
        let log = tokio::spawn(async move {
            let mut text = Vec::new();
            let _ = ours.read_to_end(&mut text).await;
            String::from_utf8_lossy(&text).into_owned()
        });
        let pod = Pod {
            runsc,
            facts: serde_json::from_value(facts).context("pod.json is none")?,
            folder,
            log,
            ended: None,
            _network: network,
        };
        if !status.success() {
            bail!("`runsc create` failed ({status}): {}", pod.log().await);
        }
        Ok(pod)
    }
}

impl Pod {
    /// Begins its process. Gives the moment before.
    pub async fn start(&mut self) -> Result<Instant> {
        let at = Instant::now();
        self.runsc.read(&["start", &self.runsc.id]).await?;
        // The exit code is lost with the sandbox, which ends with the process: somebody has to wait from the beginning.
        let mut waiting = self.runsc.command(&["wait", &self.runsc.id]);
        self.ended = Some(tokio::spawn(async move { waiting.output().await }));
        Ok(at)
    }

    /// Its root file system.
    pub fn root(&self) -> Result<PathBuf> {
        let config = read_json(&self.folder.join("config.json"))?;
        let root = config["root"]["path"].as_str();
        root.map(PathBuf::from).context("config.json names no root")
    }

    /// A folder that is a volume of the pod.
    pub fn volume(&self, name: &str) -> PathBuf {
        self.folder.join("volumes").join(name)
    }

    /// Runs a command in the pod as kubelet does for a probe: as its user, with its variables.
    pub async fn exec(&self, argv: &[String]) -> Result<Output> {
        let config = read_json(&self.folder.join("config.json"))?;
        let mut process = config["process"].clone();
        process["args"] = json!(argv);
        let file = self.folder.join("exec.json");
        fs::write(&file, process.to_string()).with_context(|| format!("could not write {}", file.display()))?;
        self.runsc
            .run(&["exec", "--process", &file.to_string_lossy(), &self.runsc.id])
            .await
    }

    /// Like [`Pod::exec`], for what has to succeed.
    pub async fn must_exec(&self, argv: &[String]) -> Result<String> {
        let output = self.exec(argv).await?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "`{}` in the pod ended with {}: {said}{}",
            argv.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(said)
    }

    pub async fn signal(&self, name: &str) -> Result<()> {
        self.runsc.read(&["kill", &self.runsc.id, name]).await.map(drop)
    }

    /// Ends it as kubelet does: the hook, then SIGTERM, and SIGKILL when the grace is over. Gives the exit code.
    pub async fn stop(&mut self) -> Result<i64> {
        let grace = Duration::from_secs(self.facts.grace_seconds);
        let in_time = timeout(grace, async {
            if let Some(hook) = &self.facts.pre_stop {
                // When the pod ends under it, it ends too, and is no failure.
                self.exec(hook).await?;
            }
            // It may have ended by the hook.
            let _ = self.signal("TERM").await;
            self.wait().await
        });
        in_time
            .await
            .context("the pod was not gone within its grace, and would be killed")?
    }

    pub fn has_ended(&self) -> bool {
        self.ended.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// The exit code, when the process has ended.
    pub async fn wait(&mut self) -> Result<i64> {
        let ended = self.ended.as_mut().context("the pod was not started, or has ended")?;
        let ended = timeout(LIMIT, ended).await.context("the pod does not end")???;
        self.ended = None;
        let said = String::from_utf8_lossy(&ended.stdout).into_owned();
        let code = serde_json::from_str::<Value>(&said)
            .ok()
            .and_then(|said| said["exitStatus"].as_i64());
        code.with_context(|| format!("`runsc wait` gave {said}{}", String::from_utf8_lossy(&ended.stderr)))
    }

    pub async fn memory(&self) -> Result<Memory> {
        let events = self.runsc.read(&["events", "--stats", &self.runsc.id]).await?;
        let events: Value = serde_json::from_str(&events).with_context(|| format!("`runsc events` gave {events}"))?;
        let counted = events["data"]["memory"]["usage"]["usage"].as_u64();
        let mut memory = Memory {
            counted: counted.with_context(|| format!("`runsc events` says nothing of memory: {events}"))?,
            ..Memory::default()
        };
        for process in self.processes()? {
            for (file, share) in shares(process) {
                memory.whole += share;
                // gVisor keeps the memory of the pod's processes in a file of its own.
                let of_image = file.starts_with('/') && !file.starts_with("/memfd:") && !file.ends_with("/runsc");
                if of_image || file.starts_with("/memfd:runsc-memory") {
                    memory.runner += share;
                }
            }
        }
        Ok(memory)
    }

    /// The processor time that all of it has taken, gVisor's own processes included.
    pub fn processor(&self) -> Result<Duration> {
        let mut ticks = 0;
        for process in self.roots()? {
            let all = std::iter::once(process).chain(below(process).into_iter().map(|(id, _)| id));
            ticks += all.map(ticks_of).sum::<u64>();
        }
        Ok(Duration::from_millis(
            ticks * 1000 / rustix::param::clock_ticks_per_second(),
        ))
    }

    /// The processes whose memory is all of this pod's: the sandbox, what it has started, and what gives it files.
    fn processes(&self) -> Result<Vec<i32>> {
        let mut found = Vec::new();
        for root in self.roots()? {
            found.push(root);
            // Each is the memory of one process of the pod. What is below them has the same memory once more.
            let below = below(root).into_iter().map(|(id, _)| id);
            found.extend(below.filter(|child| parent(*child) == Some(root)));
        }
        Ok(found)
    }

    /// gVisor's two processes for this pod: the sandbox, and what gives it files.
    fn roots(&self) -> Result<Vec<i32>> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").context("could not read /proc")?.flatten() {
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            let kind = command.split(' ').next().unwrap_or_default();
            let ours = command.contains(&self.runsc.id) || command.contains(&*self.folder.to_string_lossy());
            if ours && ["runsc-sandbox", "runsc-gofer"].contains(&kind) {
                found.push(id);
            }
        }
        Ok(found)
    }

    /// All that it has said, when it has ended.
    pub async fn log(mut self) -> String {
        timeout(LIMIT, &mut self.log)
            .await
            .map_or_else(|_| "(its log does not end)".to_owned(), |text| text.unwrap_or_default())
    }
}

fn read_json(file: &Path) -> Result<Value> {
    let text = fs::read_to_string(file).with_context(|| format!("could not read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no JSON", file.display()))
}

/// The processor time of a process in ticks; none when it has ended.
fn ticks_of(id: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // `pid (name) state …`, and the name may hold anything; the two figures are the 14th and the 15th.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields
        .skip(11)
        .take(2)
        .filter_map(|ticks| ticks.parse::<u64>().ok())
        .sum()
}

/// What a process has in memory, by file; the name is empty for what is in no file. None when it has ended.
fn shares(id: i32) -> Vec<(String, u64)> {
    let maps = fs::read_to_string(format!("/proc/{id}/smaps")).unwrap_or_default();
    let mut shares = Vec::new();
    let mut file = "";
    for line in maps.lines() {
        if let Some(share) = line.strip_prefix("Pss:") {
            let kilobytes: u64 = share.trim().trim_end_matches("kB").trim().parse().unwrap_or_default();
            shares.push((file.to_owned(), kilobytes * 1024));
        } else if line.starts_with(|first: char| first.is_ascii_digit() || ('a'..='f').contains(&first)) {
            // addresses, rights, offset, device, inode, name
            file = line.splitn(6, ' ').nth(5).unwrap_or_default().trim();
        }
    }
    shares
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.log.abort();
        // Also after an error nothing of it stays.
        let mut delete = self.runsc.command(&["delete", "--force", &self.runsc.id]);
        let _ = delete.as_std_mut().output();
    }
}
