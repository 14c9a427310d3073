//! What a command finds of each layer, looked at from inside: a command of our own that tries what it should not be
//! able to do.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::thread::{SecureComputingMode, UnshareFlags, capability_is_in_bounding_set, secure_computing_mode};
use serde::{Deserialize, Serialize};

use super::identity::{HOME, HOST_NAME};
use super::kernel_files;
use super::layer::Layer;
use super::plan::Network;
use super::privileges::{NO_CORE, every_capability};
use super::sys;
use crate::proc;

/// How long the network outside is tried.
const CONNECT: Duration = Duration::from_millis(500);

/// What was seen of one layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Which one.
    pub layer: Layer,
    /// Whether it holds.
    pub holds: bool,
    /// What was tried, and what came of it.
    pub seen: String,
}

/// What a command is to find, as the runner knows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Expected {
    /// A port of the runner's own loopback, where something listens.
    pub port: u16,
    /// What the operator lets commands reach over a network.
    pub network: Network,
    /// Folders that commands see in covered ones: the workspace, by both its names, and what the operator opens.
    pub opened: Vec<PathBuf>,
    /// What is to be empty.
    pub hidden: Vec<PathBuf>,
    /// The runner's namespaces, by their kind.
    pub namespaces: BTreeMap<String, PathBuf>,
}

/// The kinds of namespace that commands have of their own.
const NAMESPACES: [&str; 5] = ["mnt", "pid", "net", "ipc", "uts"];

/// The namespaces of this process, as far as /proc tells.
pub(super) fn namespaces() -> BTreeMap<String, PathBuf> {
    let link = |kind: &&str| Some(((*kind).to_owned(), fs::read_link(format!("/proc/self/ns/{kind}")).ok()?));
    NAMESPACES.iter().filter_map(link).collect()
}

/// Tries every layer but [`Layer::Init`], as a command in the sandbox: to be called in a process that it has started,
/// in the workspace. Takes half a second at most.
pub fn try_layers(expected: &Expected) -> Vec<Finding> {
    type Try = fn(&Expected) -> (bool, String);
    let tries: [(Layer, Try); 12] = [
        (Layer::OrdinaryUser, ordinary_user),
        (Layer::UserNamespace, user_namespace),
        (Layer::Namespaces, own_namespaces),
        (Layer::Image, image),
        (Layer::Workspace, |_| writable(Path::new("."))),
        (Layer::Scratch, |_| writable(Path::new(HOME))),
        (Layer::Devices, devices),
        (Layer::Proc, processes),
        (Layer::Loopback, loopback),
        (Layer::Limits, limits),
        (Layer::Privileges, privileges),
        (Layer::Seccomp, seccomp),
    ];
    tries
        .into_iter()
        .map(|(layer, attempt)| {
            let (holds, seen) = attempt(expected);
            Finding { layer, holds, seen }
        })
        .collect()
}

fn ordinary_user(_: &Expected) -> (bool, String) {
    let uid = rustix::process::getuid().as_raw();
    (uid != 0, format!("commands are uid {uid}"))
}

fn user_namespace(_: &Expected) -> (bool, String) {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let fields: Vec<&str> = map.split_whitespace().collect();
    (
        matches!(fields[..], [_, _, "1"]),
        format!("uid_map {:?}", fields.join(" ")),
    )
}

fn own_namespaces(expected: &Expected) -> (bool, String) {
    let ours = namespaces();
    let open = expected.network == Network::Pod;
    let shared: Vec<&str> = NAMESPACES
        .into_iter()
        .filter(|kind| !(open && *kind == "net"))
        .filter(|kind| {
            ours.get(*kind)
                .is_some_and(|own| expected.namespaces.get(*kind) == Some(own))
        })
        .collect();
    if !shared.is_empty() {
        return (false, format!("the runner's own: {}", shared.join(", ")));
    }
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if host.trim() != HOST_NAME {
        return (false, format!("the machine's own name: {}", host.trim()));
    }
    if open {
        return (true, "all but the network, which COMMAND_NETWORK=pod opens".into());
    }
    let runner = SocketAddr::from((Ipv4Addr::LOCALHOST, expected.port));
    match TcpStream::connect_timeout(&runner, CONNECT) {
        Ok(_) => (false, "the runner's own loopback can be reached".into()),
        Err(error) => (true, format!("connecting to the runner's loopback: {error}")),
    }
}

fn image(expected: &Expected) -> (bool, String) {
    // Who may not write the image's files anyway learns nothing by trying.
    let mounts = proc::mounts().unwrap_or_default();
    let root = mounts.iter().find(|mount| mount.place == Path::new("/"));
    if !root.is_some_and(|root| root.has("ro")) {
        let options = root.map(|root| root.options.as_str()).unwrap_or_default();
        return (false, format!("/ is mounted with {options:?}"));
    }
    let folders = ["/etc", "/usr", "/var"];
    let inside = |folder: &Path| expected.opened.iter().any(|opened| folder.starts_with(opened));
    for folder in folders
        .iter()
        .map(Path::new)
        .filter(|folder| folder.is_dir() && !inside(folder))
    {
        let file = folder.join(".plue-doctor");
        if fs::write(&file, "").is_ok() {
            let _ = fs::remove_file(&file);
            return (false, format!("{} can be written", folder.display()));
        }
    }
    let kernel_files = [kernel_files::PROCESSORS, kernel_files::GROUP].map(PathBuf::from);
    let opened: Vec<PathBuf> = expected.opened.iter().cloned().chain(kernel_files).collect();
    let homes = expected.hidden.iter().filter(|path| path.is_dir());
    for folder in homes {
        if let Some(seen) = not_opened(folder, &opened) {
            return (false, format!("{} can be seen", seen.display()));
        }
    }
    match fs::write("/.plue-doctor", "") {
        Ok(()) => (false, "/ can be written".into()),
        Err(error) => (
            true,
            format!("/ is mounted read-only, writing it: {error}; homes and /run are empty but for what is opened"),
        ),
    }
}

/// What is seen in a covered folder and is neither opened nor on the way to what is.
fn not_opened(folder: &Path, opened: &[PathBuf]) -> Option<PathBuf> {
    if opened.iter().any(|opened| folder.starts_with(opened)) {
        return None;
    }
    let entries = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    entries.into_iter().find_map(|entry| {
        let leads_there = opened.iter().any(|opened| opened.starts_with(&entry));
        if leads_there {
            not_opened(&entry, opened)
        } else {
            Some(entry)
        }
    })
}

fn writable(folder: &Path) -> (bool, String) {
    let file = folder.join(format!(".plue-doctor-{}", proc::own_pid()));
    let shown = folder.display();
    match fs::write(&file, "plue").and_then(|()| fs::remove_file(&file)) {
        Ok(()) => (true, format!("a file was written in {shown}, and removed")),
        Err(error) => (false, format!("writing in {shown}: {error}")),
    }
}

fn devices(_: &Expected) -> (bool, String) {
    let known = [
        "null", "zero", "full", "random", "urandom", "fd", "stdin", "stdout", "stderr", "shm", "pts", "ptmx", "tty",
    ];
    let entries = fs::read_dir("/dev").into_iter().flatten().flatten();
    let others: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !known.contains(&name.as_str()))
        .collect();
    let seen = match Path::new("/dev/ptmx").exists() {
        true => "null, zero, full, random, urandom, terminals of their own, and no other",
        false => "null, zero, full, random, urandom and no other; no terminals",
    };
    match fs::write("/dev/null", "plue") {
        Err(error) => (false, format!("writing /dev/null: {error}")),
        Ok(()) if others.is_empty() => (true, seen.into()),
        Ok(()) => (false, format!("/dev has {}", others.join(", "))),
    }
}

/// Ourselves, our attendant and the init are all that there is.
fn processes(_: &Expected) -> (bool, String) {
    match proc::pids() {
        Ok(pids) => (
            pids.len() <= 3 && pids.contains(&proc::own_pid()),
            format!("{} processes in /proc, ourselves included", pids.len()),
        ),
        Err(error) => (false, format!("reading /proc: {error}")),
    }
}

fn loopback(_: &Expected) -> (bool, String) {
    let talk = || -> io::Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        TcpStream::connect(listener.local_addr()?).map(drop)
    };
    match talk() {
        Ok(()) => (true, "a connection to ourselves".into()),
        Err(error) => (false, format!("a connection to ourselves: {error}")),
    }
}

fn limits(_: &Expected) -> (bool, String) {
    use rustix::process::{Resource, getrlimit};
    let of = |resource| getrlimit(resource).maximum;
    let (files, size, core) = (of(Resource::Nofile), of(Resource::Fsize), of(Resource::Core));
    let shown = |limit: Option<u64>| limit.map_or_else(|| "none".into(), |limit| limit.to_string());
    (
        files.is_some() && size.is_some() && core.is_some_and(|core| core <= NO_CORE),
        format!(
            "open files {}, bytes of a file {}, core {}",
            shown(files),
            shown(size),
            shown(core)
        ),
    )
}

fn privileges(_: &Expected) -> (bool, String) {
    let no_new = rustix::thread::no_new_privs().unwrap_or(false);
    let bounding = every_capability().filter(|&one| capability_is_in_bounding_set(one).unwrap_or(false));
    let bounding = bounding.count();
    let word = if no_new { "set" } else { "not set" };
    (
        no_new && bounding == 0,
        format!("no_new_privs is {word}, {bounding} capabilities in the bounding set"),
    )
}

fn seccomp(_: &Expected) -> (bool, String) {
    let mode = secure_computing_mode().unwrap_or(SecureComputingMode::Disabled);
    // With capabilities or without, a user namespace could be made: only the filter refuses it.
    let refused = sys::unshare(UnshareFlags::NEWUSER);
    let answer = refused.as_ref().map_or_else(ToString::to_string, |()| "allowed".into());
    (
        mode == SecureComputingMode::Filter && refused.is_err(),
        format!("PR_GET_SECCOMP is {}, unshare: {answer}", mode as i32),
    )
}
