//! Removes everything in a folder, whatever a hostile task has put there.
//!
//! Only descriptors and single names are used, and no link is followed, so that nothing outside is ever reached. Nested
//! folders are moved up to the top and emptied there: however deep they are, that takes no recursion and always the
//! same number of descriptors. A folder is read once, while it is emptied.

use std::ffi::{CStr, CString, OsStr};
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, chmodat, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

use super::attributes::{Attributes, unlock};
use super::mounts::{self, Mount, readable};

/// The file by which somebody says that everything in a folder may be deleted. It stays.
pub const MARKER: &str = ".plue-workspace";

/// How often a folder is gone through while somebody still writes into it.
const ROUNDS: u32 = 50;
/// Rounds that removed nothing before it is given up.
const IDLE_ROUNDS: u32 = 2;
/// How long all rounds together may take. Millions of entries take a part of it, also in gVisor; somebody who writes as
/// fast as we remove must not hold us for ever.
const LIMIT: Duration = Duration::from_secs(300);
/// Between two rounds.
const PAUSE: Duration = Duration::from_millis(20);
/// How deep it is gone down where folders cannot be moved up: overlayfs moves none that came with the image.
const DEPTH: usize = 32;
/// How many names an error holds.
const NAMES: usize = 8;

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Emptied {
    /// Files, folders, links and all else.
    pub entries: u64,
}

/// What is left, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Relative to the workspace, with what cannot be seen escaped, and the reason.
    pub names: Vec<(String, String)>,
    /// How many more there are.
    pub more: u64,
}

impl Left {
    fn add(&mut self, path: &Path, why: impl fmt::Display) {
        let name = readable(path);
        if self.names.iter().any(|(known, _)| *known == name) {
            return;
        }
        if self.names.len() < NAMES {
            self.names.push((name, why.to_string()));
        } else {
            self.more += 1;
        }
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, why)) in self.names.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{name} ({why})")?;
        }
        match self.more {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// Why the workspace is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum EmptyError {
    #[error("the workspace {} could not be emptied: {left}", path.display())]
    Left { path: PathBuf, left: Left },
    #[error("the workspace {} is empty, but could not be brought back into its first condition: \
        {error}", path.display())]
    Attributes { path: PathBuf, error: io::Error },
}

/// See [`Workspace::empty`](super::Workspace::empty).
pub(super) fn empty(
    top: BorrowedFd<'_>,
    path: &Path,
    condition: &Attributes,
    marked: bool,
) -> Result<Emptied, EmptyError> {
    let path = current_path(top).unwrap_or_else(|| path.to_owned());
    unlock(top);
    let mut entries = 0;
    let mut idle = 0;
    let deadline = Instant::now() + LIMIT;
    let mut left = Left::default();
    for round in 0..ROUNDS {
        let mut pass = Pass::new(top, mounts::points_below(&path), marked, deadline);
        pass.run();
        entries += pass.removed;
        left = pass.left;
        if pass.removed == 0 {
            idle += 1;
            if left.names.is_empty() || idle == IDLE_ROUNDS {
                break;
            }
        } else if round == ROUNDS - 1 || Instant::now() > deadline {
            left = still_there(top, left, marked);
            break;
        }
        if round > 0 {
            std::thread::sleep(PAUSE);
        }
    }
    let restored = restore(top, condition, marked);
    if !left.names.is_empty() {
        return Err(EmptyError::Left { path, left });
    }
    match restored {
        Ok(()) => Ok(Emptied { entries }),
        Err(error) => Err(EmptyError::Attributes { path, error }),
    }
}

/// Where the folder is now.
fn current_path(folder: BorrowedFd<'_>) -> Option<PathBuf> {
    fs::read_link(format!("/proc/self/fd/{}", folder.as_raw_fd())).ok()
}

/// Names what has come back until the end.
fn still_there(top: BorrowedFd<'_>, mut left: Left, marked: bool) -> Left {
    for entry in Dir::read_from(top).into_iter().flatten().flatten() {
        let name = entry.file_name().to_bytes();
        let is_marker = marked && name == MARKER.as_bytes();
        if !is_marker && !matches!(name, b"." | b"..") {
            left.add(
                Path::new(OsStr::from_bytes(name)),
                "was there again each time: something still writes here",
            );
        }
    }
    left
}

/// The marker is made anew, since a task may have written into it, and takes the place of the old one at once, so that
/// the folder is never without it.
fn restore(top: BorrowedFd<'_>, condition: &Attributes, marked: bool) -> io::Result<()> {
    if marked {
        let fresh = format!("{MARKER}.{:016x}", getrandom::u64().map_err(io::Error::other)?);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        drop(openat(top, &fresh, flags, Mode::from_raw_mode(0o644))?);
        let mut moved = renameat(top, &fresh, top, MARKER);
        if moved == Err(Errno::PERM) {
            if let Some(old) = open_file(top, &CString::new(MARKER)?) {
                unlock(old);
            }
            moved = renameat(top, &fresh, top, MARKER);
        }
        if let Err(error) = moved {
            let _ = unlinkat(top, &fresh, AtFlags::empty());
            return Err(error.into());
        }
    }
    Ok(condition.restore(top)?)
}

/// One time through all of the workspace.
struct Pass<'a> {
    top: BorrowedFd<'a>,
    mount: Option<Mount>,
    /// Mount points inside, relative to the top.
    points: Vec<PathBuf>,
    marked: bool,
    deadline: Instant,
    /// The names of the folders that this pass has moved up are this and a number.
    prefix: String,
    moved: u64,
    removed: u64,
    left: Left,
}

impl<'a> Pass<'a> {
    fn new(top: BorrowedFd<'a>, points: Vec<PathBuf>, marked: bool, deadline: Instant) -> Self {
        Self {
            top,
            mount: Mount::of(top).ok(),
            points,
            marked,
            deadline,
            // Any name would do: one that is taken by an empty folder is replaced, and one by anything else an error.
            prefix: format!(".plue-moved-{:016x}-", getrandom::u64().unwrap_or_default()),
            moved: 0,
            removed: 0,
            left: Left::default(),
        }
    }

    fn run(&mut self) {
        self.clear(self.top, &mut PathBuf::new(), 0);
        self.clear_above_mounts();
        let mut next = 0;
        // More are moved up while these are emptied.
        while next < self.moved && Instant::now() < self.deadline {
            let name = format!("{}{next}", self.prefix);
            next += 1;
            if let Ok(name) = CString::new(name) {
                self.remove_folder(self.top, &name, &mut PathBuf::new(), 0);
            }
        }
        for point in std::mem::take(&mut self.points) {
            self.left.add(&point, "is a mount point");
        }
    }

    /// Empties, but for what leads to them, the folders that mount points are in. They stay where they are.
    fn clear_above_mounts(&mut self) {
        let mut above: Vec<PathBuf> = self
            .points
            .iter()
            .flat_map(|point| point.ancestors().skip(1))
            .filter(|folder| !folder.as_os_str().is_empty())
            .map(Path::to_owned)
            .collect();
        above.sort();
        above.dedup();
        for mut path in above {
            let mut folder: Option<OwnedFd> = None;
            for name in &path {
                let parent = folder.as_ref().map_or(self.top, AsFd::as_fd);
                let name = CString::new(name.as_bytes()).ok();
                let Some(opened) = name.and_then(|name| self.open_folder(parent, &name).ok()) else {
                    folder = None;
                    break;
                };
                folder = Some(opened);
            }
            if let Some(folder) = folder {
                self.clear(folder.as_fd(), &mut path, 1);
            }
        }
    }

    fn unlock_file(&self, parent: BorrowedFd<'_>, name: &CStr) {
        if let Some(file) = open_file(parent, name).filter(|file| !self.is_foreign(file)) {
            unlock(file);
        }
    }

    /// Whether a file is on another mount. What is there is not the workspace's.
    fn is_foreign(&self, file: impl AsFd) -> bool {
        self.mount.is_some() && Mount::of(file).ok() != self.mount
    }

    /// Opens a folder, and no link, so that it can be read and written to. What forbids that is taken away where we
    /// may; [`Errno::XDEV`] when it is a mount, of which nothing is changed.
    fn open_folder(&self, parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
        let open = |flags| {
            let common = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let folder = openat(parent, name, common | flags, Mode::empty())?;
            if self.is_foreign(&folder) {
                return Err(Errno::XDEV);
            }
            Ok(folder)
        };
        let opened = match open(OFlags::RDONLY) {
            Err(Errno::ACCESS) => {
                // A descriptor that may not be read names the folder itself all the same: no link can come between.
                let named = open(OFlags::PATH)?;
                let path = format!("/proc/self/fd/{}", named.as_raw_fd());
                chmodat(rustix::fs::CWD, path, Mode::RWXU, AtFlags::empty())?;
                open(OFlags::RDONLY)?
            }
            result => result?,
        };
        unlock(&opened);
        Ok(opened)
    }

    /// Removes what is in a folder, whose path is said only in errors. `depth` is 0 for the top.
    fn clear(&mut self, folder: BorrowedFd<'_>, path: &mut PathBuf, depth: usize) {
        let mut entries = match Dir::read_from(folder) {
            Ok(entries) => entries,
            Err(error) => return self.left.add(path, error),
        };
        while let Some(entry) = entries.read() {
            if Instant::now() > self.deadline {
                return;
            }
            let entry = match entry {
                Ok(entry) => entry,
                Err(Errno::NOENT) => return,
                Err(error) => return self.left.add(path, error),
            };
            let name = entry.file_name();
            let bytes = name.to_bytes();
            if matches!(bytes, b"." | b"..") || depth == 0 && self.is_ours(bytes, entry.file_type()) {
                continue;
            }
            path.push(OsStr::from_bytes(bytes));
            if !self.points.iter().any(|point| point.starts_with(&path)) {
                self.remove(folder, name, entry.file_type(), path, depth);
            }
            path.pop();
        }
    }

    /// Whether an entry of the top is dealt with later: the marker, and what this pass has moved there.
    fn is_ours(&self, name: &[u8], kind: FileType) -> bool {
        let is_marker = self.marked && name == MARKER.as_bytes() && matches!(kind, FileType::RegularFile);
        is_marker || name.starts_with(self.prefix.as_bytes())
    }

    /// Removes one entry. `path` is its own.
    fn remove(&mut self, folder: BorrowedFd<'_>, name: &CStr, kind: FileType, path: &mut PathBuf, depth: usize) {
        // Some file systems do not say what it is; somebody may just be exchanging it.
        let mut is_folder = kind == FileType::Directory;
        let mut unlocked = false;
        for _ in 0..4 {
            let flags = if is_folder {
                AtFlags::REMOVEDIR
            } else {
                AtFlags::empty()
            };
            match unlinkat(folder, name, flags) {
                Ok(()) => {
                    self.removed += 1;
                    return;
                }
                Err(Errno::NOENT) => return,
                Err(Errno::ISDIR) => is_folder = true,
                Err(Errno::NOTDIR) => is_folder = false,
                Err(Errno::NOTEMPTY | Errno::EXIST) => return self.take_apart(folder, name, path, depth),
                Err(Errno::PERM | Errno::ACCESS) if !unlocked => {
                    unlocked = true;
                    unlock(folder);
                    let stat = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW);
                    let kind = stat.map_or(kind, |stat| FileType::from_raw_mode(stat.st_mode));
                    is_folder = kind == FileType::Directory;
                    match kind {
                        // Opening it unlocks it.
                        FileType::Directory => drop(self.open_folder(folder, name)),
                        FileType::RegularFile => self.unlock_file(folder, name),
                        _ => {}
                    }
                }
                Err(Errno::BUSY) => return self.left.add(path, "is a mount point, or in use"),
                Err(error) => return self.left.add(path, error),
            }
        }
        self.left.add(path, "changes all the time: something still writes here");
    }

    /// Deals with a folder that is not empty.
    fn take_apart(&mut self, folder: BorrowedFd<'_>, name: &CStr, path: &mut PathBuf, depth: usize) {
        if depth == 0 {
            return self.remove_folder(folder, name, path, depth);
        }
        let up = format!("{}{}", self.prefix, self.moved);
        let mut moved = renameat(folder, name, self.top, &up);
        if matches!(moved, Err(Errno::PERM | Errno::ACCESS)) {
            // To be moved a folder has to be writable itself, for its `..` changes.
            unlock(folder);
            drop(self.open_folder(folder, name));
            moved = renameat(folder, name, self.top, &up);
        }
        match moved {
            Ok(()) => self.moved += 1,
            Err(Errno::NOENT) => {}
            Err(Errno::BUSY) => self.left.add(path, "is a mount point, or in use"),
            Err(_) if depth < DEPTH => self.remove_folder(folder, name, path, depth),
            Err(error) => self.left.add(path, format_args!("cannot be moved: {error}")),
        }
    }

    /// Empties a folder where it is, and removes it.
    fn remove_folder(&mut self, parent: BorrowedFd<'_>, name: &CStr, path: &mut PathBuf, depth: usize) {
        let named = !path.as_os_str().is_empty();
        if !named {
            path.push(OsStr::from_bytes(name.to_bytes()));
        }
        match self.open_folder(parent, name) {
            Err(Errno::XDEV) => self.left.add(path, "is a mount point"),
            Ok(inner) => {
                self.clear(inner.as_fd(), path, depth + 1);
                match unlinkat(parent, name, AtFlags::REMOVEDIR) {
                    Ok(()) => self.removed += 1,
                    Err(Errno::NOENT) => {}
                    Err(Errno::PERM | Errno::ACCESS) => {
                        unlock(parent);
                        unlock(inner);
                        match unlinkat(parent, name, AtFlags::REMOVEDIR) {
                            Ok(()) => self.removed += 1,
                            Err(error) => self.left.add(path, error),
                        }
                    }
                    Err(error) => self.left.add(path, error),
                }
            }
            // Gone, or exchanged: the next round sees what it is.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(error) => self.left.add(path, error),
        }
        if !named {
            path.pop();
        }
    }
}

/// Opens a file of which it is known that it is a regular one, to change its flags.
fn open_file(parent: BorrowedFd<'_>, name: &CStr) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty()).ok()
}

#[cfg(test)]
#[path = "clear_tests.rs"]
mod tests;
