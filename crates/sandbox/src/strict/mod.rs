//! The sandbox that commands run in: namespaces of their own, the image read-only, no privileges, no network, and
//! bounds on what all their processes use together.
//!
//! This side is the runner's: it starts the sandbox's [`init`] once, and hands commands to its [`attendant`]s. The
//! namespaces are made once, and an attendant takes one command after the other: a command costs a spawn and two
//! messages.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::request::{self, PATH, Workspace};
use super::{CommandSpec, Level, RunningCommand, Sandbox, StartError};
use crate::mutation::Protection;

mod attendant;
mod children;
mod disk;
mod identity;
mod init;
mod ipc;
mod kernel_files;
mod layer;
mod mounts;
mod place;
mod plan;
mod pod;
mod private;
mod privileges;
mod probe;
mod rights;
mod running;
mod seccomp;
mod set_group_id;
mod shared;
mod sys;
mod tree;
mod user;
mod wire;

pub use init::run_if_asked;
pub use layer::{Layer, MissingLayer};
pub use plan::{CommandRules, DEFAULT_GRACE, DEFAULT_OPEN_FILES, DEFAULT_PROCESSES, DEFAULT_TMP_SIZE, Network};
pub use probe::{Expected, Finding, try_layers};

use disk::Disk;
use layer::InLayer;
use plan::Plan;
use running::{Attendant, Idle, PreparedCommand, Refusal};
use user::CommandUser;
use wire::Setup;

/// How long the init may take to set everything up. It takes milliseconds, and tens of them in gVisor.
const SETUP: Duration = Duration::from_secs(20);
/// How long the sandbox may take to end.
const END: Duration = Duration::from_secs(3);
/// How long an attendant may take to start a command. It takes a millisecond, and some in gVisor.
const START: Duration = Duration::from_secs(20);
/// How many attendants are asked to start one command: another command may kill one.
const MAX_ATTEMPTS: u32 = 3;

/// What is done then, for errors.
const MAKING: &str = "setting the sandbox up";
const OVER: &str = "the task is over, and so is its sandbox";

/// A sandbox that confines commands, with the processes that run them. It ends when it is dropped, and everything in
/// it; [`Sandbox::shut_down`] waits for that.
pub struct StrictSandbox {
    /// What is started as the init.
    program: PathBuf,
    workspace: Workspace,
    plan: Plan,
    /// Removed when the sandbox is shut down.
    disk: StdMutex<Option<Disk>>,
    /// Held for as long as commands have it.
    _user: CommandUser,
    state: Mutex<State>,
    idle: Idle,
    /// Fires when the sandbox is shut down.
    stopped: CancellationToken,
}

/// What commands could reach otherwise, or can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Covered {
    /// How many Unix sockets are covered.
    pub sockets: usize,
    /// Homes and what else is somebody's own.
    pub private: Vec<PathBuf>,
    /// The numbers of the supplementary groups that commands keep.
    pub groups: Vec<u32>,
}

enum State {
    Running(Init),
    /// For good: the task is over.
    Stopped,
}

/// The sandbox's own processes, and our end of the socket to them. When it is dropped, everything in the sandbox ends.
struct Init {
    socket: UnixStream,
    keeper: Child,
}

impl StrictSandbox {
    /// Makes a sandbox for commands in (or below) this folder. `own` are folders of the runner that no command sees.
    ///
    /// # Errors
    /// The first layer that cannot be had, and what to do about it.
    pub async fn start(workspace: &Path, own: &[PathBuf], rules: &CommandRules) -> Result<Self, MissingLayer> {
        Self::start_by(Path::new("/proc/self/exe"), workspace, own, rules).await
    }

    /// As [`StrictSandbox::start`] in a process that is no runner: `program` is one, whose `main` begins with
    /// [`run_if_asked`].
    ///
    /// # Errors
    /// As there.
    pub async fn start_by(
        program: &Path,
        workspace: &Path,
        own: &[PathBuf],
        rules: &CommandRules,
    ) -> Result<Self, MissingLayer> {
        let workspace =
            Workspace::new(workspace).in_layer(Layer::Workspace, format!("looking at {}", workspace.display()))?;
        // Its process loads while we find out what it is to do.
        let loading = Init::load(program)?;
        let user = CommandUser::take(&workspace.real);
        let disk = Disk::make(user.number);
        let mut plan = Plan::new(
            &workspace.real,
            &workspace.named,
            own,
            rules,
            user.number,
            disk.as_ref().map(Disk::folder),
        );
        // Who asks for more than the default means it, as far as the system allows it.
        if plan.open_files == DEFAULT_OPEN_FILES {
            plan.open_files = plan.open_files.min(privileges::raise_own_open_files());
        }
        let init = Init::start(loading, program, &plan).await?;
        Ok(Self {
            program: program.to_owned(),
            workspace,
            plan,
            disk: StdMutex::new(disk),
            _user: user,
            state: Mutex::new(State::Running(init)),
            idle: Idle::default(),
            stopped: CancellationToken::new(),
        })
    }

    /// What a command is to find of the layers, when something listens on `port` of our own loopback.
    pub fn expected(&self, port: u16) -> Expected {
        let plan = &self.plan;
        let opened = plan
            .read_paths
            .iter()
            .flat_map(|path| [Some(path.clone()), path.canonicalize().ok()]);
        let workspace = [plan.workspace.clone(), plan.named.clone()];
        Expected {
            port,
            network: plan.network,
            opened: opened.flatten().chain(workspace).collect(),
            hidden: plan.hidden.clone(),
            namespaces: probe::namespaces(),
        }
    }

    /// What was found of others on this machine, and covered: for people.
    pub fn covered(&self) -> Covered {
        let is_there = |path: &&PathBuf| std::fs::symlink_metadata(path).is_ok();
        Covered {
            sockets: self.plan.sockets.iter().filter(is_there).count(),
            private: self.plan.hidden.iter().filter(is_there).cloned().collect(),
            groups: user::kept_groups(),
        }
    }

    /// An attendant that waits for a command: one that has done with another, or a new one. When the init was killed,
    /// there is a new sandbox first.
    async fn attendant(&self) -> Result<Attendant, StartError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(attendant) = idle {
            return Ok(attendant);
        }
        let mut state = self.state.lock().await;
        let State::Running(init) = &mut *state else {
            return Err(StartError::Failed(OVER.into()));
        };
        let failed = |error: &dyn std::fmt::Display| StartError::Failed(error.to_string());
        let lost = init.keeper.try_wait().is_ok_and(|status| status.is_some());
        if !lost && let Ok(attendant) = init.new_attendant().await {
            return Ok(attendant);
        }
        tracing::error!("the sandbox was lost, and with it the files outside of the workspace: a new one is made");
        let loading = Init::load(&self.program).map_err(|error| failed(&error))?;
        *init = Init::start(loading, &self.program, &self.plan)
            .await
            .map_err(|error| failed(&error))?;
        let attendant = init.new_attendant().await;
        attendant.map_err(|error| failed(&format!("the sandbox takes no commands: {error}")))
    }
}

impl Init {
    /// Makes a sandbox, a second time when the first was killed while it was made.
    async fn start(loading: Self, program: &Path, plan: &Plan) -> Result<Self, MissingLayer> {
        if let Some(init) = loading.set_up(plan).await? {
            return Ok(init);
        }
        let again = Self::load(program)?.set_up(plan).await?;
        again.ok_or_else(|| MissingLayer::new(Layer::Init, MAKING, "its process ended without a word, twice"))
    }

    /// Starts the process, which waits for its plan.
    fn load(program: &Path) -> Result<Self, MissingLayer> {
        let (ours, theirs) = StdUnixStream::pair().in_layer(Layer::Init, "making a socket")?;
        let mut command = Command::new(program);
        command
            .arg0(init::NAME)
            .env("PATH", PATH)
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        if !Protection::Environment.is_off() {
            command.env_clear().env("PATH", PATH);
            // Of a build for the mutation run, and of no other.
            #[cfg(feature = "mutations")]
            command.envs(std::env::var_os("PLUE_MUTATION").map(|value| ("PLUE_MUTATION", value)));
        }
        let keeper = command
            .spawn()
            .in_layer(Layer::Init, "starting the runner's binary anew")?;
        // Ours is the only end left: the command held the other one.
        drop(command);
        let socket = ours
            .set_nonblocking(true)
            .and_then(|()| UnixStream::from_std(ours))
            .in_layer(Layer::Init, "listening to the init")?;
        Ok(Self { socket, keeper })
    }

    /// Has the sandbox made. `None`: its process has ended without a word.
    async fn set_up(mut self, plan: &Plan) -> Result<Option<Self>, MissingLayer> {
        let missing = |error: &dyn std::fmt::Display| MissingLayer::new(Layer::Init, MAKING, error);
        let plan = wire::encode(plan).in_layer(Layer::Init, "writing the plan")?;
        let answer = async {
            self.socket.write_all(&plan).await?;
            wire::receive_message::<Setup>(&mut self.socket).await
        };
        match timeout(SETUP, answer).await {
            Ok(Ok(Some(Setup::Ready))) => Ok(Some(self)),
            Ok(Ok(Some(Setup::Missing(layer)))) => Err(layer),
            Ok(Ok(None)) => Ok(None),
            Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(None),
            Ok(Err(error)) => Err(missing(&error)),
            Err(_) => Err(missing(&format!("no answer within {} s", SETUP.as_secs()))),
        }
    }

    async fn new_attendant(&self) -> io::Result<Attendant> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let send = || wire::send_descriptors(self.socket.as_fd(), b"a", &[theirs.as_fd()]);
        self.socket.async_io(Interest::WRITABLE, send).await?;
        Ok(Attendant {
            control: UnixStream::from_std(ours)?,
        })
    }

    /// Ends everything, and waits for that.
    async fn end(self) {
        let Self { socket, mut keeper } = self;
        // The init ends when we hang up, all others with it, and then the keeper.
        drop(socket);
        if timeout(END, keeper.wait()).await.is_err() {
            tracing::error!("the sandbox does not end, and is killed");
            let _ = keeper.start_kill();
            let _ = timeout(END, keeper.wait()).await;
        }
    }
}

impl Sandbox for StrictSandbox {
    fn level(&self) -> Level {
        Level::Strict
    }

    fn grace(&self) -> Duration {
        self.plan.grace
    }

    fn start(&self, spec: CommandSpec, cancel: CancellationToken) -> BoxFuture<'_, Result<RunningCommand, StartError>> {
        async move {
            request::check(&spec)?;
            let directory = self.workspace.directory(&spec.working_directory)?;
            let command = PreparedCommand::new(spec, directory, &self.plan)?;
            for _ in 0..MAX_ATTEMPTS {
                let attendant = self.attendant().await?;
                let given = tokio::select! {
                    given = timeout(START, command.give_to(attendant)) => given,
                    // It may have begun: dropping the socket to its attendant ends it.
                    () = cancel.cancelled() => return Ok(RunningCommand::cancelled(cancel)),
                    () = self.stopped.cancelled() => return Err(StartError::Failed(OVER.into())),
                };
                match given {
                    Ok(Ok(started)) => {
                        let idle = Arc::clone(&self.idle);
                        return Ok(started.forward_until_exit(command, cancel, self.stopped.clone(), idle));
                    }
                    Ok(Err(Refusal::Start(error))) => return Err(error),
                    // A command that runs at the same time may have killed or stopped it.
                    Ok(Err(Refusal::NoAttendant)) | Err(_) => {}
                }
            }
            Err(StartError::Failed(
                "the command could not be started: the sandbox's processes are killed again and again".into(),
            ))
        }
        .boxed()
    }

    fn shut_down(&self) -> BoxFuture<'_, ()> {
        async move {
            self.stopped.cancel();
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
            let state = std::mem::replace(&mut *self.state.lock().await, State::Stopped);
            if let State::Running(init) = state {
                init.end().await;
            }
            let disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(disk) = disk {
                let _ = tokio::task::spawn_blocking(move || drop(disk)).await;
            }
        }
        .boxed()
    }
}
