//! What a folder itself carries, apart from what is in it: a task must not leave a word for the next one there.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::os::fd::AsFd;

use rustix::buffer::spare_capacity;
use rustix::fs::{
    FileType, IFlags, Mode, Stat, Timespec, Timestamps, UTIME_NOW, XattrFlags, fchmod, fgetxattr, fgetxattr_query,
    flistxattr, flistxattr_query, fremovexattr, fsetxattr, fstat, futimens, ioctl_getflags, ioctl_setflags,
};
use rustix::io::{self, Errno};

/// The flags that keep a file from being changed.
const LOCKS: IFlags = IFlags::IMMUTABLE.union(IFlags::APPEND);
/// The flags that whoever owns a file may set (`FS_FL_USER_MODIFIABLE`): some of them pass on to what is made in a
/// folder, and would slow every later task.
const OWNERS: IFlags = IFlags::from_bits_retain(0x0003_80ff);
/// What anybody who may write to a folder may attach to it, and what decides who may read what is made in it.
const ATTACHED: [&[u8]; 2] = [b"user.", b"system.posix_acl_"];

/// The condition of a folder: its mode, its flags and what is attached to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attributes {
    mode: Mode,
    /// Where the file system has them.
    flags: Option<IFlags>,
    attached: BTreeMap<CString, Vec<u8>>,
    /// When it was read and changed.
    times: Times,
}

/// The times of a file that can be set, in nanoseconds: 64 bits each, for whoever may set them.
#[derive(Clone, Copy, Debug)]
struct Times {
    read: Timespec,
    changed: Timespec,
}

/// They are put back, but are no part of the condition that counts: looking at a folder changes one of them.
impl PartialEq for Times {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Times {}

impl Times {
    fn of(found: &Stat) -> Self {
        let time = |seconds, nanoseconds: u64| Timespec {
            tv_sec: seconds,
            tv_nsec: nanoseconds as _,
        };
        Self {
            read: time(found.st_atime, found.st_atime_nsec),
            changed: time(found.st_mtime, found.st_mtime_nsec),
        }
    }

    /// Who does not own the folder can set them to now and to nothing else: what a task has set is gone then, too.
    fn restore(self, folder: impl AsFd) {
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        };
        let set = |last_access, last_modification| {
            let times = Timestamps {
                last_access,
                last_modification,
            };
            futimens(&folder, &times)
        };
        if set(self.read, self.changed).is_err() {
            let _ = set(now, now);
        }
    }
}

impl Attributes {
    pub(super) fn of(folder: impl AsFd) -> io::Result<Self> {
        Ok(Self {
            mode: Mode::from_raw_mode(fstat(&folder)?.st_mode),
            flags: ioctl_getflags(&folder).ok(),
            attached: attached(&folder)?,
            times: Times::of(&fstat(&folder)?),
        })
    }

    /// Brings the folder back into this condition.
    pub(super) fn restore(&self, folder: impl AsFd) -> io::Result<()> {
        let now = attached(&folder)?;
        for name in now.keys().filter(|name| !self.attached.contains_key(*name)) {
            fremovexattr(&folder, name)?;
        }
        for (name, value) in &self.attached {
            if now.get(name) != Some(value) {
                fsetxattr(&folder, name, value, XattrFlags::empty())?;
            }
        }
        // An access list and the mode are two views of one thing, so the mode comes after it.
        if Mode::from_raw_mode(fstat(&folder)?.st_mode) != self.mode {
            fchmod(&folder, self.mode)?;
        }
        if let (Some(flags), Ok(now)) = (self.flags, ioctl_getflags(&folder))
            && now & OWNERS != flags & OWNERS
        {
            ioctl_setflags(&folder, (now - OWNERS) | (flags & OWNERS))?;
        }
        self.times.restore(&folder);
        Ok(())
    }
}

/// Does what can be done so that a folder can be emptied, or a file removed; what then still fails says why. The mode
/// of a file is left: it keeps nobody from removing it, and may be that of another name's.
pub(super) fn unlock(file: impl AsFd) {
    if let Ok(flags) = ioctl_getflags(&file)
        && flags.intersects(LOCKS)
    {
        let _ = ioctl_setflags(&file, flags - LOCKS);
    }
    if let Ok(stat) = fstat(&file)
        && FileType::from_raw_mode(stat.st_mode) == FileType::Directory
        && stat.st_mode & 0o700 != 0o700
    {
        let _ = fchmod(&file, Mode::from_raw_mode(stat.st_mode) | Mode::RWXU);
    }
}

fn attached(folder: impl AsFd) -> io::Result<BTreeMap<CString, Vec<u8>>> {
    let none = |error| matches!(error, Errno::NOTSUP | Errno::NOSYS);
    let mut names = Vec::with_capacity(match flistxattr_query(&folder) {
        Ok(size) => size,
        Err(error) if none(error) => 0,
        Err(error) => return Err(error),
    });
    if names.capacity() > 0 {
        flistxattr(&folder, spare_capacity(&mut names))?;
    }
    let mut attached = BTreeMap::new();
    for name in names.split_inclusive(|&byte| byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else {
            continue;
        };
        if ATTACHED.iter().any(|prefix| name.to_bytes().starts_with(prefix)) {
            let mut value = Vec::with_capacity(fgetxattr_query(&folder, name)?);
            if value.capacity() > 0 {
                fgetxattr(&folder, name, spare_capacity(&mut value))?;
            }
            attached.insert(name.to_owned(), value);
        }
    }
    Ok(attached)
}
