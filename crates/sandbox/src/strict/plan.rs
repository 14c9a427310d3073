//! What a sandbox is to look like: decided by the runner, sent once to the init, which obeys.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::pod;

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
}

/// How many processes a command may have, when nobody says otherwise.
pub const DEFAULT_PROCESSES: u32 = 512;

impl Default for CommandRules {
    fn default() -> Self {
        Self {
            network: Network::default(),
            read_paths: Vec::new(),
            memory: None,
            processes: DEFAULT_PROCESSES,
        }
    }
}

/// Folders of the image, or of somebody's machine, that commands find empty. Sockets, secrets and homes are there.
const HIDDEN: [&str; 7] = [
    "/run",
    "/var/run",
    "/run/secrets",
    "/var/run/secrets",
    "/root",
    "/home",
    "/sys",
];

/// The whole sandbox, in one message.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    /// The workspace, without links in its path.
    pub(super) workspace: PathBuf,
    /// The workspace as the operator names it.
    pub(super) named: PathBuf,
    /// What is covered by an empty folder, unless the operator opens that very folder.
    pub(super) hidden: Vec<PathBuf>,
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
}

impl Plan {
    /// The plan for a workspace. `own` are the runner's own folders (its plugins, for one), which commands do not see.
    pub(super) fn new(workspace: &Path, named: &Path, own: &[PathBuf], rules: &CommandRules) -> Self {
        // In the workspace it is as good as any folder of it.
        let home = home().filter(|home| !home.starts_with(workspace));
        let hidden = HIDDEN.iter().map(PathBuf::from).chain(home).collect();
        Self {
            workspace: workspace.to_owned(),
            named: named.to_owned(),
            hidden,
            own: own.to_owned(),
            read_paths: rules.read_paths.clone(),
            network: rules.network,
            memory: rules.memory.unwrap_or_else(|| pod::memory() / 4 * 3),
            processes: rules.processes,
        }
    }
}

/// Folders that nobody's home is, though the list of users may say so, and that commands need.
const NO_HOMES: [&str; 11] = [
    "/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/dev", "/proc", "/tmp", "/var", "/opt",
];

/// The home of the runner's user, wherever the image has it.
fn home() -> Option<PathBuf> {
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    home_of(&users, rustix::process::geteuid().as_raw())
}

/// A user's home by the lines of /etc/passwd: `name:password:uid:gid:comment:home:shell`.
fn home_of(users: &str, uid: u32) -> Option<PathBuf> {
    let line = users
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.get(2).is_some_and(|field| field.parse() == Ok(uid)))?;
    let home = Path::new(line.get(5)?);
    let is_a_home = home.is_absolute()
        && home.parent().is_some()
        && !NO_HOMES.iter().any(|folder| match *folder {
            // Whole programs live there, and in a folder of it somebody's home may be.
            "/var" | "/opt" => home == Path::new(folder),
            folder => home.starts_with(folder),
        });
    is_a_home.then(|| home.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_home_is_found_wherever_it_is_and_a_folder_of_the_system_is_none() {
        let users = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/usr/sbin:/x\nsys:x:3:3::/dev:/x\nnone:x:4:4::/:/x\n\
                     app:x:1000:1000::/opt/app:/bin/sh\nopt:x:5:5::/opt:/x\nbroken\nother:x:1001:1001:,,,:/data/home\n";
        for (uid, home) in [
            (0, Some("/root")),
            (1, None),
            (3, None),
            (4, None),
            (5, None),
            (1000, Some("/opt/app")),
            (1001, Some("/data/home")),
            (7, None),
        ] {
            assert_eq!(home_of(users, uid), home.map(PathBuf::from), "{uid}");
        }
    }
}
