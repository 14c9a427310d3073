//! The layers of the sandbox by their names, with what each is for, and what an operator does when one is missing.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::with_all::with_all;

with_all! {
    /// One layer, in the order in which they are made. All of them are needed: a sandbox that lacks one does not start.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum Layer {
        /// The process that makes the sandbox, and stays as its init.
        Init,
        /// An ordinary user for the commands of a runner that is root.
        OrdinaryUser,
        /// The user namespace, in which the other namespaces can be made.
        UserNamespace,
        /// Files, processes, network, IPC objects and a host name of their own.
        Namespaces,
        /// The image read-only, with homes and secrets covered.
        Image,
        /// A /dev of their own, with five harmless devices.
        Devices,
        /// A /tmp, /var/tmp and /dev/shm of their own, in memory.
        Scratch,
        /// The workspace at its own place, writable.
        Workspace,
        /// A /proc that shows the PID namespace.
        Proc,
        /// A loopback interface of their own that is up.
        Loopback,
        /// Bounds on what a process may have, and what tells how much memory the pod has.
        Limits,
        /// No capability, and no way to any.
        Privileges,
        /// The filter of system calls.
        Seccomp,
    }
}

impl Layer {
    /// Its name, as errors and `plue-runner doctor` have it.
    pub fn name(self) -> &'static str {
        match self {
            Layer::Init => "sandbox process",
            Layer::OrdinaryUser => "ordinary user",
            Layer::UserNamespace => "user namespace",
            Layer::Namespaces => "mount, PID, network, IPC and UTS namespaces",
            Layer::Image => "read-only image",
            Layer::Workspace => "workspace",
            Layer::Scratch => "private /tmp",
            Layer::Devices => "minimal /dev",
            Layer::Proc => "fresh /proc",
            Layer::Loopback => "loopback",
            Layer::Limits => "resource limits",
            Layer::Privileges => "no privileges",
            Layer::Seccomp => "system call filter",
        }
    }

    /// What it is for.
    pub fn meaning(self) -> &'static str {
        match self {
            Layer::Init => "commands are started by a process that never held a secret",
            Layer::OrdinaryUser => "commands of a runner that is root do not run as root",
            Layer::UserNamespace => "the other namespaces can be made without being root",
            Layer::Namespaces => "commands have their own files, processes and network",
            Layer::Image => "commands read the image, without homes and secrets, and write none of it",
            Layer::Workspace => "commands write the workspace",
            Layer::Scratch => "commands share no temporary file with anybody",
            Layer::Devices => "commands reach no device but null, zero, full and random",
            Layer::Proc => "commands see no process but their own",
            Layer::Loopback => "commands have a network of their own to test with",
            Layer::Limits => "a command cannot take all files, or fill the disk with one",
            Layer::Privileges => "commands hold no capability and cannot gain one",
            Layer::Seccomp => "commands cannot call what only an attack needs",
        }
    }

    /// What to do when it cannot be had.
    pub fn remedy(self) -> &'static str {
        match self {
            Layer::Init => "see that the runner's binary may be executed and that processes are left to start",
            Layer::OrdinaryUser => {
                "run the runner as an ordinary user (runAsUser: 1000), or let uid 60999 write the workspace \
                 (chown 60999, or a mode that lets everybody)"
            }
            Layer::UserNamespace => {
                "allow user namespaces: in a pod use runtimeClassName gvisor; on Ubuntu `sysctl \
                 kernel.apparmor_restrict_unprivileged_userns=0` or an AppArmor profile with `userns,`; on Debian \
                 `sysctl kernel.unprivileged_userns_clone=1`; `sysctl user.max_user_namespaces` must not be 0; Docker \
                 needs --security-opt seccomp=unconfined (its own filter refuses unshare)"
            }
            Layer::Namespaces => {
                "allow namespaces: `sysctl user.max_mnt_namespaces user.max_pid_namespaces user.max_net_namespaces` \
                 must not be 0, and no seccomp filter or AppArmor profile around the runner may refuse unshare"
            }
            Layer::Image => {
                "allow mounts in a user namespace: on Ubuntu an AppArmor profile refuses them; see `userns,`"
            }
            Layer::Workspace => {
                "see that WORKSPACE is a folder that the runner's user may write, and none of /, /tmp and the system's \
                 own"
            }
            Layer::Scratch | Layer::Devices => {
                "allow tmpfs and bind mounts in a user namespace; /dev must have null, zero, full, random and urandom"
            }
            Layer::Proc => {
                "let the container's own /proc be seen whole: Docker and containerd mask parts of it; in a pod use \
                 runtimeClassName gvisor or procMount: Unmasked, in Docker --security-opt systempaths=unconfined"
            }
            Layer::Loopback => "allow network namespaces, or give commands the pod's network with COMMAND_NETWORK=pod",
            Layer::Limits => "raise the hard limits of the runner's own process (ulimit -H)",
            Layer::Privileges => "no filter around the runner may refuse prctl and capset",
            Layer::Seccomp => "use a kernel with seccomp filters (CONFIG_SECCOMP_FILTER)",
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A layer that could not be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error(
    "the sandbox cannot be made, its layer \"{layer}\" is missing: {doing}: {problem}. What to do: {}",
    remedy.as_deref().unwrap_or(layer.remedy())
)]
pub struct MissingLayer {
    /// Which one.
    pub layer: Layer,
    /// What was tried.
    pub doing: String,
    /// What the system said.
    pub problem: String,
    /// What to do, when that is not what mends the layer otherwise.
    pub remedy: Option<String>,
}

impl MissingLayer {
    pub(super) fn new(layer: Layer, doing: impl Into<String>, problem: impl fmt::Display) -> Self {
        Self {
            layer,
            doing: doing.into(),
            problem: problem.to_string(),
            remedy: None,
        }
    }

    /// The same with something better to do.
    pub(super) fn with_remedy(self, remedy: impl Into<String>) -> Self {
        Self {
            remedy: Some(remedy.into()),
            ..self
        }
    }
}

/// Says which layer a failed step belongs to.
pub(super) trait InLayer<T> {
    fn in_layer(self, layer: Layer, doing: impl Into<String>) -> Result<T, MissingLayer>;
}

impl<T, E: fmt::Display> InLayer<T> for Result<T, E> {
    fn in_layer(self, layer: Layer, doing: impl Into<String>) -> Result<T, MissingLayer> {
        self.map_err(|error| MissingLayer::new(layer, doing, error))
    }
}
