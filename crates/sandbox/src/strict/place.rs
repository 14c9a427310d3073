//! What mounting is made of: a folder that is to be mounted elsewhere, the place for it, and an empty file system.

use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, mount, mount_bind_recursive};

/// A folder of the old root that stays in reach.
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) folder: File,
}

impl Source {
    /// Opens a folder for nothing but to be mounted elsewhere.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
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
    pub(super) fn bind(&self, target: &Path) -> io::Result<()> {
        // By the current folder: the path may be covered by now.
        rustix::process::fchdir(&self.folder)?;
        Ok(mount_bind_recursive(".", target)?)
    }
}

/// `/stage` and `/a/b` are `/stage/a/b`.
pub(super) fn folder_below(stage: &Path, path: &Path) -> PathBuf {
    stage.join(path.strip_prefix("/").unwrap_or(path))
}

/// An empty file system in memory.
pub(super) fn tmpfs(target: &Path, options: &CStr) -> io::Result<()> {
    Ok(mount(
        "tmpfs",
        target,
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV,
        options,
    )?)
}
