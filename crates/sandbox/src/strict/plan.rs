//! What a sandbox is to look like: decided by the runner, sent once to the init, which obeys.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{pod, private};

/// What commands may reach over a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// A loopback of their own, and nothing else.
    #[default]
    None,
    /// What the pod may reach, the runner's own loopback included.
    Pod,
}

/// How commands are confined, as the operator set it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandRules {
    /// What commands may reach over a network.
    pub network: Network,
    /// Folders that commands may read though they lie in covered ones. A sandbox with one that does not exist does not
    /// start.
    pub read_paths: Vec<PathBuf>,
    /// What all processes of one command may use together, in bytes. `None`: three quarters of what the pod has.
    pub memory: Option<u64>,
    /// How many processes one command may have at a time.
    pub processes: u32,
    /// How many files each of its processes may have open at a time.
    pub open_files: u64,
    /// How long a command that is to end has between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// How much all commands of a sandbox may keep in their temporary folders, in bytes. `None`: half of `memory` where
    /// these are in memory, and [`DEFAULT_TMP_SIZE`] on a disk.
    pub tmp_size: Option<u64>,
    /// What the operator gives to every command. What the task gives counts more.
    pub env: BTreeMap<String, String>,
}

/// How many processes a command may have, when nobody says otherwise.
pub const DEFAULT_PROCESSES: u32 = 512;
/// How many open files, likewise. Descriptors on their way between processes are counted for a user: whoever may have
/// more of them than others takes theirs away.
pub const DEFAULT_OPEN_FILES: u64 = 1024;
/// How much on a disk, likewise: 4 GiB.
pub const DEFAULT_TMP_SIZE: u64 = 4 << 30;
/// How long between SIGTERM and SIGKILL, likewise.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(10);

impl Default for CommandRules {
    fn default() -> Self {
        Self {
            network: Network::default(),
            read_paths: Vec::new(),
            memory: None,
            processes: DEFAULT_PROCESSES,
            open_files: DEFAULT_OPEN_FILES,
            grace: DEFAULT_GRACE,
            tmp_size: None,
            env: BTreeMap::new(),
        }
    }
}

/// Folders of the image, or of somebody's machine, that commands find empty. Sockets, secrets and homes are there.
/// Those of a Mac or of Windows are where a Linux in one mounts them.
const HIDDEN: [&str; 12] = [
    "/run",
    "/var/run",
    "/run/secrets",
    "/var/run/secrets",
    "/root",
    "/home",
    "/sys",
    "/Users",
    "/mnt",
    "/media",
    "/srv/home",
    "/export/home",
];

/// Places that commands have of their own, whatever the image has there.
pub(super) const REPLACED: [&str; 4] = ["/tmp", "/var/tmp", "/dev", "/proc"];

/// The whole sandbox, in one message.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    /// The workspace, without links in its path.
    pub(super) workspace: PathBuf,
    /// The workspace as the operator names it.
    pub(super) named: PathBuf,
    /// What is covered by an empty folder or file, unless the operator opens that very folder.
    pub(super) hidden: Vec<PathBuf>,
    /// Sockets of the machine's services, which are covered unless they lie in the workspace.
    pub(super) sockets: Vec<PathBuf>,
    /// The runner's own folders, which are covered whatever is opened.
    pub(super) own: Vec<PathBuf>,
    /// What is opened again below them, read-only.
    pub(super) read_paths: Vec<PathBuf>,
    /// What commands may reach over a network.
    pub(super) network: Network,
    /// What all processes of a command, and of all commands that run at the same time, may use together, in bytes.
    pub(super) memory: u64,
    /// How many processes they may be, zombies included.
    pub(super) processes: u32,
    /// The folder on a disk for the temporary files of commands. `None`: they are kept in memory.
    pub(super) disk: Option<PathBuf>,
    /// How much they may be, in bytes.
    pub(super) tmp_size: u64,
    /// The user of commands, when the runner is root.
    pub(super) user: u32,
    /// How many files each process may have open.
    pub(super) open_files: u64,
    /// Between SIGTERM and SIGKILL.
    pub(super) grace: Duration,
    /// What every command has in its environment, below what it is given itself.
    pub(super) env: BTreeMap<String, String>,
    /// The share of the processors that the pod has, in the words of its control group. `None`: all of them.
    pub(super) processor_share: Option<String>,
}

impl Plan {
    /// The plan for a workspace, for commands of this user with temporary files in this folder. `own` are the runner's
    /// own folders (its plugins, for one), which commands do not see.
    pub(super) fn new(
        workspace: &Path,
        named: &Path,
        own: &[PathBuf],
        rules: &CommandRules,
        user: u32,
        disk: Option<&Path>,
    ) -> Self {
        let look_up = |name: &str| std::env::var(name).ok();
        let private = private::folders_and_files(&look_up);
        // In the workspace it is as good as any folder of it, and around the workspace it is where that lies.
        let private = private.into_iter().filter(|path| !path.starts_with(workspace));
        // Where the temporary files of other sandboxes are.
        let shared = disk.and_then(Path::parent).map(Path::to_owned);
        let hidden = HIDDEN.iter().map(PathBuf::from).chain(private).chain(shared);
        let is_replaced = |path: &PathBuf| REPLACED.iter().any(|place| path.starts_with(place));
        let hidden = hidden.filter(|path| !is_replaced(path)).collect();
        let memory = rules.memory.unwrap_or_else(|| pod::memory() / 4 * 3);
        let tmp_size = if disk.is_some() { DEFAULT_TMP_SIZE } else { memory / 2 };
        Self {
            workspace: workspace.to_owned(),
            named: named.to_owned(),
            hidden,
            sockets: private::sockets(),
            own: own.to_owned(),
            read_paths: rules.read_paths.clone(),
            network: rules.network,
            memory,
            disk: disk.map(Path::to_owned),
            tmp_size: rules.tmp_size.unwrap_or(tmp_size),
            processes: rules.processes,
            user,
            open_files: rules.open_files,
            grace: rules.grace,
            env: rules.env.clone(),
            processor_share: pod::processor_share(),
        }
    }
}
