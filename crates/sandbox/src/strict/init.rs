//! The sandbox's own processes, from the exec to the loop that starts attendants of commands.
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
use super::identity::HOST_NAME;
use super::layer::{InLayer, Layer, MissingLayer};
use super::plan::{Network, Plan};
use super::pod::{self, Meter};
use super::shared::{PAUSE, ROUNDS, Shared};
use super::sys::{self, Fork};
use super::tree::Tree;
use super::wire::{self, Setup};
use super::{attendant, mounts, privileges, seccomp, set_group_id, user};
use crate::mutation::Protection;
use crate::proc::own_pid;

/// Our name as a process, by which the binary knows that it is to be the sandbox's init.
pub(super) const NAME: &str = "plue-sandbox";
/// The descriptor of the socket to the runner.
const SOCKET: i32 = 0;
const STDERR: i32 = 2;

/// Becomes the sandbox's keeper, and does not return, when [`StrictSandbox`](super::StrictSandbox) has started this
/// process as such. Otherwise does nothing.
///
/// `main` has to call it before anything else in every program that starts a sandbox by its own binary: before there
/// are threads, descriptors or secrets.
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
        .in_layer(Layer::Init, "closing what the runner was started with")
        .and_then(|()| wire::read_message::<Plan>(&socket).in_layer(Layer::Init, "reading the plan"))
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
    let proc = set_group_id::open_proc().in_layer(Layer::Proc, "opening the old /proc")?;
    let (ours, theirs) = sys::socket_pair().in_layer(Layer::Init, "making a socket")?;
    // Whoever started the runner may have keys in the kernel, whose names commands would see. gVisor's is the pod's
    // alone, and counts every keyring that there ever was.
    if !pod::is_gvisor() {
        sys::leave_session_keys();
    }
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
    // A control group of their own as the root of all that they see: names of the pod's lead to it otherwise, and no
    // other can be mounted. A kernel that has none (gVisor) shows none.
    let _ = sys::unshare(UnshareFlags::NEWCGROUP);
    sys::unshare(namespaces).in_layer(
        Layer::Namespaces,
        "unshare of the mount, PID, network, IPC and UTS namespaces",
    )?;
    match sys::fork().in_layer(Layer::Namespaces, "starting the init of the PID namespace")? {
        Fork::Parent(init) => {
            drop(theirs);
            Ok(stay(init, ours.as_fd(), proc.as_fd()))
        }
        Fork::Child => {
            drop((ours, proc));
            let made = become_init(plan, theirs).and_then(|shared| {
                // Wherever the keeper is killed, we end too. Not before now: changes of rights would undo it.
                set_parent_process_death_signal(Some(Signal::KILL))
                    .in_layer(Layer::Init, "tying the init to its keeper")?;
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

/// What the keeper does until the init ends: it answers the calls that the filter leaves to it. The init's exit code.
fn stay(init: i32, from_init: BorrowedFd<'_>, proc: BorrowedFd<'_>) -> i32 {
    let answers = wire::receive_descriptors(from_init, &mut [0]).ok();
    let listener = answers.and_then(|(_, descriptors)| descriptors.into_iter().next());
    // Without rights it can do for a command no more than the command could.
    let is_ready =
        (Protection::Privileges.is_off() || privileges::give_up().is_ok()) && sys::hold_child_signals().is_ok();
    let Some(listener) = listener.filter(|_| is_ready) else {
        return children::wait(init);
    };
    loop {
        match children::reap() {
            Children::Exited(child) if child.pid == init => return child.code,
            Children::None => return 0,
            Children::Exited(_) | Children::Running | Children::Stopped(_) => {}
        }
        let asked = sys::wait_for_input(listener.as_fd(), None).and_then(|_| sys::has_input(listener.as_fd()));
        let answered = asked.and_then(|asked| match asked {
            true => set_group_id::answer_next(listener.as_fd(), proc),
            false => Ok(()),
        });
        if answered.is_err() {
            // Nobody is left to ask.
            drop(listener);
            return children::wait(init);
        }
    }
}

/// Everything that commands will find, and what they will not.
fn become_init(plan: &Plan, to_keeper: OwnedFd) -> Result<Shared<'_>, MissingLayer> {
    let meter = Meter::open().in_layer(Layer::Limits, "looking at the memory of the pod")?;
    // Where the kernel runs out of memory all the same, it ends a command rather than the runner.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    let mounted = mounts::change_root(plan)?;
    rustix::system::sethostname(HOST_NAME.as_bytes()).in_layer(Layer::Namespaces, "naming the machine")?;
    if plan.network == Network::None && !Protection::Network.is_off() {
        match sys::loopback_up() {
            // gVisor's is up already, and cannot be switched.
            Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => {}
            result => result.in_layer(Layer::Loopback, "switching the loopback interface on")?,
        }
    }
    if !Protection::Rlimits.is_off() {
        privileges::limit(plan)?;
    }
    if !Protection::Privileges.is_off() {
        privileges::give_up()?;
    }
    if !Protection::Seccomp.is_off()
        && let Some(answers) = seccomp::install(mounted.queues.is_some())?
    {
        let handed = wire::send_descriptors(to_keeper.as_fd(), b"l", &[answers.as_fd()]);
        if handed.is_err() {
            // The keeper was killed: without a word, so that the runner has another sandbox made.
            sys::exit(1);
        }
    }
    drop(to_keeper);
    sys::hold_child_signals().in_layer(Layer::Init, "waiting for the end of commands")?;
    let is_gvisor = pod::is_gvisor();
    Ok(Shared {
        plan,
        meter,
        is_gvisor,
        mounted,
    })
}

/// Starts attendants, until the runner hangs up.
fn serve(socket: BorrowedFd<'_>, shared: &Shared<'_>) -> io::Result<()> {
    // The sockets of the attendants that live, by their PIDs. Hanging up tells the runner that nothing of a command is
    // left, so it is done only when that is true.
    let mut attendants: BTreeMap<i32, OwnedFd> = BTreeMap::new();
    loop {
        if sys::wait_for_input(socket, None)? {
            let (count, sockets) = wire::receive_descriptors(socket, &mut [0])?;
            if count == 0 {
                return Ok(());
            }
            for socket in sockets {
                start_attendant(socket, shared, &mut attendants);
            }
        }
        reap_attendants(socket, &mut attendants)?;
    }
}

/// Starts one. When that fails its socket is closed, which tells the runner.
fn start_attendant(socket: OwnedFd, shared: &Shared<'_>, attendants: &mut BTreeMap<i32, OwnedFd>) {
    match sys::fork() {
        Ok(Fork::Child) => {
            // The sockets of others are none of its business.
            attendants.clear();
            sys::exit(attendant::serve(socket.as_fd(), shared))
        }
        Ok(Fork::Parent(pid)) => {
            attendants.insert(pid, socket);
        }
        Err(_) => {}
    }
}

/// Reaps attendants that were killed, and orphans of their commands: a command can kill its own attendant, and what it
/// leaves behind comes to us, its nearest ancestor that is left. Those are killed here.
///
/// # Errors
/// When the runner has hung up meanwhile: processes that end with us anyway are not waited for.
fn reap_attendants(socket: BorrowedFd<'_>, attendants: &mut BTreeMap<i32, OwnedFd>) -> io::Result<()> {
    // Their sockets are closed when their commands are gone.
    let mut over = Vec::new();
    let mut rounds = 0;
    loop {
        match children::reap_or_stopped() {
            Children::Exited(child) => over.extend(attendants.remove(&child.pid)),
            // No attendant stops itself. A command has stopped it, which then knew no bounds.
            Children::Stopped(pid) => children::kill(pid, Signal::KILL),
            Children::Running if attendants.is_empty() || !over.is_empty() => {
                rounds += 1;
                if !kill_orphans(attendants, rounds > ROUNDS) {
                    return Ok(());
                }
                if wire::has_hung_up(socket)? {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
                std::thread::sleep(PAUSE);
            }
            Children::Running | Children::None => return Ok(()),
        }
    }
}

/// Kills the orphans: what is below us and below no attendant. Whether there was any.
fn kill_orphans(attendants: &BTreeMap<i32, OwnedFd>, at_once: bool) -> bool {
    let all = || {
        // Faster than they can multiply. Other commands end with them, and say so.
        children::kill_all(Signal::KILL);
        true
    };
    if attendants.is_empty() || at_once {
        return all();
    }
    let Ok(tree) = Tree::read() else {
        return all();
    };
    let mut orphans = tree.below(own_pid());
    for attendant in attendants.keys() {
        let theirs = tree.below(*attendant);
        orphans.retain(|pid| pid != attendant && !theirs.contains(pid));
    }
    for pid in &orphans {
        children::kill(*pid, Signal::KILL);
    }
    !orphans.is_empty()
}
