//! Everything around one run: a workspace, canaries outside of it, secrets, and listeners that notice who reaches them.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;
use support::ApiServer;
use tempfile::TempDir;

use crate::bystander::Bystander;
use crate::canary::{self, Digest};
use crate::listeners::Listeners;
use crate::processes::Adopted;
use crate::secrets::{self, Secrets};
use crate::target::Target;

/// Where the attack program and its target lie in the workspace.
const PROGRAM: &str = ".plue-escape/plue-escape";
const TARGET: &str = ".plue-escape/target.json";
/// The file beside the target that the attack program makes when it begins.
pub const BEGUN_FILE: &str = "begun";

/// What is the same for all scenes of a run of the harness.
#[derive(Clone, Debug)]
pub struct Places {
    /// Where the folders of scenes are made.
    pub base: PathBuf,
    /// A folder that commands may see read-only, when there is one that we can write to.
    pub visible: Option<PathBuf>,
    /// A copy of this program, which workspaces get a link to.
    pub program: PathBuf,
    pub adopted: Arc<Adopted>,
}

/// Where scenes are made, and those whose outside nobody has touched, for the attacks that come next: to make one takes
/// longer than most attacks do.
pub struct Scenes {
    pub places: Places,
    idle: Mutex<Vec<Scene>>,
    _folder: TempDir,
}

impl Scenes {
    /// In `base`. What is visible is as [`Places::find`] says, and `adopted` is the same for all of a harness.
    pub fn new(base: &Path, visible: Option<&Path>, adopted: &Arc<Adopted>) -> Result<Self> {
        let (places, folder) = Places::find(base, visible, adopted)?;
        Ok(Self {
            places,
            idle: Mutex::default(),
            _folder: folder,
        })
    }

    /// One with a workspace in which nothing was yet.
    pub async fn take(&self) -> Result<Scene> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match idle {
            Some(scene) => Ok(scene),
            None => Scene::new(&self.places).await,
        }
    }

    /// Takes back a scene that what was tried in it could not leave. One that is not as it was made goes away.
    pub async fn give_back(&self, mut scene: Scene) {
        if let Ok(true) = scene.renew().await {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(scene);
        }
    }

    /// Removes those that wait.
    pub fn clear(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Places {
    /// Takes `base` for the scenes, and for what is visible the given folder, or else the first of the image that takes
    /// our files. Not a folder that commands have one of their own of, such as /var/tmp.
    fn find(base: &Path, visible: Option<&Path>, adopted: &Arc<Adopted>) -> Result<(Self, TempDir)> {
        let folder = tempfile::Builder::new()
            .prefix("plue-escape-program-")
            .tempdir_in(base)
            .with_context(|| format!("make a folder in {}", base.display()))?;
        let program = folder.path().join("plue-escape");
        let own = std::env::current_exe().context("find this program")?;
        fs::copy(&own, &program).with_context(|| format!("copy {}", own.display()))?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o555))?;
        let candidates = ["/opt", "/srv", "/var/lib", "/mnt", "/workspace"];
        let takes_files = |folder: &Path| !folder.starts_with(base) && tempfile::tempdir_in(folder).is_ok();
        let visible = match visible {
            Some(folder) => {
                let folder = folder
                    .canonicalize()
                    .with_context(|| format!("find {}", folder.display()))?;
                ensure!(takes_files(&folder), "{} takes no files of ours", folder.display());
                Some(folder)
            }
            None => candidates
                .into_iter()
                .map(PathBuf::from)
                .find(|folder| takes_files(folder)),
        };
        let places = Self {
            base: base.to_owned(),
            visible,
            program,
            adopted: Arc::clone(adopted),
        };
        Ok((places, folder))
    }
}

/// See the module. Dropping it removes everything.
pub struct Scene {
    pub id: String,
    /// What an attack may touch.
    pub workspace: PathBuf,
    /// The workspace's parent: the canaries in it are hidden from commands.
    pub hidden: PathBuf,
    /// Canaries in the image, which commands may see and not change.
    pub visible: Option<PathBuf>,
    pub secrets: Secrets,
    pub listeners: Listeners,
    pub api: ApiServer,
    pub bystander: Bystander,
    program: PathBuf,
    /// Canaries at places that hold what is somebody's own: homes, and what runs. Everybody may read them.
    pub private: Vec<PathBuf>,
    background: Mutex<Vec<JoinHandle<()>>>,
    stop: Arc<AtomicBool>,
    steps: Arc<AtomicU64>,
    adopted: Arc<Adopted>,
    /// For plugins and task files: outside of the workspace and no canary.
    side: PathBuf,
    /// The outside as it was made.
    made: Vec<Digest>,
    /// When the folder of the workspace was last changed: a new workspace changes it again.
    changed: SystemTime,
    _folders: Vec<TempDir>,
}

impl Scene {
    pub async fn new(places: &Places) -> Result<Self> {
        let id = secrets::random()?[..10].to_owned();
        let secrets = Secrets::new(&id)?;
        let make = |parent: &Path| {
            tempfile::Builder::new()
                .prefix(&format!("plue-escape-{id}-"))
                .tempdir_in(parent)
                .and_then(|folder| {
                    // Whatever the umask is.
                    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777))?;
                    Ok(folder)
                })
                .with_context(|| format!("make a folder in {}", parent.display()))
        };
        let folder = make(&places.base)?;
        let root = folder.path().canonicalize()?;
        let side = make(&places.base)?;
        let side_path = side.path().canonicalize()?;
        let mut folders = vec![folder, side];
        let workspace = root.join("workspace");
        fs::create_dir(&workspace)?;
        canary::lay_out(&root, &secrets.file)?;
        canary::lay_out(&root.join("workspace-evil"), &secrets.file)?;
        let visible = match &places.visible {
            Some(parent) => {
                let folder = make(parent)?;
                let path = folder.path().canonicalize()?;
                canary::lay_out(&path, &secrets.file)?;
                folders.push(folder);
                Some(path)
            }
            None => None,
        };
        let mut private = Vec::new();
        for parent in ["/root", "/home", "/run"] {
            if let Ok(folder) = make(Path::new(parent)) {
                canary::lay_out(folder.path(), &secrets.file)?;
                private.push(folder.path().to_owned());
                folders.push(folder);
            }
        }
        let listeners = Listeners::open(&id, &root).await?;
        let api = api(&secrets).start().await?;
        let bystander = Bystander::start(&places.program, &root.join("secret.txt"), &secrets, &places.adopted).await?;
        let changed = fs::metadata(&root)?.modified()?;
        let mut scene = Self {
            workspace,
            hidden: root,
            visible,
            secrets,
            listeners,
            api,
            bystander,
            program: places.program.clone(),
            private,
            background: Mutex::default(),
            stop: Arc::default(),
            steps: Arc::default(),
            adopted: Arc::clone(&places.adopted),
            side: side_path,
            made: Vec::new(),
            changed,
            id,
            _folders: folders,
        };
        scene.made = scene.digest()?;
        Ok(scene)
    }

    /// Gives it a new workspace and a new API server. Says whether the outside is as it was made, and was not reached.
    async fn renew(&mut self) -> Result<bool> {
        self.end_background();
        self.remove_workspace();
        remove(&self.side)?;
        for (folder, mode) in [(&self.workspace, None), (&self.side, Some(0o777))] {
            fs::create_dir(folder)?;
            if let Some(mode) = mode {
                fs::set_permissions(folder, fs::Permissions::from_mode(mode))?;
            }
        }
        fs::File::open(&self.hidden)?.set_modified(self.changed)?;
        let reached = self.listeners.reached().len() + self.bystander.noticed().len();
        if reached > 0 || self.digest()? != self.made {
            return Ok(false);
        }
        self.api = api(&self.secrets).start().await?;
        self.steps = Arc::default();
        Ok(true)
    }

    fn end_background(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let background = self.background.get_mut().unwrap_or_else(PoisonError::into_inner);
        for thread in background.drain(..) {
            let _ = thread.join();
        }
        self.stop = Arc::default();
    }

    fn remove_workspace(&self) {
        // What an attack has put in the workspace's place, a link to / for one, is no folder of ours: only the link
        // goes.
        let is_ours = fs::symlink_metadata(&self.workspace).is_ok_and(|found| found.is_dir());
        if !is_ours || remove(&self.workspace).is_err() {
            let _ = std::process::Command::new("rm")
                .arg("-rf")
                .arg("--")
                .arg(&self.workspace)
                .status();
        }
    }

    /// Everything outside of the workspace, as it is now.
    pub fn digest(&self) -> Result<Vec<Digest>> {
        let mut digests = vec![Digest::of(&self.hidden, Some(&self.workspace)).context("look at the canaries")?];
        if let Some(visible) = &self.visible {
            digests.push(Digest::of(visible, None).context("look at the canaries in the image")?);
        }
        for private in &self.private {
            digests.push(Digest::of(private, None).context("look at the canaries in a home")?);
        }
        Ok(digests)
    }

    /// Where the links of the workspace lead that lead out of it, as they say it. A refusal must not repeat that. What
    /// is too short to be told from ordinary text is left out.
    pub fn link_targets(&self) -> Vec<String> {
        let links = |folder: &Path| {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten().take(1000);
            entries.map(|entry| entry.path()).collect::<Vec<_>>()
        };
        let top = links(&self.workspace);
        let below: Vec<PathBuf> = top
            .iter()
            .filter(|path| path.symlink_metadata().is_ok_and(|meta| meta.is_dir()))
            .take(20)
            .flat_map(|path| links(path))
            .collect();
        let own = self.workspace.to_string_lossy();
        let targets = top.iter().chain(&below).filter_map(|path| fs::read_link(path).ok());
        targets
            .map(|target| target.to_string_lossy().into_owned())
            .filter(|target| target.len() > 4 && !target.starts_with(&*own))
            .filter(|target| target.starts_with('/') || target.contains("../"))
            .collect()
    }

    /// Does something again and again beside the run, until the scene goes or it says that it is done.
    pub fn meanwhile(&self, mut step: impl FnMut() -> bool + Send + 'static) {
        let (stop, steps) = (Arc::clone(&self.stop), Arc::clone(&self.steps));
        let thread = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) && step() {
                steps.fetch_add(1, Ordering::Relaxed);
            }
        });
        self.background
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(thread);
    }

    /// How often that was done so far.
    pub fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    /// Runs a script in the workspace and outside of every sandbox, with no input that ever comes, for at most this
    /// long. Gives what it printed, and whether it came to an end by itself.
    pub fn outside(&self, script: &str, limit: Duration) -> Result<(String, bool)> {
        let mut command = std::process::Command::new("/bin/sh");
        let script = format!(": {}\n{script}", self.id);
        command
            .args(["-c", &script])
            .current_dir(&self.workspace)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0);
        let started = self.adopted.start(|| command.spawn(), |child| Some(child.id()));
        let (mut child, pid) = started.context("start /bin/sh")?;
        let input = child.stdin.take();
        let mut output = child.stdout.take().context("there is no output")?;
        let end = Instant::now() + limit;
        let mut ended = false;
        while !ended && Instant::now() < end {
            ended = child.try_wait()?.is_some();
            std::thread::sleep(Duration::from_millis(5));
        }
        if !ended && let Some(group) = rustix::process::Pid::from_raw(pid) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            child.wait()?;
        }
        drop(input);
        self.adopted.forget(pid);
        let mut text = Vec::new();
        if ended {
            // What goes on in the background may hold the pipe: what is in it is enough.
            rustix::io::ioctl_fionbio(&output, true)?;
            let _ = io::Read::read_to_end(&mut output, &mut text);
        }
        Ok((String::from_utf8_lossy(&text).into_owned(), ended))
    }

    /// Puts a file into the workspace.
    pub fn file(&self, path: &str, content: impl AsRef<[u8]>) -> Result<()> {
        let path = self.workspace.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))
    }

    /// Puts a symbolic link into the workspace.
    pub fn link(&self, path: &str, target: impl AsRef<Path>) -> Result<()> {
        let path = self.workspace.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        std::os::unix::fs::symlink(target, &path).with_context(|| format!("link {}", path.display()))
    }

    /// Puts the attack program into the workspace, and gives the command that runs an attack.
    pub fn program(&self, attack: &str) -> Result<String> {
        let program = self.workspace.join(PROGRAM);
        let folder = self.workspace.join(".plue-escape");
        fs::create_dir_all(&folder)?;
        if !program.exists() && fs::hard_link(&self.program, &program).is_err() {
            fs::copy(&self.program, &program).context("copy the attack program into the workspace")?;
        }
        Ok(format!("./{PROGRAM} attack {attack} {}", self.target_file().display()))
    }

    /// Whether the attack program is there, which waits for its target.
    pub fn has_program(&self) -> bool {
        self.workspace.join(PROGRAM).exists()
    }

    /// Whether the attack program has begun.
    pub fn has_begun(&self) -> bool {
        self.target_file().with_file_name(BEGUN_FILE).exists()
    }

    /// Where a plugin folder of this scene's own is laid out.
    pub fn plugin_folder(&self) -> PathBuf {
        self.side.join("plugins")
    }

    /// Where a task file of this scene's own is written.
    pub fn task_file(&self) -> PathBuf {
        self.side.join("task")
    }

    /// Where the attack program waits for its target: the runner's id is known only once it runs.
    pub fn target_file(&self) -> PathBuf {
        self.workspace.join(TARGET)
    }

    /// Tells the attack program what there is to attack.
    pub fn write_target(&self, runner: i32, baseline: bool) -> Result<Target> {
        let target = Target {
            scene: self.id.clone(),
            workspace: self.workspace.clone(),
            hidden: self.hidden.clone(),
            visible: self.visible.clone(),
            private: self.private.clone(),
            secret_prefix: self.secrets.prefix.clone(),
            runner,
            bystander: self.bystander.pid(),
            tcp: self.listeners.tcp,
            tcp6: self.listeners.tcp6,
            udp: self.listeners.udp,
            abstract_socket: self.listeners.abstract_name.clone(),
            socket: self.listeners.path.clone(),
            callback: self.api.url(),
            baseline,
        };
        let path = self.target_file();
        fs::create_dir_all(self.workspace.join(".plue-escape"))?;
        let new = path.with_extension("new");
        fs::write(&new, serde_json::to_vec(&target)?)?;
        // At once: the program may look at any time.
        fs::rename(&new, &path)?;
        Ok(target)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.end_background();
        self.remove_workspace();
    }
}

/// The API server of a scene. It takes batches, too, which only a race sends.
fn api(secrets: &Secrets) -> support::api_server::Settings {
    ApiServer::with().token(&secrets.callback_token).batches()
}

/// Removes a folder, however deep it is. The library goes down by calling itself, and holds a descriptor for each
/// level: where many may be open, thousands of levels end the stack, and the harness with it.
///
/// An attack may have put a link in the folder's place, to the machine's root for instance. No link is followed here:
/// all is done from descriptors of folders that were opened as such.
fn remove(folder: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = |at: BorrowedFd, name: &CStr| rustix::fs::openat(at, name, flags, Mode::empty());
    let top = rustix::fs::open(folder, flags, Mode::empty())?;
    let mut raised: Vec<CString> = Vec::new();
    let mut number = 0;
    loop {
        let inner = raised.last().map(|name| open(top.as_fd(), name)).transpose()?;
        let inner = inner.as_ref().unwrap_or(&top);
        let known = raised.len();
        // All of them first: a listing that goes on would show what is raised meanwhile, again and again.
        for entry in Dir::read_from(inner)?.collect::<Result<Vec<_>, _>>()? {
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            match rustix::fs::unlinkat(inner, name, AtFlags::empty()) {
                Ok(()) => {}
                // A folder goes to the top, where its path is short. One that is there already has its turn.
                Err(Errno::ISDIR) if raised.iter().any(|other| **other == *name) => {}
                Err(Errno::ISDIR) => {
                    number += 1;
                    let new = CString::new(format!(".plue-escape-removed-{number}"))?;
                    rustix::fs::renameat(inner, name, &top, &*new)?;
                    raised.push(new);
                }
                Err(error) => return Err(error.into()),
            }
        }
        if raised.len() == known {
            match raised.pop() {
                Some(name) => rustix::fs::unlinkat(&top, &*name, AtFlags::REMOVEDIR)?,
                None => return fs::remove_dir(folder),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_folder_deeper_than_any_stack_or_path_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir_all(root.join("beside")).unwrap();
        fs::write(root.join("beside/file"), "x").unwrap();
        let top = root.join("deep");
        fs::create_dir(&top).unwrap();
        // From the inside to the outside, as no path may be so long.
        for _ in 0..5000 {
            let around = root.join("around");
            fs::create_dir(&around).unwrap();
            fs::rename(&top, around.join("deep")).unwrap();
            fs::rename(&around, &top).unwrap();
        }
        remove(&root).unwrap();
        assert!(!root.exists());
    }

    #[test]
    fn a_link_in_the_place_of_a_folder_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (kept, link) = (folder.path().join("kept"), folder.path().join("link"));
        fs::create_dir_all(kept.join("below")).unwrap();
        fs::create_dir(folder.path().join("root")).unwrap();
        symlink(&kept, &link).unwrap();
        symlink(&kept, folder.path().join("root/link")).unwrap();
        remove(&link).unwrap_err();
        remove(&folder.path().join("root")).unwrap();
        assert!(kept.join("below").is_dir() && !folder.path().join("root").exists());
    }
}
