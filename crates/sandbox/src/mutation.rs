//! The protections that a mutation run switches off one at a time, to see that an attack notices each of them.
//!
//! Only a build with the feature `mutations` can: in what is shipped [`Protection::is_off`] is the constant `false`,
//! and no variable, task or file changes that.

use crate::with_all::with_all;

with_all! {
    /// One protection that holds attacks back.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Protection {
        /// Commands see the image read-only, without homes and secrets.
        Mount,
        /// Commands see no process but their own.
        Pid,
        /// Commands have no network but their own loopback.
        Network,
        /// Commands start with a clean environment, and so does the sandbox's init.
        Environment,
        /// The system calls that are refused.
        Seccomp,
        /// Commands hold no capability, and cannot get one.
        Privileges,
        /// A component gets the interfaces of its grant only.
        Grant,
        /// A tool's call and a command end when their time is over.
        Deadline,
        /// A component's memory, and that of a command's whole tree, is bounded.
        Memory,
        /// The number of processes of a command's whole tree is bounded.
        Processes,
        /// What a command started ends with it.
        Reaping,
        /// The limits that the kernel keeps for each process: open files, file size, no core.
        Rlimits,
    }
}

impl Protection {
    /// Its name, as `PLUE_MUTATION` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Protection::Mount => "mount",
            Protection::Pid => "pid",
            Protection::Network => "network",
            Protection::Environment => "environment",
            Protection::Seccomp => "seccomp",
            Protection::Privileges => "privileges",
            Protection::Grant => "grant",
            Protection::Deadline => "deadline",
            Protection::Memory => "memory",
            Protection::Processes => "processes",
            Protection::Reaping => "reaping",
            Protection::Rlimits => "rlimits",
        }
    }

    /// Whether the mutation run has switched it off.
    #[cfg(not(feature = "mutations"))]
    pub const fn is_off(self) -> bool {
        false
    }

    /// Whether the mutation run has switched it off: `PLUE_MUTATION` names it, in a list with commas.
    #[cfg(feature = "mutations")]
    pub fn is_off(self) -> bool {
        let names = std::env::var("PLUE_MUTATION").unwrap_or_default();
        names.split(',').any(|name| name == self.name())
    }
}
