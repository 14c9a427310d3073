//! What commands may not have: privileges, and more than their share of what the kernel hands out.

use std::io;

use super::layer::{Layer, MissingLayer, OfLayer};
use super::plan::Plan;
use super::sys;

/// The highest capability that a kernel may know, with room for some more.
const CAPABILITIES: u64 = 64;
/// Open files of one process.
const OPEN_FILES: u64 = 8192;
/// The largest file that a command may write: 16 GiB.
const FILE_SIZE: u64 = 16 << 30;
/// Processes and threads, for each process that a command may have. The bound on a command's tree is the supervisor's,
/// which has to look; where the kernel keeps this one (gVisor does not), it holds a fork bomb until the supervisor has.
const THREADS_PER_PROCESS: u64 = 8;
/// Few processes may have many threads.
const LEAST_THREADS: u64 = 4096;

/// How many threads all processes of a command may have together.
pub(super) fn most_threads(plan: &Plan) -> u64 {
    (u64::from(plan.processes) * THREADS_PER_PROCESS).max(LEAST_THREADS)
}

/// Limits what one process can have.
pub(super) fn limit(plan: &Plan) -> Result<(), MissingLayer> {
    let limits = [
        (libc::RLIMIT_NPROC, most_threads(plan), "RLIMIT_NPROC"),
        (libc::RLIMIT_NOFILE, OPEN_FILES, "RLIMIT_NOFILE"),
        (libc::RLIMIT_FSIZE, FILE_SIZE, "RLIMIT_FSIZE"),
        (libc::RLIMIT_CORE, 0, "RLIMIT_CORE"),
    ];
    for (resource, most, name) in limits {
        sys::limit(resource, most).of(Layer::Limits, format!("setting {name}"))?;
    }
    Ok(())
}

/// Gives up all capabilities, and every way to new ones.
pub(super) fn give_up() -> Result<(), MissingLayer> {
    for capability in 0..CAPABILITIES {
        match sys::prctl(libc::PR_CAPBSET_DROP, capability) {
            Ok(_) => {}
            // The kernel knows no more.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => break,
            Err(error) => return Err(error).of(Layer::Privileges, "dropping the bounding set"),
        }
    }
    sys::drop_capabilities().of(Layer::Privileges, "dropping capabilities")?;
    sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).of(Layer::Privileges, "setting no_new_privs")?;
    // Commands are of our user: without this they could look into our memory.
    sys::prctl(libc::PR_SET_DUMPABLE, 0).of(Layer::Privileges, "hiding the sandbox process from commands")?;
    Ok(())
}
