//! What commands may not have: privileges, and more than their share of what the kernel hands out.

use std::sync::OnceLock;

use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

use super::layer::{InLayer, Layer, MissingLayer};
use super::plan::Plan;

/// Signals that wait for a process: they are counted for a user, and others of that user need some.
const PENDING_SIGNALS: u64 = 1024;
/// What POSIX message queues may hold, in bytes: the kernel's own default, which an operator may have raised.
const MESSAGE_QUEUES: u64 = 819_200;
/// No core is written below the size of its header, and to the kernel this number says besides that no program is to
/// be handed one: for that, 0 is no limit at all.
pub(super) const NO_CORE: u64 = 1;
/// The largest file that a command may write: 16 GiB.
const FILE_SIZE: u64 = 16 << 30;
/// Processes and threads, for each process that a command may have. The bound on a command's tree is the attendant's,
/// which has to look; where the kernel keeps this one (gVisor does not), it holds a fork bomb until the attendant has.
const THREADS_PER_PROCESS: u64 = 8;
/// Few processes may have many threads.
const MIN_THREADS: u64 = 4096;

/// How many threads all processes of a command may have together.
pub(super) fn max_threads(plan: &Plan) -> u64 {
    (u64::from(plan.processes) * THREADS_PER_PROCESS).max(MIN_THREADS)
}

/// Every capability that a kernel may know, with room for some more: a kernel refuses what it does not know.
pub(super) fn every_capability() -> impl Iterator<Item = CapabilitySet> {
    (0..u64::BITS).map(|number| CapabilitySet::from_bits_retain(1 << number))
}

/// How many files this process may have open, as whoever started it said; from now on as many as it can. Descriptors on
/// their way between processes are counted for a user: another of the same user may have sent more than the soft limit,
/// and nobody with that limit can send one then.
pub(super) fn raise_own_open_files() -> u64 {
    static BEFORE: OnceLock<u64> = OnceLock::new();
    *BEFORE.get_or_init(|| {
        let found = getrlimit(Resource::Nofile);
        let raised = Rlimit {
            current: found.maximum,
            ..found
        };
        // Who may not goes on with what there is.
        let _ = setrlimit(Resource::Nofile, raised);
        found.current.unwrap_or(u64::MAX)
    })
}

/// Limits what one process can have.
pub(super) fn limit(plan: &Plan) -> Result<(), MissingLayer> {
    let limits = [
        (Resource::Nproc, max_threads(plan), "RLIMIT_NPROC"),
        (Resource::Nofile, plan.open_files, "RLIMIT_NOFILE"),
        (Resource::Fsize, FILE_SIZE, "RLIMIT_FSIZE"),
        (Resource::Core, NO_CORE, "RLIMIT_CORE"),
    ];
    for (resource, max, name) in limits {
        set(resource, max).in_layer(Layer::Limits, format!("setting {name}"))?;
    }
    // What a kernel counts for a user. gVisor has one user's count for nobody but us, and refuses these limits.
    for (resource, max) in [
        (Resource::Sigpending, PENDING_SIGNALS),
        (Resource::Msgqueue, MESSAGE_QUEUES),
    ] {
        let _ = set(resource, max);
    }
    Ok(())
}

fn set(resource: Resource, max: u64) -> rustix::io::Result<()> {
    // The hard limit cannot be raised, and `None` is no limit.
    let max = getrlimit(resource).maximum.map_or(max, |hard| hard.min(max));
    let both = Rlimit {
        current: Some(max),
        maximum: Some(max),
    };
    setrlimit(resource, both)
}

/// Gives up all capabilities, and every way to new ones.
pub(super) fn give_up() -> Result<(), MissingLayer> {
    for capability in every_capability() {
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The kernel knows no more.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error).in_layer(Layer::Privileges, "dropping the bounding set"),
        }
    }
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none).in_layer(Layer::Privileges, "dropping capabilities")?;
    set_no_new_privs(true).in_layer(Layer::Privileges, "setting no_new_privs")?;
    // Commands are of our user: without this they could look into our memory.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .in_layer(Layer::Privileges, "hiding the sandbox process from commands")
}
