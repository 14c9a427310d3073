//! The attendant of a command: the process that starts it, watches it, and ends everything that it started.
//!
//! It is a subreaper: orphans of its command become its children. So each command has an attendant to itself, by which
//! the processes of concurrent commands are told apart. It takes the next command when nothing of the last one is left:
//! a fork in gVisor costs as much as an exec. It is of the same user as the command, which can therefore kill or stop
//! it; the init then ends what is left.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::process::{Signal, getpid, set_child_subreaper};

use super::children::{self, Children};
use super::disk;
use super::identity::HOME;
use super::ipc;
use super::plan::Network;
use super::pod::Reading;
use super::privileges;
use super::shared::{PAUSE, ROUNDS, Shared};
use super::sys;
use super::tree::{Tree, Usage};
use super::wire::{self, End, ReceivedCommand, Reply};
use crate::Ending;
use crate::mutation::Protection;
use crate::proc::{self, own_pid};
use crate::request::long_script;

/// How long processes that a command left behind have between SIGTERM and SIGKILL.
const GRACE_FOR_ORPHANS: Duration = Duration::from_millis(500);
/// How many of them are named.
const MAX_NAMES: usize = 3;
/// How long the processes of an earlier command may take to leave room for one.
const ROOM: Duration = Duration::from_secs(2);
/// The shortest time between two counts of the files on a disk, and how many times as long as one takes it is at least.
const MIN_COUNT: Duration = Duration::from_secs(1);
const COUNT_SHARE: u32 = 20;
/// The niceness of commands. Whoever watches them gets the processor before any number of them, and so does the runner.
const NICE: i32 = 10;
/// What the thread needs that starts a command, in bytes.
const STACK: usize = 64 << 10;
/// The longest time between two looks at what a command uses.
const MAX_WATCH: Duration = Duration::from_millis(50);
/// The shortest, for a command near one of its bounds.
const MIN_WATCH: Duration = Duration::from_millis(2);
/// How fast a command can take memory, at most, in bytes a millisecond: what is left lasts so long.
const FILL_RATE: u64 = 4 << 20;
/// An exact count walks page tables: so much more time than it takes is left to the command.
const EXACT_COUNT_SHARE: u32 = 10;

/// A command that runs.
struct Command<'a> {
    shared: &'a Shared<'a>,
    /// The socket to the runner.
    control: BorrowedFd<'a>,
    /// The PID of the process that was started. All others are below it, or were.
    main: i32,
    /// Its exit code, once it was reaped.
    code: Option<i32>,
    deadline: Option<Instant>,
    next_look: Instant,
    /// What the pod held before it or, if that was less, at any time since.
    held_before: u64,
    /// What had been asked of networks in vain before it.
    unreached_before: Option<u64>,
    /// The signal that ended the main process.
    signal: Option<i32>,
    /// When the files on a disk are to be counted next, and what was free there when they were counted last.
    next_count: Instant,
    free_at_count: Option<u64>,
    /// What they took then.
    on_disk: u64,
    /// They are more than they may be.
    tmp_full: bool,
    /// It is the only command, and has so many processes that looking at each takes long.
    is_a_crowd: bool,
}

/// Runs one command after the other, until the runner hangs up; the exit code of this process.
pub(super) fn serve(control: BorrowedFd<'_>, shared: &Shared<'_>) -> i32 {
    let ready = set_child_subreaper(Some(getpid()))
        .map_err(io::Error::from)
        .and_then(|()| File::open("/dev/null"));
    let Ok(nothing) = ready else {
        return 1;
    };
    while let Ok(Some(received)) = wire::read_command(control) {
        if run(received, control, shared, &nothing).is_err() {
            return 1;
        }
    }
    0
}

/// Runs one command to its end, and says how it ended.
///
/// # Errors
/// When it cannot be watched any more. The init then ends it with us.
fn run(received: ReceivedCommand, control: BorrowedFd<'_>, shared: &Shared<'_>, nothing: &File) -> io::Result<()> {
    let timeout = Duration::from_millis(received.request.timeout_ms);
    if let Err(error) = std::env::set_current_dir(&received.request.directory) {
        let code = error.raw_os_error().unwrap_or(libc::EINVAL);
        return wire::write_message(control, &Reply::NoDirectory(code));
    }
    let unreached_before = match shared.plan.network {
        Network::None => proc::unreached(),
        Network::Pod => None,
    };
    // Before it runs: what it takes at once counts, however late we come to look.
    let held_before = shared.meter.read()?.held;
    // From now on it may have run, whatever becomes of us.
    let _ = wire::write_message(control, &Reply::Starting);
    let main = match start(received, nothing, shared.is_gvisor) {
        Ok(main) => main,
        Err(error) => {
            let code = error.raw_os_error().unwrap_or(libc::EINVAL);
            return wire::write_message(control, &Reply::NotStarted(code));
        }
    };
    let now = Instant::now();
    let mut command = Command {
        shared,
        control,
        main,
        code: None,
        deadline: now.checked_add(timeout),
        next_look: now + MIN_WATCH,
        held_before,
        unreached_before,
        next_count: now + MIN_COUNT,
        free_at_count: shared.mounted.disk.as_ref().and_then(disk::Used::free),
        on_disk: 0,
        tmp_full: false,
        signal: None,
        is_a_crowd: false,
    };
    // A runner that has hung up is noticed in the loop.
    let _ = wire::write_message(control, &Reply::Started);
    let ending = command.watch()?;
    let end = command.end(ending);
    wire::write_message(control, &Reply::Exited(end))
}

/// Starts the main process; its PID.
fn start(received: ReceivedCommand, nothing: &File, is_gvisor: bool) -> io::Result<i32> {
    let ReceivedCommand {
        request,
        stdout,
        stderr,
    } = received;
    let text = |text: &str| CString::new(text).map_err(io::Error::other);
    let script = long_script::take(request.argv)?;
    let argv = script
        .argv
        .iter()
        .map(|argument| text(argument))
        .collect::<io::Result<Vec<_>>>()?;
    let variables = request.env.iter().map(|(name, value)| text(&format!("{name}={value}")));
    let mut env = variables.collect::<io::Result<Vec<_>>>()?;
    if Protection::Environment.is_off() {
        env.extend(std::env::vars().filter_map(|(name, value)| text(&format!("{name}={value}")).ok()));
    }
    // Without a /tmp of our own it would be the machine's.
    if !Protection::Mount.is_off() {
        // An earlier command may have removed it, or put something else there.
        let _ = std::fs::create_dir(HOME);
    }
    let file = script.file()?;
    let mut descriptors = vec![(0, nothing.as_fd()), (1, stdout.as_fd()), (2, stderr.as_fd())];
    descriptors.extend(file.as_ref().map(|file| (long_script::DESCRIPTOR, file.as_fd())));
    let started = Instant::now();
    loop {
        let spawn = || sys::spawn(&argv, &env, &descriptors);
        // gVisor knows no niceness.
        let spawned = if is_gvisor { spawn() } else { spawn_lowered(spawn) };
        match spawned {
            // No process is to be had: those of an earlier command may still be exiting.
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) && started.elapsed() < ROOM => {
                std::thread::sleep(PAUSE);
            }
            result => return result,
        }
    }
}

/// Starts a process that has the niceness of commands from its first moment, and all that it starts. We keep ours,
/// which could not be had back: niceness is a thread's, and so another thread does it.
fn spawn_lowered(spawn: impl FnOnce() -> io::Result<i32> + Send) -> io::Result<i32> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, || {
            // A kernel that refuses starts it all the same.
            let _ = rustix::process::setpriority_process(None, NICE);
            spawn()
        })?;
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("starting it failed")))
    })
}

impl Command<'_> {
    /// Waits until the main process has exited, or has to be ended.
    fn watch(&mut self) -> io::Result<Ending> {
        loop {
            let now = Instant::now();
            if self.deadline.is_some_and(|deadline| deadline <= now) && !Protection::Deadline.is_off() {
                return Ok(Ending::TimedOut);
            }
            if self.next_look <= now
                && let Some(ending) = self.look()?
            {
                return Ok(ending);
            }
            let deadline = self.deadline.filter(|_| !Protection::Deadline.is_off());
            let until = deadline.map_or(self.next_look, |deadline| deadline.min(self.next_look));
            let said_something = sys::wait_for_input(self.control, Some(until.saturating_duration_since(now)))?;
            self.reap();
            if self.code.is_some() {
                return Ok(Ending::Exited);
            }
            // Whether it says cancel or hangs up.
            if said_something {
                return Ok(Ending::Cancelled);
            }
        }
    }

    /// Reaps every child that has exited. Whether any is left.
    fn reap(&mut self) -> bool {
        loop {
            match children::reap() {
                Children::Exited(child) if child.pid == self.main => {
                    self.code = Some(child.code);
                    self.signal = child.signal;
                }
                Children::Exited(_) => {}
                Children::Running | Children::Stopped(_) => return true,
                Children::None => return false,
            }
        }
    }

    /// Counts what the command uses, and says when that is too much.
    fn look(&mut self) -> io::Result<Option<Ending>> {
        let begun = Instant::now();
        let us = own_pid();
        let tree = Tree::read()?;
        let own = tree.usage(us);
        let all = AllCommands::of(&tree, us);
        let plan = self.shared.plan;
        let max = u64::from(plan.processes);
        self.is_a_crowd = all.commands == 1 && own.processes > max / 8;
        let crowd = own.processes > max || own.threads > privileges::max_threads(plan);
        let all_crowd = all.processes > max && own.processes >= all.processes / all.commands;
        if (crowd || all_crowd) && !Protection::Processes.is_off() {
            return Ok(Some(Ending::Processes));
        }
        let apart = self.shared.scratch_used() + ipc::used();
        let pod = self.shared.meter.read()?;
        // What others let go of meanwhile is not for this one to take.
        self.held_before = self.held_before.min(pod.held);
        let too_much = self.takes_too_much(&tree, &own, &all, apart) || self.fills_the_pod(&own, &all, pod);
        if too_much && !Protection::Memory.is_off() {
            return Ok(Some(Ending::Memory));
        }
        if self.fills_the_disk() && !Protection::Memory.is_off() {
            self.tmp_full = true;
            return Ok(Some(Ending::Memory));
        }
        let used = own.taken().max(all.taken()) + apart;
        let left = Duration::from_millis(plan.memory.saturating_sub(used) / FILL_RATE);
        let longest = if all.processes > max / 8 { MIN_WATCH } else { MAX_WATCH };
        let effort = begun.elapsed() * EXACT_COUNT_SHARE;
        self.next_look = Instant::now() + left.clamp(MIN_WATCH, longest).max(effort.min(MAX_WATCH));
        Ok(None)
    }

    /// Whether the processes take more than a command may: this one's or, when it is not one of the small ones, those
    /// of all commands that run at the same time. `apart` is what no process has.
    fn takes_too_much(&self, tree: &Tree, own: &Usage, all: &AllCommands, apart: u64) -> bool {
        let max = self.shared.plan.memory;
        let exceeds = |counted: u64, tables: u64, processes: &[i32]| {
            // Shared memory was counted for each who shares it.
            counted + tables + apart > max && tree.shared_once(processes) + tables + apart > max
        };
        let is_large = all.commands > 1 && own.taken() >= all.taken() / all.commands;
        exceeds(own.resident, own.tables, &own.live) || is_large && exceeds(all.resident, all.tables, &all.live)
    }

    /// Whether the temporary files on a disk are more than they may be. Counting them takes a look at each: it is done
    /// from time to time, and when so much less is free on the disk that they may be half of what they may grow.
    fn fills_the_disk(&mut self) -> bool {
        let Some(disk) = &self.shared.mounted.disk else {
            return false;
        };
        let max = self.shared.plan.tmp_size;
        let (now, free) = (Instant::now(), disk.free());
        let gone = self.free_at_count.unwrap_or(0).saturating_sub(free.unwrap_or(0));
        if now < self.next_count && gone < max.saturating_sub(self.on_disk) / 2 {
            return false;
        }
        self.on_disk = disk.count();
        self.free_at_count = free;
        self.next_count = Instant::now() + (now.elapsed() * COUNT_SHARE).max(MIN_COUNT);
        self.on_disk > max
    }

    /// Whether the pod holds so much more since this command runs, by memory that belongs to no process, or has so
    /// little left, that the kernel would end the runner next. The largest command goes first.
    fn fills_the_pod(&self, own: &Usage, all: &AllCommands, pod: Reading) -> bool {
        let grown = pod.held.saturating_sub(self.held_before);
        (grown > self.shared.plan.memory || pod.is_short) && own.taken() >= all.taken() / all.commands
    }

    /// Ends everything that the command started, and says how it ended.
    fn end(&mut self, ending: Ending) -> End {
        let mut left = Vec::new();
        if !Protection::Reaping.is_off() || ending != Ending::Exited {
            let grace = match ending {
                Ending::Exited => GRACE_FOR_ORPHANS,
                Ending::TimedOut | Ending::Cancelled => self.shared.plan.grace,
                // Who takes too much does not get the time to take more.
                Ending::Memory | Ending::Processes => Duration::ZERO,
            };
            if self.reap() && ending == Ending::Exited {
                left = Tree::read().map(|tree| tree.below(own_pid())).unwrap_or_default();
            }
            let names = names(&left);
            self.end_all(grace);
            self.remove_objects();
            return self.said(ending, left.len() as u64, names);
        }
        self.said(ending, 0, Vec::new())
    }

    fn said(&self, ending: Ending, left: u64, names: Vec<String>) -> End {
        let code = self.code.unwrap_or(-1);
        let unreached = self.unreached_before.filter(|_| code != 0);
        End {
            code,
            signal: self.signal,
            ending,
            left,
            names,
            sought_network: unreached.is_some_and(|before| proc::unreached().is_some_and(|now| now > before)),
            tmp_full: self.tmp_full || code != 0 && self.shared.scratch_is_full(),
        }
    }

    /// Ends what runs still: with SIGTERM and, after the grace, with SIGKILL.
    fn end_all(&mut self, grace: Duration) {
        if self.reap() && !grace.is_zero() {
            self.signal_all(Signal::TERM);
            let end = Instant::now() + grace;
            while self.reap() && Instant::now() < end {
                std::thread::sleep(PAUSE);
            }
        }
        let mut rounds = 0;
        while self.reap() {
            rounds += 1;
            if rounds > ROUNDS {
                children::kill_all(Signal::KILL);
            } else {
                self.signal_all(Signal::KILL);
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Removes what the command left in the kernel, unless another one runs, whose it may be.
    fn remove_objects(&self) {
        let queues = self.shared.mounted.queues.as_ref();
        let is_gvisor = self.shared.is_gvisor;
        if !is_gvisor && ipc::is_empty(queues) {
            return;
        }
        let others = Tree::read().map(|tree| AllCommands::of(&tree, own_pid()).live.len());
        if others.is_ok_and(|others| others == 0) {
            ipc::remove(queues, is_gvisor);
        }
    }

    fn signal_all(&self, signal: Signal) {
        if self.is_a_crowd {
            // Which are ours takes long to see, among so many that want the processor: nobody else has any.
            return children::kill_all(signal);
        }
        match Tree::read() {
            Ok(tree) => tree
                .below(own_pid())
                .into_iter()
                .for_each(|pid| children::kill(pid, signal)),
            // Which are ours cannot be seen: so all of them.
            Err(_) => children::kill_all(signal),
        }
    }
}

/// The names of the first of these processes, each once.
fn names(processes: &[i32]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in processes.iter().filter_map(|pid| proc::name(*pid)) {
        if names.len() < MAX_NAMES && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// What all commands that run at the same time have together.
struct AllCommands {
    /// How many there are, one at least.
    commands: u64,
    live: Vec<i32>,
    processes: u64,
    resident: u64,
    tables: u64,
}

impl AllCommands {
    /// The commands are what is below the attendants, of which `us` is one.
    fn of(tree: &Tree, us: i32) -> Self {
        let init = tree.parent(us).unwrap_or_default();
        let usages = tree.children(init).map(|attendant| tree.usage(attendant));
        let mut all = Self {
            commands: 0,
            live: Vec::new(),
            processes: 0,
            resident: 0,
            tables: 0,
        };
        for usage in usages.filter(|usage| usage.processes > 0) {
            all.commands += 1;
            all.live.extend(usage.live);
            all.processes += usage.processes;
            all.resident += usage.resident;
            all.tables += usage.tables;
        }
        all.commands = all.commands.max(1);
        all
    }

    fn taken(&self) -> u64 {
        self.resident + self.tables
    }
}
