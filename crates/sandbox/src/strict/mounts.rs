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

use super::disk;
use super::identity;
use super::kernel_files;
use super::layer::{InLayer, Layer, MissingLayer};
use super::place::{Source, folder_below, tmpfs};
use super::plan::{Plan, REPLACED};
use super::pod;
use super::rights::{Right, close_device, restrict};
use crate::mutation::Protection;
use crate::proc;

/// Folders that may carry the new root while it is built; any that is there will do.
const STAGES: [&str; 4] = ["/tmp", "/mnt", "/var", "/usr"];
/// Devices that hold and tell nothing.
const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];
/// The terminals of commands: their own, and none of the machine's. So many at a time, since the kernel has a number of
/// them for all.
const TERMINALS: &std::ffi::CStr = c"newinstance,ptmxmode=666,mode=620,max=256";
/// The same in gVisor, which has no such number, and takes the mode for that of the folder.
const TERMINALS_IN_GVISOR: &std::ffi::CStr = c"newinstance,ptmxmode=666";
/// Where the private files of commands are mounted, by their folder below the scratch file system. The first two may be
/// on a disk.
const SCRATCH: [(&str, &str); 3] = [disk::FOLDERS[0], disk::FOLDERS[1], ("shm", "/dev/shm")];
/// The folder of the scratch file system with what is laid over files of the image. No command reaches it by its name.
pub(super) const OVER: &str = "over";
/// An empty file there.
const EMPTY: &str = "empty";
/// Where the names of POSIX message queues are mounted there, for the attendants alone.
const QUEUES: &str = "queues";
/// How many files the scratch file system may have for each mebibyte: each takes memory besides its content.
const FILES_PER_MIB: u64 = 256;

/// What was mounted for the sandbox's own processes, and no command can name.
pub(super) struct Mounted {
    /// The file system in memory that /tmp is on. `None`: commands have the image's own /tmp (in a mutation run).
    pub(super) scratch: Option<OwnedFd>,
    /// What lies in the temporary folders, when these are on a disk.
    pub(super) disk: Option<disk::Used>,
    /// The folder with a file for each POSIX message queue. `None` where the kernel shows none.
    pub(super) queues: Option<OwnedFd>,
}

/// Builds the new root, and makes it the root of this process.
pub(super) fn change_root(plan: &Plan) -> Result<Mounted, MissingLayer> {
    if Protection::Mount.is_off() {
        return mount_proc(Path::new("/"), Path::new("/proc")).map(|()| Mounted {
            scratch: None,
            disk: None,
            queues: None,
        });
    }
    // What is mounted from now on is nobody else's. gVisor has no propagation, and refuses to switch it off.
    let _ = mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE);
    let workspace = open_workspace(plan)?;
    let read_paths = plan.read_paths.iter().map(|path| open_read_path(path));
    let read_paths: Vec<Source> = read_paths.collect::<Result<_, _>>()?;
    let processors = Source::open(Path::new(kernel_files::PROCESSORS)).ok();
    let on_disk = OnDisk::open(plan).in_layer(Layer::Scratch, "opening the folder for temporary files")?;
    // Links in the image lead through the old root for as long as that is the root: they are followed now.
    let covers = Covers::of(plan, &read_paths)?;
    let stage = stage().in_layer(Layer::Image, "finding a folder to build the root on")?;
    bind_image(&stage)?;
    let mut covered = vec![folder_below(&stage, Path::new("/dev"))];
    covered.extend(cover(&stage, &covers.first)?);
    devices(&stage)?;
    let (scratch, over) = scratch(&stage, plan, &on_disk.sources)?;
    let disk = on_disk.used;
    let queues = queues(&over);
    let kernel_files = folder_below(&stage, Path::new(kernel_files::FOLDER));
    if covered.contains(&kernel_files) {
        kernel_files::show(&stage, plan, processors.as_ref()).in_layer(
            Layer::Image,
            format!("telling commands of processors and memory in {}", kernel_files::FOLDER),
        )?;
    }
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
    cover_files(&stage, &over, &covers.files)?;
    // Until here folders could be made in them.
    for folder in &covered {
        let closed = unless_gone(restrict(folder, Right::Read, false), folder);
        closed.in_layer(Layer::Image, format!("closing {}", folder.display()))?;
    }
    mount_proc(&stage, &folder_below(&stage, Path::new("/proc")))?;
    // The names of keys in the kernel are shown to whoever has the number of their user.
    cover_files(&stage, &over, &["/proc/keys", "/proc/key-users"].map(PathBuf::from))?;
    let (name, content) = kernel_files::CONTROLLERS;
    lay_over_proc(&stage, &over, name, content).in_layer(Layer::Proc, format!("an own /proc/{name}"))?;
    enter(&stage).in_layer(Layer::Image, "changing the root")?;
    Ok(Mounted {
        scratch: Some(scratch),
        disk,
        queues,
    })
}

fn open_read_path(path: &Path) -> Result<Source, MissingLayer> {
    let opened = path.canonicalize().and_then(|path| Source::open(&path));
    opened.map_err(|error| {
        let doing = format!("opening {} of COMMAND_READ_PATHS", path.display());
        let remedy = "see that each path of COMMAND_READ_PATHS is a folder that is there, and that the runner's user \
                      may enter, or leave it out";
        MissingLayer::new(Layer::Image, doing, error).with_remedy(remedy)
    })
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
    mount("proc", target, "proc", flags, None).in_layer(Layer::Proc, "mounting a new /proc")?;
    // What a command could write there is how the kernel takes it: as the first to end when memory runs out, for one.
    // Its open files are written as before: a link to one leads out of /proc.
    restrict(target, Right::Read, false).in_layer(Layer::Proc, "making /proc read-only")
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
    /// Files, and sockets.
    files: Vec<PathBuf>,
}

impl Covers {
    fn of(plan: &Plan, read_paths: &[Source]) -> Result<Self, MissingLayer> {
        let opened = || read_paths.iter().map(|source| &source.path).chain([&plan.workspace]);
        let mut folders = BTreeSet::new();
        let file_systems = kernel_file_systems().in_layer(Layer::Image, "looking at the mounts of the image")?;
        for folder in plan.hidden.iter().chain(&file_systems) {
            // What cannot be looked at is not there, or no command can look at it either.
            let Ok(folder) = folder.canonicalize() else {
                continue;
            };
            if opened().all(|opened| *opened != folder) {
                folders.insert(folder);
            }
        }
        let sockets = plan.sockets.iter().filter_map(|socket| socket.canonicalize().ok());
        // The task's own may talk to each other.
        let sockets = sockets.filter(|socket| !socket.starts_with(&plan.workspace));
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
        let (folders, mut files): (Vec<PathBuf>, Vec<PathBuf>) = folders.into_iter().partition(|path| path.is_dir());
        files.extend(sockets);
        let (last, first): (Vec<PathBuf>, Vec<PathBuf>) = folders
            .into_iter()
            .partition(|folder| opened().any(|opened| folder.starts_with(opened)));
        let is_replaced = |folder: &PathBuf| REPLACED.iter().any(|place| folder.starts_with(place));
        Ok(Self {
            first: first.into_iter().filter(|folder| !is_replaced(folder)).collect(),
            last,
            files,
        })
    }
}

/// What the kernel shows of itself, of processes and devices, by the names of such file systems.
const KERNEL_FILE_SYSTEMS: [&str; 13] = [
    "proc",
    "sysfs",
    "cgroup",
    "cgroup2",
    "debugfs",
    "tracefs",
    "devtmpfs",
    "devpts",
    "mqueue",
    "bpf",
    "securityfs",
    "pstore",
    "configfs",
];

/// Where such a file system is mounted besides the usual places: in the root of a container that is built there, for
/// instance. That of another PID namespace shows all its processes.
fn kernel_file_systems() -> io::Result<Vec<PathBuf>> {
    let is_usual = |place: &Path| ["/proc", "/sys", "/dev"].iter().any(|usual| place.starts_with(usual));
    let mounts = proc::mounts()?.into_iter();
    let theirs = mounts.filter(|mount| KERNEL_FILE_SYSTEMS.contains(&&*mount.kind) && !is_usual(&mount.place));
    Ok(theirs.map(|mount| mount.place).collect())
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
            let made = unless_gone(tmpfs(&place, c"mode=755,size=1m"), &place);
            made.in_layer(Layer::Image, format!("covering {}", place.display()))?;
            covered.push(place);
        }
    }
    Ok(covered)
}

/// What somebody outside has removed while we were at it (a socket, a folder with a mount in it) need not be covered:
/// what was mounted there went with it.
fn unless_gone(result: io::Result<()>, place: &Path) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(place).is_err() => Ok(()),
        result => result,
    }
}

/// An empty file in the place of each of these, which may be a socket.
fn cover_files(stage: &Path, over: &Source, files: &[PathBuf]) -> Result<(), MissingLayer> {
    for file in files {
        let place = folder_below(stage, file);
        // What lies in a covered folder is not there any more.
        if fs::symlink_metadata(&place).is_ok_and(|found| !found.is_dir() && !found.is_symlink()) {
            let cover = || -> io::Result<()> {
                rustix::process::fchdir(&over.folder)?;
                mount_bind(EMPTY, &place)?;
                restrict(&place, Right::Read, false)
            };
            let made = unless_gone(cover(), &place);
            made.in_layer(Layer::Image, format!("covering {}", place.display()))?;
        }
    }
    Ok(())
}

/// A file of ours in the place of one of /proc, where the kernel has that.
fn lay_over_proc(stage: &Path, over: &Source, name: &str, content: &str) -> io::Result<()> {
    let place = folder_below(stage, Path::new("/proc")).join(name);
    if !fs::symlink_metadata(&place).is_ok_and(|found| found.is_file()) {
        return Ok(());
    }
    rustix::process::fchdir(&over.folder)?;
    fs::write(name, content)?;
    rustix::fs::chmod(name, rustix::fs::Mode::from_raw_mode(0o444))?;
    mount_bind(name, &place)?;
    restrict(&place, Right::Read, false)
}

/// The message queues of commands, as files. They outlive who makes them, and an attendant has to see them for that.
fn queues(over: &Source) -> Option<OwnedFd> {
    // gVisor does not list them.
    if pod::is_gvisor() {
        return None;
    }
    let mounted = || -> io::Result<OwnedFd> {
        rustix::process::fchdir(&over.folder)?;
        fs::create_dir(QUEUES)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("mqueue", QUEUES, "mqueue", flags, None)?;
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        Ok(rustix::fs::open(QUEUES, flags, rustix::fs::Mode::empty())?)
    };
    mounted().ok()
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
            .and_then(|()| close_device(&target))
            .in_layer(Layer::Devices, format!("mounting /dev/{name}"))?;
    }
    terminals(&dev);
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

/// Terminals of the commands' own. A kernel that gives an ordinary user none (before Linux 4.7, for one) is no reason
/// to run no command.
fn terminals(dev: &Path) {
    let terminals = dev.join("pts");
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    let options = if pod::is_gvisor() {
        TERMINALS_IN_GVISOR
    } else {
        TERMINALS
    };
    let mounted = fs::create_dir(&terminals)
        .and_then(|()| Ok(mount("devpts", &terminals, "devpts", flags, options)?))
        .and_then(|()| symlink("pts/ptmx", dev.join("ptmx")));
    // The one that a process was started from, which no command has before it makes one.
    let own = dev.join("tty");
    let _ = mounted
        .and_then(|()| File::create(&own))
        .and_then(|_| Ok(mount_bind("/dev/tty", &own)?));
}

/// What of the temporary folders lies on a disk.
struct OnDisk {
    /// By their name in [`SCRATCH`].
    sources: Vec<(&'static str, Source)>,
    used: Option<disk::Used>,
}

impl OnDisk {
    fn open(plan: &Plan) -> io::Result<Self> {
        let Some(folder) = &plan.disk else {
            return Ok(Self {
                sources: Vec::new(),
                used: None,
            });
        };
        let sources = disk::FOLDERS.map(|(name, _)| Ok((name, Source::open(&folder.join(name))?)));
        Ok(Self {
            sources: sources.into_iter().collect::<io::Result<_>>()?,
            used: Some(disk::Used::open(folder)?),
        })
    }
}

/// One file system in memory for all that commands keep outside of the workspace, but for what is on a disk: bounded
/// once, and counted once.
fn scratch(stage: &Path, plan: &Plan, on_disk: &[(&str, Source)]) -> Result<(OwnedFd, Source), MissingLayer> {
    let tmp = folder_below(stage, Path::new("/tmp"));
    let result = || -> io::Result<(OwnedFd, Source)> {
        if fs::symlink_metadata(&tmp).is_ok_and(|found| found.is_symlink()) {
            // It would lead out of the new root while that is built.
            return Err(io::Error::other("the image has a link there"));
        }
        make_folder(&tmp)?;
        let size = if on_disk.is_empty() {
            plan.tmp_size
        } else {
            plan.memory / 2
        };
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
        fs::write(over.join(EMPTY), "")?;
        rustix::fs::chmod(over.join(EMPTY), rustix::fs::Mode::empty()).map_err(io::Error::from)?;
        identity::lay_over(&over, stage, plan)?;
        let over = Source::open(&over)?;
        for (name, _) in SCRATCH {
            let folder = tmp.join(name);
            fs::create_dir(&folder)?;
            rustix::fs::chmod(&folder, rustix::fs::Mode::from_raw_mode(0o1777)).map_err(io::Error::from)?;
        }
        let folders = SCRATCH
            .iter()
            .map(|(name, place)| {
                Ok((
                    *name,
                    Source::open(&tmp.join(name))?,
                    folder_below(stage, Path::new(place)),
                ))
            })
            .collect::<io::Result<Vec<_>>>()?;
        for (name, in_memory, place) in folders {
            // An image need not have a /var/tmp, and one that is a link leads to another of these.
            if !fs::symlink_metadata(&place).is_ok_and(|found| found.is_dir()) {
                continue;
            }
            match on_disk.iter().find(|(wanted, _)| *wanted == name) {
                Some((_, folder)) => {
                    folder.bind(&place)?;
                    restrict(&place, Right::Write, false)?;
                }
                None => in_memory.bind(&place)?,
            }
        }
        Ok((root.into(), over))
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
