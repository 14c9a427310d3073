//! The sandbox's own processes, from the exec to the loop that starts supervisors of commands.
//!
//! The runner starts itself anew with an empty environment, so that nothing here has ever held a secret. What starts is
//! the *keeper*, which makes the namespaces and forks the *init*: the first process of the PID namespace, at whose end
//! the kernel ends all others. The init ends when the runner hangs up, in whatever way the runner ended.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::UnshareFlags;

use super::children::{self, Children};
use super::layer::{Layer, MissingLayer, OfLayer};
use super::plan::{Network, Plan};
use super::pod::Meter;
use super::sys::{self, Fork};
use super::tree::Tree;
use super::wire::{self, Setup};
use super::{mounts, privileges, seccomp, supervisor, user};
use crate::mutation::Protection;

/// Our name as a process, by which the binary knows that it is to be the sandbox's init.
pub(super) const NAME: &str = "plue-sandbox";
/// The descriptor of the socket to the runner.
const SOCKET: i32 = 0;
const STDERR: i32 = 2;
/// What the machine of the commands is called.
pub(super) const HOST_NAME: &str = "sandbox";

/// What all supervisors are given.
pub(super) struct Shared<'a> {
    pub(super) plan: &'a Plan,
    pub(super) meter: Meter,
    /// The file system in memory that /tmp is on.
    scratch: Option<OwnedFd>,
}

impl Shared<'_> {
    /// What the files in the scratch file system take of the memory, in bytes.
    pub(super) fn scratch_used(&self) -> u64 {
        let found = self
            .scratch
            .as_ref()
            .and_then(|scratch| rustix::fs::fstatvfs(scratch).ok());
        found.map_or(0, |found| {
            found
                .f_blocks
                .saturating_sub(found.f_bfree)
                .saturating_mul(found.f_frsize)
        })
    }
}

/// Becomes the sandbox's init, and does not return, when the process was started as such.
pub fn run_if_asked() {
    if std::env::args_os().next().is_some_and(|name| name == NAME) {
        sys::exit(run());
    }
}

fn run() -> i32 {
    let Ok(socket) = sys::inherited(SOCKET) else {
        return 2;
    };
    let result = sys::close_from(STDERR + 1)
        .of(Layer::Init, "closing what the runner was started with")
        .and_then(|()| wire::read_message::<Plan>(&socket).of(Layer::Init, "reading the plan"))
        .and_then(|plan| keep(&socket, &plan));
    match result {
        Ok(code) => code,
        Err(missing) => {
            let _ = wire::write_message(&socket, &Setup::Missing(missing));
            2
        }
    }
}

/// Makes the namespaces, starts the init in them, and waits for it.
fn keep(socket: &OwnedFd, plan: &Plan) -> Result<i32, MissingLayer> {
    if !Protection::Privileges.is_off() {
        user::leave_root(plan)?;
    }
    user::enter_namespace()?;
    let mut namespaces = UnshareFlags::NEWNS | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    if !Protection::Pid.is_off() {
        namespaces |= UnshareFlags::NEWPID;
    }
    if plan.network == Network::None && !Protection::Network.is_off() {
        namespaces |= UnshareFlags::NEWNET;
    }
    sys::unshare(namespaces).of(
        Layer::Namespaces,
        "unshare of the mount, PID, network, IPC and UTS namespaces",
    )?;
    match sys::fork().of(Layer::Namespaces, "starting the init of the PID namespace")? {
        Fork::Parent(init) => Ok(children::wait(init)),
        Fork::Child => {
            let made = become_init(plan).and_then(|shared| {
                // Wherever the keeper is killed, we end too. Not before now: changes of rights would undo it.
                set_parent_process_death_signal(Some(Signal::KILL)).of(Layer::Init, "tying the init to its keeper")?;
                Ok(shared)
            });
            let _ = match made {
                Ok(shared) => wire::write_message(socket, &Setup::Ready).and_then(|()| serve(socket.as_fd(), &shared)),
                Err(missing) => wire::write_message(socket, &Setup::Missing(missing)),
            };
            // With us everything in the namespace ends.
            sys::exit(0)
        }
    }
}

/// Everything that commands will find, and what they will not.
fn become_init(plan: &Plan) -> Result<Shared<'_>, MissingLayer> {
    let meter = Meter::open().of(Layer::Limits, "looking at the memory of the pod")?;
    // Where the kernel runs out of memory all the same, it ends a command rather than the runner.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    let scratch = mounts::change_root(plan)?;
    rustix::system::sethostname(HOST_NAME.as_bytes()).of(Layer::Namespaces, "naming the machine")?;
    if plan.network == Network::None && !Protection::Network.is_off() {
        match sys::loopback_up() {
            // gVisor's is up already, and cannot be switched.
            Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => {}
            result => result.of(Layer::Loopback, "switching the loopback interface on")?,
        }
    }
    if !Protection::Rlimits.is_off() {
        privileges::limit(plan)?;
    }
    if !Protection::Privileges.is_off() {
        privileges::give_up()?;
    }
    if !Protection::Seccomp.is_off() {
        seccomp::install()?;
    }
    sys::hold_child_signals().of(Layer::Init, "waiting for the end of commands")?;
    Ok(Shared { plan, meter, scratch })
}

/// Starts supervisors, until the runner hangs up.
fn serve(socket: BorrowedFd<'_>, shared: &Shared<'_>) -> io::Result<()> {
    // The sockets of the supervisors that live. Hanging up tells the runner that nothing of a command is left, so it is
    // done only when that is true.
    let mut supervisors: BTreeMap<i32, OwnedFd> = BTreeMap::new();
    loop {
        if sys::wait_for_input(socket, None)? {
            let (count, sockets) = wire::receive_descriptors(socket, &mut [0])?;
            if count == 0 {
                return Ok(());
            }
            for socket in sockets {
                start_supervisor(socket, shared, &mut supervisors);
            }
        }
        bury(socket, &mut supervisors)?;
    }
}

/// One that cannot be started hangs up.
fn start_supervisor(socket: OwnedFd, shared: &Shared<'_>, supervisors: &mut BTreeMap<i32, OwnedFd>) {
    match sys::fork() {
        Ok(Fork::Child) => {
            // The sockets of others are none of its business.
            supervisors.clear();
            sys::exit(supervisor::serve(socket.as_fd(), shared))
        }
        Ok(Fork::Parent(pid)) => {
            supervisors.insert(pid, socket);
        }
        Err(_) => {}
    }
}

/// Takes note of children that have ended. A child that is no supervisor is what a command left behind whose supervisor
/// was killed, by the command itself for instance: it is ended here.
///
/// # Errors
/// When the runner has hung up meanwhile: it is not waited for processes that end with us anyway.
fn bury(socket: BorrowedFd<'_>, supervisors: &mut BTreeMap<i32, OwnedFd>) -> io::Result<()> {
    let mut over = Vec::new();
    let mut rounds = 0;
    loop {
        match children::reap_or_stopped() {
            Children::Exited(child) => over.extend(supervisors.remove(&child.pid)),
            // No supervisor stops itself. A command has stopped it, which then knew no bounds.
            Children::Stopped(pid) => children::kill(pid, Signal::KILL),
            Children::Running if supervisors.is_empty() || !over.is_empty() => {
                rounds += 1;
                if !end_orphans(supervisors, rounds > supervisor::ROUNDS) {
                    return Ok(());
                }
                if wire::has_hung_up(socket)? {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
                std::thread::sleep(supervisor::PAUSE);
            }
            Children::Running | Children::None => return Ok(()),
        }
    }
}

/// Kills what is below us and below no supervisor. Whether there was any.
fn end_orphans(supervisors: &BTreeMap<i32, OwnedFd>, at_once: bool) -> bool {
    let all = || {
        // Faster than they can multiply. Other commands end with them, and say so.
        children::kill_all(Signal::KILL);
        true
    };
    if supervisors.is_empty() || at_once {
        return all();
    }
    let Ok(tree) = Tree::read() else {
        return all();
    };
    let mut orphans = tree.below(supervisor::us());
    for supervisor in supervisors.keys() {
        let theirs = tree.below(*supervisor);
        orphans.retain(|pid| pid != supervisor && !theirs.contains(pid));
    }
    for pid in &orphans {
        children::kill(*pid, Signal::KILL);
    }
    !orphans.is_empty()
}
