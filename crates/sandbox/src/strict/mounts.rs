//! What commands see of files: the image read-only, some of it covered, the workspace, and a /tmp, /dev and /proc of
//! their own.
//!
//! The new root is built on a folder of the old one, which is only a place to stand on: everything happens in a mount
//! namespace of our own. The order matters. All of the image is made read-only first, so that nothing that comes later
//! is; and sources are opened before the first mount, since a mount may cover them. What lies in a folder that is
//! opened again is covered last.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_change, unmount,
};

use super::identity;
use super::layer::{InLayer, Layer, MissingLayer};
use super::plan::Plan;
use super::pod;
use super::rights::{Right, restrict};
use crate::mutation::Protection;
use crate::proc;

/// Folders that may carry the new root while it is built; any that is there will do.
const STAGES: [&str; 4] = ["/tmp", "/mnt", "/var", "/usr"];
/// Devices that hold and tell nothing.
const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];
/// Where the private files of commands are mounted, by their folder below the scratch file system.
const SCRATCH: [(&str, &str); 3] = [("tmp", "/tmp"), ("var-tmp", "/var/tmp"), ("shm", "/dev/shm")];
/// HOME of every command.
pub(super) const HOME: &str = "/tmp/home";
/// The folder of the scratch file system with what is laid over files of the image. No command reaches it by its name.
pub(super) const OVER: &str = "over";
/// How many files the scratch file system may have for each mebibyte: each takes memory besides its content.
const FILES_PER_MIB: u64 = 256;
/// Places that commands have of their own, whatever the image has there.
const REPLACED: [&str; 4] = ["/tmp", "/var/tmp", "/dev", "/proc"];

/// A folder of the old root that stays in reach.
struct Source {
    path: PathBuf,
    folder: File,
}

impl Source {
    /// Opens a folder for nothing but to be mounted elsewhere.
    fn open(path: &Path) -> io::Result<Self> {
        let folder = fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
            .open(path)?;
        Ok(Self {
            path: path.to_owned(),
            folder,
        })
    }

    /// Mounts the folder, and what is mounted below it, at `target`.
    fn bind(&self, target: &Path) -> io::Result<()> {
        // By the current folder: the path may be covered by now.
        rustix::process::fchdir(&self.folder)?;
        Ok(mount_bind_recursive(".", target)?)
    }
}

/// Builds the new root, and makes it the root of this process. Gives the file system in memory that /tmp is on.
pub(super) fn change_root(plan: &Plan) -> Result<Option<OwnedFd>, MissingLayer> {
    if Protection::Mount.is_off() {
        return mount_proc(Path::new("/"), Path::new("/proc")).map(|()| None);
    }
    // What is mounted from now on is nobody else's. gVisor has no propagation, and refuses to switch it off.
    let _ = mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE);
    let workspace = open_workspace(plan)?;
    let read_paths = plan.read_paths.iter().map(|path| Source::open(&path.canonicalize()?));
    let read_paths: Vec<Source> = read_paths
        .collect::<io::Result<_>>()
        .in_layer(Layer::Image, "opening a folder of COMMAND_READ_PATHS")?;
    // Links in the image lead through the old root for as long as that is the root: they are followed now.
    let covers = Covers::of(plan, &read_paths)?;
    let stage = stage().in_layer(Layer::Image, "finding a folder to build the root on")?;
    bind_image(&stage)?;
    let mut covered = vec![folder_below(&stage, Path::new("/dev"))];
    covered.extend(cover(&stage, &covers.first)?);
    devices(&stage)?;
    let scratch = scratch(&stage, plan)?;
    // Files of a volume are truncated there by an open, before anybody looks whether their mount is read-only.
    if pod::is_gvisor() {
        let volumes = writable_volumes(plan, &stage).in_layer(Layer::Image, "looking at the mounts of the image")?;
        covered.extend(cover(&stage, &volumes)?);
    }
    for source in &read_paths {
        open_again(&stage, source).in_layer(Layer::Image, format!("opening {} again", source.path.display()))?;
    }
    place_workspace(&stage, plan, &workspace)?;
    covered.extend(cover(&stage, &covers.last)?);
    // Until here folders could be made in them.
    for folder in &covered {
        restrict(folder, Right::Read, false).in_layer(Layer::Image, format!("closing {}", folder.display()))?;
    }
    mount_proc(&stage, &folder_below(&stage, Path::new("/proc")))?;
    enter(&stage).in_layer(Layer::Image, "changing the root")?;
    Ok(Some(scratch))
}

/// The processes of our PID namespace, and no others. Without a namespace of our own there is nothing to mount: the
/// image's /proc came with it.
fn mount_proc(root: &Path, target: &Path) -> Result<(), MissingLayer> {
    if Protection::Pid.is_off() {
        let bound = if root == Path::new("/") {
            Ok(())
        } else {
            mount_bind_recursive("/proc", target)
        };
        return bound.in_layer(Layer::Proc, "keeping the old /proc");
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", target, "proc", flags, None).in_layer(Layer::Proc, "mounting a new /proc")
}

/// `/stage` and `/a/b` are `/stage/a/b`.
fn folder_below(stage: &Path, path: &Path) -> PathBuf {
    stage.join(path.strip_prefix("/").unwrap_or(path))
}

fn open_workspace(plan: &Plan) -> Result<Source, MissingLayer> {
    let shown = plan.workspace.display();
    let looking = format!("looking at WORKSPACE, which is {shown}");
    let refused = |problem: &str| Err(MissingLayer::new(Layer::Workspace, &*looking, problem));
    if plan.workspace == Path::new("/") {
        return refused("commands could write every file of the image");
    }
    if REPLACED.iter().any(|place| plan.workspace == Path::new(place)) {
        return refused("commands have such a folder of their own there; a folder in it will do");
    }
    if ["/dev", "/proc", "/sys"]
        .iter()
        .any(|place| plan.workspace.starts_with(place))
    {
        return refused("the files there are the kernel's");
    }
    let writable = rustix::fs::access(
        &plan.workspace,
        rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK,
    );
    writable
        .map_err(io::Error::from)
        .in_layer(Layer::Workspace, format!("looking whether commands may write {shown}"))?;
    Source::open(&plan.workspace).in_layer(Layer::Workspace, format!("opening {shown}"))
}

/// The folders to cover that are there, without links in their paths, an outer one before what is in it.
struct Covers {
    first: Vec<PathBuf>,
    /// Those that lie in the workspace, or in a folder that the operator opens.
    last: Vec<PathBuf>,
}

impl Covers {
    fn of(plan: &Plan, read_paths: &[Source]) -> Result<Self, MissingLayer> {
        let opened = || read_paths.iter().map(|source| &source.path).chain([&plan.workspace]);
        let mut folders = BTreeSet::new();
        for folder in &plan.hidden {
            // What cannot be looked at is not there, or no command can look at it either.
            let Ok(folder) = folder.canonicalize() else {
                continue;
            };
            if opened().all(|opened| *opened != folder) {
                folders.insert(folder);
            }
        }
        for folder in &plan.own {
            match folder.canonicalize() {
                Ok(folder) if folder == plan.workspace => {
                    let problem = "commands could write the runner's own files";
                    return Err(MissingLayer::new(
                        Layer::Workspace,
                        "comparing WORKSPACE with PLUGIN_DIR",
                        problem,
                    ));
                }
                Ok(folder) => drop(folders.insert(folder)),
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {}
                Err(error) => return Err(error).in_layer(Layer::Image, format!("looking at {}", folder.display())),
            }
        }
        let (last, first): (Vec<PathBuf>, Vec<PathBuf>) = folders
            .into_iter()
            .filter(|folder| folder.is_dir())
            .partition(|folder| opened().any(|opened| folder.starts_with(opened)));
        let is_replaced = |folder: &PathBuf| REPLACED.iter().any(|place| folder.starts_with(place));
        Ok(Self {
            first: first.into_iter().filter(|folder| !is_replaced(folder)).collect(),
            last,
        })
    }
}

fn stage() -> io::Result<PathBuf> {
    let stage = STAGES.iter().map(Path::new).find(|folder| {
        // A link would lead out of the new root when that is the root.
        fs::symlink_metadata(folder).is_ok_and(|found| found.is_dir())
    });
    stage.map(Path::to_owned).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            format!("the image has none of {}", STAGES.join(", ")),
        )
    })
}

/// The whole image on the stage, without set-user-ID programs and devices, read-only.
fn bind_image(stage: &Path) -> Result<(), MissingLayer> {
    mount_bind_recursive("/", stage).in_layer(Layer::Image, "mounting the image")?;
    restrict(stage, Right::Read, true).in_layer(Layer::Image, "making the image read-only")
}

/// What is mounted in the image and may be written, but for what commands have of their own and the workspace. An outer
/// one before what is in it.
fn writable_volumes(plan: &Plan, stage: &Path) -> io::Result<Vec<PathBuf>> {
    let may_stay = |place: &Path| {
        place == Path::new("/")
            || place.starts_with(stage)
            || plan.workspace.starts_with(place)
            || place.starts_with(&plan.workspace)
            || REPLACED.iter().any(|own| place.starts_with(own))
    };
    let mut places: Vec<PathBuf> = proc::mounts()?
        .into_iter()
        .filter(|mount| !mount.has("ro") && !may_stay(&mount.place))
        .map(|mount| mount.place)
        .collect();
    places.sort();
    places.dedup();
    Ok(places)
}

/// An empty folder in the place of each of these. One that is in another is not there any more. Gives where they are.
fn cover(stage: &Path, folders: &[PathBuf]) -> Result<Vec<PathBuf>, MissingLayer> {
    let places = folders.iter().map(|folder| folder_below(stage, folder));
    let mut covered = Vec::new();
    for place in places {
        if fs::symlink_metadata(&place).is_ok_and(|found| found.is_dir()) {
            tmpfs(&place, c"mode=755,size=1m").in_layer(Layer::Image, format!("covering {}", place.display()))?;
            covered.push(place);
        }
    }
    Ok(covered)
}

fn tmpfs(target: &Path, options: &std::ffi::CStr) -> io::Result<()> {
    Ok(mount(
        "tmpfs",
        target,
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV,
        options,
    )?)
}

/// A folder of the operator's choice, read-only at its own place, which may lie in a covered one.
fn open_again(stage: &Path, source: &Source) -> io::Result<()> {
    let target = folder_below(stage, &source.path);
    make_folder(&target)?;
    source.bind(&target)?;
    restrict(&target, Right::Read, true)
}

/// Where the image is read-only the folder must be there already.
fn make_folder(target: &Path) -> io::Result<()> {
    if target.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(target)
}

fn devices(stage: &Path) -> Result<(), MissingLayer> {
    let dev = folder_below(stage, Path::new("/dev"));
    tmpfs(&dev, c"mode=755,size=64k").in_layer(Layer::Devices, "mounting a new /dev")?;
    for name in DEVICES {
        let (source, target) = (Path::new("/dev").join(name), dev.join(name));
        File::create(&target)
            .and_then(|_| Ok(mount_bind(&source, &target)?))
            .in_layer(Layer::Devices, format!("mounting /dev/{name}"))?;
    }
    let links = [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ];
    for (name, target) in links {
        symlink(target, dev.join(name)).in_layer(Layer::Devices, format!("linking /dev/{name}"))?;
    }
    fs::create_dir(dev.join("shm")).in_layer(Layer::Devices, "making /dev/shm")
}

/// One file system in memory for all that commands keep outside of the workspace: bounded once, and counted once.
fn scratch(stage: &Path, plan: &Plan) -> Result<OwnedFd, MissingLayer> {
    let tmp = folder_below(stage, Path::new("/tmp"));
    let result = || -> io::Result<OwnedFd> {
        if fs::symlink_metadata(&tmp).is_ok_and(|found| found.is_symlink()) {
            // It would lead out of the new root while that is built.
            return Err(io::Error::other("the image has a link there"));
        }
        make_folder(&tmp)?;
        let size = plan.memory / 2;
        let options = |bounds: &str| std::ffi::CString::new(format!("mode=755,{bounds}")).map_err(io::Error::other);
        let names = (size >> 20).max(1) * FILES_PER_MIB;
        match tmpfs(&tmp, &options(&format!("size={size},nr_inodes={names}"))?) {
            // gVisor bounds the bytes only.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                tmpfs(&tmp, &options(&format!("size={size}"))?)?
            }
            result => result?,
        }
        // The mount itself, which is in no command's reach once /tmp lies over it.
        let root = fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY)
            .open(&tmp)?;
        // Their folder is in nobody's reach once /tmp lies over it.
        let over = tmp.join(OVER);
        fs::create_dir(&over)?;
        identity::lay_over(&over, stage, plan)?;
        for (name, _) in SCRATCH {
            let folder = tmp.join(name);
            fs::create_dir(&folder)?;
            rustix::fs::chmod(&folder, rustix::fs::Mode::from_raw_mode(0o1777)).map_err(io::Error::from)?;
        }
        let folders = SCRATCH
            .iter()
            .map(|(name, place)| Ok((Source::open(&tmp.join(name))?, folder_below(stage, Path::new(place)))))
            .collect::<io::Result<Vec<_>>>()?;
        for (folder, place) in folders {
            // An image need not have a /var/tmp, and one that is a link leads to another of these.
            if fs::symlink_metadata(&place).is_ok_and(|found| found.is_dir()) {
                folder.bind(&place)?;
            }
        }
        Ok(root.into())
    };
    result().in_layer(Layer::Scratch, "mounting a new /tmp")
}

/// The workspace at its usual place, which may be in a covered folder or in /tmp, where there is no such folder yet.
fn place_workspace(stage: &Path, plan: &Plan, workspace: &Source) -> Result<(), MissingLayer> {
    let target = folder_below(stage, &plan.workspace);
    let shown = plan.workspace.display();
    make_folder(&target).in_layer(Layer::Workspace, format!("making a place for {shown}"))?;
    workspace
        .bind(&target)
        .in_layer(Layer::Workspace, format!("mounting {shown}"))?;
    restrict(&target, Right::Write, true).in_layer(Layer::Workspace, format!("taking privileges from {shown}"))?;
    if plan.named != plan.workspace {
        // The operator's name for it leads through a link. Where that link is covered, it is made again.
        let name = folder_below(stage, &plan.named);
        if let Some(folder) = name.parent()
            && fs::symlink_metadata(&name).is_err()
            && make_folder(folder).is_ok()
        {
            let _ = symlink(&plan.workspace, &name);
        }
    }
    Ok(())
}

/// Makes the stage the root, and lets go of the old one.
fn enter(stage: &Path) -> io::Result<()> {
    std::env::set_current_dir(stage)?;
    // Puts the old root over the new one, until it is detached.
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    std::env::set_current_dir("/")
}
