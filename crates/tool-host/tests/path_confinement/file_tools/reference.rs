//! What a chroot onto the workspace makes of a path: asked of the kernel, by a thread that lives in one.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};

use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use rustix::io::Errno;
use rustix::thread::UnshareFlags;

/// What is there, links followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    File(Vec<u8>),
    /// The names in it, sorted.
    Folder(Vec<Vec<u8>>),
    Other,
}

/// Asks the thread.
pub struct Reference {
    ask: Sender<String>,
    answers: Receiver<Result<What, Errno>>,
    /// How the root was changed.
    pub way: Way,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// chroot(2), which takes the privilege for it.
    Chroot,
    /// `RESOLVE_IN_ROOT` of openat2(2): by its manual page "as though the process had used chroot(2)".
    InRoot,
}

impl Reference {
    /// By chroot where that is allowed, else in the kernel's other way.
    pub fn new(workspace: PathBuf) -> Self {
        Self::by(Way::Chroot, workspace.clone())
            .or_else(|_| Self::by(Way::InRoot, workspace))
            .unwrap_or_else(|error| {
                panic!("no reference for paths: it takes CAP_SYS_CHROOT (be root), or openat2 (Linux 5.6): {error}")
            })
    }

    pub fn by(way: Way, workspace: PathBuf) -> Result<Self, Errno> {
        let (ask, asked) = channel::<String>();
        let (answer, answers) = channel();
        let (ready, is_ready) = channel();
        std::thread::spawn(move || {
            let root = match enter(way, &workspace) {
                Ok(root) => root,
                Err(error) => {
                    let _ = ready.send(Err(error));
                    return;
                }
            };
            let _ = ready.send(Ok(()));
            for path in asked {
                if answer.send(look(way, &root, &path)).is_err() {
                    return;
                }
            }
        });
        is_ready.recv().unwrap_or(Err(Errno::IO))?;
        Ok(Self { ask, answers, way })
    }

    /// `path` is relative to the workspace, in whatever spelling.
    pub fn look(&self, path: &str) -> Result<What, Errno> {
        self.ask.send(format!("./{path}")).unwrap();
        self.answers.recv().unwrap()
    }
}

fn enter(way: Way, workspace: &std::path::Path) -> Result<rustix::fd::OwnedFd, Errno> {
    let folder = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    if way == Way::Chroot {
        // SAFETY: CLONE_FS gives this thread a root and a working folder of its own; descriptors stay shared.
        #[allow(unsafe_code)]
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }?;
        rustix::process::chroot(workspace)?;
        rustix::process::chdir("/")?;
        return rustix::fs::open("/", folder, Mode::empty());
    }
    let root = rustix::fs::open(workspace, folder, Mode::empty())?;
    openat2(&root, ".", folder, Mode::empty(), ResolveFlags::IN_ROOT)?;
    Ok(root)
}

fn look(way: Way, root: &rustix::fd::OwnedFd, path: &str) -> Result<What, Errno> {
    let open = |flags: OFlags| match way {
        Way::Chroot => openat(root, path, flags | OFlags::CLOEXEC, Mode::empty()),
        // EAGAIN: somebody, anywhere on the machine, renamed something meanwhile, and the kernel is not sure of a `..`.
        Way::InRoot => loop {
            match openat2(
                root,
                path,
                flags | OFlags::CLOEXEC,
                Mode::empty(),
                ResolveFlags::IN_ROOT,
            ) {
                Err(Errno::AGAIN) => {}
                done => break done,
            }
        },
    };
    // Without opening it: a FIFO would wait.
    let stat = fstat(open(OFlags::PATH)?)?;
    let what = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => What::File(read(open(OFlags::RDONLY)?)?),
        FileType::Directory => {
            let mut names = Vec::new();
            for entry in Dir::new(open(OFlags::RDONLY)?)? {
                let name = entry?.file_name().to_bytes().to_vec();
                if name != b"." && name != b".." {
                    names.push(name);
                }
            }
            names.sort();
            What::Folder(names)
        }
        _ => What::Other,
    };
    Ok(what)
}

fn read(file: rustix::fd::OwnedFd) -> Result<Vec<u8>, Errno> {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut std::fs::File::from(file), &mut bytes)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(bytes)
}
