//! The attacks of escape on what was built: on this machine, as an ordinary user, and without openat2, and on a runner
//! whose protections are switched off one at a time. Those in gVisor are a pod's (`pod`).
//!
//! `plue-escape` prints its tables and counts by itself, and its exit code says whether all held.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::layout::Layout;
use crate::plugins;
use crate::process::{self, Run};

/// How long all attacks may take in one place.
const LIMIT: Duration = Duration::from_secs(1800);

/// The program of the attacks, in its own folder or one that it is copied to.
const PROGRAM: &str = "plue-escape";

/// The folder with the hostile plugins, in the target folder and beside the program.
pub const TEST_PLUGINS: &str = "test-plugins";

/// The argument for a place beside another one in which all attacks are tried.
const DIFFERING: &str = "--differing";

/// All attacks on this machine: as an ordinary user, and the file attacks with openat2 taken away; when the user who
/// asks is root, as root too those that can end otherwise, or all of them. Every part is run, also when one before has
/// failed.
pub fn natively(layout: &Layout, all: bool) -> Result<()> {
    let program = program(layout)?;
    let is_root = process::is_root()?;
    let mut failures = Vec::new();
    let mut attempt = |place: &str, run: Result<Run>| {
        process::announce(&format!("attacks {place}"));
        if let Err(error) = run.and_then(|run| run.limit(LIMIT).live()) {
            process::say(&format!("error: {error:#}"));
            failures.push(place.to_owned());
        }
    };
    let memory = Memory::new(is_root)?;
    let place = "as the user who runs this";
    let differing = (is_root && !all).then_some(DIFFERING);
    attempt(
        place,
        Ok(memory.attacks(place, &program, &layout.runner()).args(differing)),
    );
    let place = "on file tools that have no openat2";
    let run = memory.attacks(place, &program, &layout.runner());
    attempt(place, Ok(run.arg("--without-openat2")));
    let place = "as an ordinary user without capabilities";
    if is_root {
        let home = Ordinary::lay_out(layout, &program)?;
        attempt(place, Ok(home.attacks(place, &memory)));
    } else {
        process::note("this is no root: the attacks have run as an ordinary user already");
    }
    if !failures.is_empty() {
        bail!("attacks got through, or could not be tried: {}", failures.join("; "));
    }
    Ok(())
}

/// Builds a runner whose protections can be switched off, and has the attacks find out which one is off.
pub fn mutations(layout: &Layout) -> Result<()> {
    let program = program(layout)?;
    let home = layout.target.join("mutant");
    build_mutant(layout, &home)?;
    Memory::new(process::is_root()?)?
        .attacks("on missing protections", &program, &home.join(MUTANT))
        .arg("--mutations")
        .limit(LIMIT)
        .live()
}

/// The example of runner/ that is a runner with switches, and where it is put.
const MUTANT: &str = "plue-mutant";

/// Puts the mutant, with the plugins beside it, into a folder of its own. Cargo builds it as an example, under a name
/// of its own, so that no runner without protections is ever called `plue-runner` where runners are built and shipped.
/// It shares all dependencies with what the stage `build` has made.
fn build_mutant(layout: &Layout, home: &Path) -> Result<()> {
    layout
        .cargo("building a runner whose protections can be switched off")
        .args([
            "build",
            "--release",
            "--example",
            MUTANT,
            "--features",
            "plue-runner/mutations",
        ])
        .live()?;
    fs::create_dir_all(home).with_context(|| format!("could not make {}", home.display()))?;
    plugins::copy(&layout.target.join("release/examples").join(MUTANT), &home.join(MUTANT))?;
    copy_folder(&layout.plugins(), &home.join("plugins"))
}

/// A folder on a file system in memory for most scenes, when root asks. An attack makes 100,000 names and one 10,000
/// folders, and each scene some dozens of files: on a disk that is a third of the processor time. The folder goes with
/// the value.
struct Memory(Option<PathBuf>);

impl Memory {
    fn new(is_root: bool) -> Result<Self> {
        let folder = env::temp_dir().join(format!("plue-escape-{}-scenes", std::process::id()));
        if is_root {
            fs::create_dir_all(&folder).with_context(|| format!("could not make the folder {}", folder.display()))?;
        }
        Ok(Self(is_root.then_some(folder)))
    }

    /// What the command begins with that is to have the file system, which goes with it.
    fn prefix(&self, place: &str) -> Run {
        let purpose = format!("the attacks {place}");
        match &self.0 {
            Some(folder) => Run::new(purpose, "unshare")
                .args(["--mount", "--", "sh", "-euc"])
                .args([r#"mount -t tmpfs -o mode=1777 scenes "$1"; shift; exec "$@""#, "sh"])
                .arg(folder),
            None => Run::new(purpose, "env"),
        }
    }

    /// The program's arguments for a runner.
    fn against(&self, program: Run, runner: &Path) -> Run {
        let program = program.arg("--runner").arg(runner);
        match &self.0 {
            Some(folder) => program.arg("--in-memory").arg(folder),
            None => program,
        }
    }

    fn attacks(&self, place: &str, program: &Path, runner: &Path) -> Run {
        self.against(self.prefix(place).arg(program), runner)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Some(folder) = &self.0 {
            // Whatever was in it has gone with its file system.
            let _ = fs::remove_dir(folder);
        }
    }
}

/// What was built, where any user can read it, for as long as the value lives. The target folder may lie in a home that
/// is closed to others.
struct Ordinary {
    home: PathBuf,
    /// A folder of the image, so to speak, that the ordinary user can change: that a command cannot is then the
    /// sandbox's doing.
    visible: PathBuf,
}

impl Ordinary {
    fn lay_out(layout: &Layout, program: &Path) -> Result<Self> {
        let name = format!("plue-escape-{}", std::process::id());
        let [home, visible] = [env::temp_dir(), PathBuf::from("/opt")].map(|parent| parent.join(&name));
        let ordinary = Self { home, visible };
        for folder in [&ordinary.home, &ordinary.visible] {
            fs::create_dir_all(folder).with_context(|| format!("could not make the folder {}", folder.display()))?;
            open(folder)?;
        }
        fs::set_permissions(&ordinary.visible, PermissionsExt::from_mode(0o777))
            .with_context(|| format!("could not open {} for writing", ordinary.visible.display()))?;
        for file in [program, &layout.runner()] {
            let name = file.file_name().unwrap_or_default();
            plugins::copy(file, &ordinary.home.join(name))?;
            open(&ordinary.home.join(name))?;
        }
        copy_folder(&layout.plugins(), &ordinary.home.join("plugins"))?;
        copy_folder(&layout.target.join(TEST_PLUGINS), &ordinary.home.join(TEST_PLUGINS))?;
        Ok(ordinary)
    }

    fn attacks(&self, place: &str, memory: &Memory) -> Run {
        let run = memory
            .prefix(place)
            .args(["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups"])
            .args(["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"])
            // Our own variables name folders that are root's.
            .args(["env", "--ignore-environment", "HOME=/nonexistent", "LANG=C.UTF-8"])
            .arg("PATH=/usr/local/bin:/usr/bin:/bin")
            .arg(self.home.join(PROGRAM))
            .dir(&self.home);
        memory
            .against(run, &self.home.join("plue-runner"))
            .arg("--visible")
            .arg(&self.visible)
    }
}

impl Drop for Ordinary {
    fn drop(&mut self) {
        // What is left is rubbish, and no reason to fail.
        let _ = fs::remove_dir_all(&self.home);
        let _ = fs::remove_dir_all(&self.visible);
    }
}

/// The program, which the stage `build` has built.
fn program(layout: &Layout) -> Result<PathBuf> {
    let program = layout.target.join("release").join(PROGRAM);
    if !program.is_file() {
        bail!("there is no {}: escape was not built", program.display());
    }
    Ok(program)
}

/// Copies a folder and all in it that is not there already, for everyone to read and for its owner to change. What is
/// no more in `from` goes away.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("could not make the folder {}", to.display()))?;
    open(to)?;
    for place in children(to)? {
        let old = place.file_name().map(|name| from.join(name));
        if !old.is_some_and(|old| old.exists()) {
            let removed = if place.is_dir() {
                fs::remove_dir_all(&place)
            } else {
                fs::remove_file(&place)
            };
            removed.with_context(|| format!("could not remove {}", place.display()))?;
        }
    }
    for source in children(from)? {
        let place = to.join(source.file_name().unwrap_or_default());
        if source.is_dir() {
            copy_folder(&source, &place)?;
        } else {
            plugins::copy(&source, &place)?;
            open(&place)?;
        }
    }
    Ok(())
}

fn children(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(folder).and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect());
    entries.with_context(|| format!("could not read the folder {}", folder.display()))
}

/// Lets everyone read and run what is for its owner alone to change, whatever the umask said.
fn open(path: &Path) -> Result<()> {
    fs::set_permissions(path, PermissionsExt::from_mode(0o755))
        .with_context(|| format!("could not open {} for others", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copied_folder_has_what_the_other_has_and_no_more() {
        let folder = env::temp_dir().join(format!("xtask-copy-{}", std::process::id()));
        let [from, to] = ["from", "to"].map(|name| folder.join(name));
        fs::create_dir_all(from.join("tool")).unwrap();
        fs::create_dir_all(to.join("gone")).unwrap();
        fs::write(from.join("tool/new"), "new").unwrap();
        fs::create_dir_all(to.join("tool")).unwrap();
        fs::write(to.join("tool/old"), "old").unwrap();
        copy_folder(&from, &to).unwrap();
        let found = (
            fs::read(to.join("tool/new")).unwrap(),
            fs::metadata(to.join("tool")).unwrap().permissions().mode() & 0o777,
            to.join("tool/old").exists() || to.join("gone").exists(),
        );
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(found, (b"new".to_vec(), 0o755, false));
    }
}
