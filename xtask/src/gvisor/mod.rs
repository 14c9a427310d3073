//! A container in gVisor that is the pod, as far as one machine can have it: an ordinary user, no capabilities, a
//! read-only root, a workspace, and no network but its own loopback. `cargo xtask gvisor` runs any command in it, and
//! so do stages of `cargo xtask test`.

mod bundle;
mod demo;
pub mod image;
pub mod runsc;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus, id};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::layout::Layout;
use crate::process::{self, Run};
use crate::{dist, plugins};

pub use bundle::{DIST, PROGRAMS, WORKSPACE};
pub use demo::run as demo;

/// The user and the group in the container. Not the pod's: it need not be the one that an image was made for.
const USER: u32 = 1000;

/// How long a developer's command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(3600);

/// How one command is run.
pub struct Options<'a> {
    /// Variables besides PATH, HOME and LANG. Nothing of our own environment is passed on.
    pub env: &'a [(&'a str, &'a str)],
    /// Programs besides those of `target/dist` and the image: files, which the container sees in [`PROGRAMS`].
    pub programs: &'a [&'a Path],
    /// The container is ended when it takes longer.
    pub limit: Duration,
}

/// `cargo xtask gvisor`: one command, on what was built. Gives the command's exit code.
pub fn command(layout: &Layout, argv: &[String]) -> Result<ExitCode> {
    dist::build(layout)?;
    let options = Options {
        env: &[],
        programs: &[],
        limit: COMMAND_LIMIT,
    };
    Ok(process::exit_code(run(layout, argv, &options)?))
}

/// Runs a command in a container of its own, and shows its output as it comes. The container is gone afterwards, also
/// after an error, and its workspace with it.
pub fn run(layout: &Layout, argv: &[String], options: &Options) -> Result<ExitStatus> {
    let runsc = runsc::find(layout)?;
    let root = image::find(layout)?;
    let container = Container::new(layout, runsc)?;
    container.describe(layout, &root, argv, options)?;
    let started = Instant::now();
    let status = container
        .runsc("running the container", &["run", "--bundle"])?
        .arg(&container.home)
        .arg(&container.id)
        .limit(options.limit)
        .relayed_status()?;
    process::note(&format!("in gVisor: {}, {status}", process::spoken(started.elapsed())));
    Ok(status)
}

/// Like [`run`], and fails when the command does. `purpose` says what is being done.
pub fn must_run(layout: &Layout, purpose: &str, argv: &[String], options: &Options) -> Result<()> {
    let status = run(layout, argv, options)?;
    ensure!(
        status.success(),
        "{purpose} in gVisor failed ({status}): {}",
        argv.join(" ")
    );
    Ok(())
}

/// One container, and its folder: `config.json`, the workspace, and what runsc knows about it. Ends with the value.
struct Container {
    id: String,
    home: PathBuf,
    runsc: PathBuf,
}

impl Container {
    fn new(layout: &Layout, runsc: PathBuf) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let id = format!("plue-{}-{}", id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let containers = layout.target.join("gvisor");
        remove_leftovers(&containers);
        let home = containers.join(&id);
        // Of another process with our id, long ago.
        if home.exists() {
            remove(&home);
        }
        let container = Self { id, home, runsc };
        for folder in [container.workspace(), container.programs(), container.state()] {
            fs::create_dir_all(&folder).with_context(|| format!("could not make the folder {}", folder.display()))?;
        }
        give_away(&container.workspace())?;
        Ok(container)
    }

    /// Writes `config.json`.
    fn describe(&self, layout: &Layout, root: &Path, argv: &[String], options: &Options) -> Result<()> {
        let programs = self.programs();
        for program in options.programs {
            let name = program
                .file_name()
                .with_context(|| format!("{} is no program", program.display()))?;
            plugins::copy(program, &programs.join(name))?;
        }
        let config = bundle::config(&bundle::Bundle {
            argv,
            env: options.env,
            root,
            workspace: &self.workspace(),
            dist: &layout.dist(),
            programs: (!options.programs.is_empty()).then_some(&programs),
        });
        let path = self.home.join("config.json");
        fs::write(&path, format!("{config:#}\n")).with_context(|| format!("could not write {}", path.display()))
    }

    fn workspace(&self) -> PathBuf {
        self.home.join("workspace")
    }

    fn programs(&self) -> PathBuf {
        self.home.join("programs")
    }

    fn state(&self) -> PathBuf {
        self.home.join("state")
    }

    /// A runsc that knows this container and no other.
    fn runsc(&self, purpose: &str, arguments: &[&str]) -> Result<Run> {
        // It needs root's rights to make namespaces and to become the container's user, and it ends with us.
        Ok(process::as_root(purpose, "setpriv")?
            .args(["--pdeathsig", "KILL", "--"])
            .arg(&self.runsc)
            .arg("--root")
            .arg(self.state())
            .args(["--platform=systrap", "--network=none", "--ignore-cgroups"])
            .args(arguments))
    }
}

/// Makes the container's user the owner of a folder.
fn give_away(folder: &Path) -> Result<()> {
    process::as_root("giving a folder to the container's user", "chown")?
        .arg(format!("{USER}:{USER}"))
        .arg(folder)
        .read()
        .map(drop)
}

/// Removes the folders of containers whose xtask was killed, which has killed them too. A folder of another xtask that
/// runs stays.
fn remove_leftovers(containers: &Path) {
    let Ok(entries) = fs::read_dir(containers) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.strip_prefix("plue-")?.split('-').next());
        if owner.is_some_and(|owner| !Path::new("/proc").join(owner).exists()) {
            remove(&entry.path());
        }
    }
}

/// Removes a folder whose files may belong to the container's user. When it stays, that is said, and no failure.
fn remove(folder: &Path) {
    if let Err(error) = process::remove_as_root(folder) {
        process::note(&format!("{error:#}"));
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // After an end in good order there is nothing left to delete, and that is no error.
        let deleted = self
            .runsc("removing the container", &["delete", "--force", &self.id])
            .and_then(Run::read);
        if let Err(error) = deleted {
            process::note(&format!("{error:#}"));
        }
        remove(&self.home);
    }
}
