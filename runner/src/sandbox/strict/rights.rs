//! What a mount may be used for, and the table of mounts that there are.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::{MountAttrFlags, MountFlags, mount_remount};

use super::sys;

/// What a mount may be used for. No mount of commands has set-user-ID programs or devices.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    Read,
    Write,
}

/// Takes from a mount what is not its right; with `recursive`, from all below it too.
pub(super) fn restrict(target: &Path, right: Right, recursive: bool) -> io::Result<()> {
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    attributes.set(MountAttrFlags::MOUNT_ATTR_RDONLY, right == Right::Read);
    match sys::set_attributes(target, attributes, recursive) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => remount(target, right, recursive),
        result => result,
    }
}

/// As [`restrict`], on kernels before 5.12 and in gVisor: one mount after the other.
fn remount(target: &Path, right: Right, recursive: bool) -> io::Result<()> {
    let mounts = mounts()?;
    // Of several mounts at one place the last is seen.
    let top = mounts.iter().rfind(|mount| mount.place == target);
    let mut wanted: Vec<&Mount> = top.into_iter().collect();
    let mut next = 0;
    while recursive && next < wanted.len() {
        let parent = wanted[next].id;
        wanted.extend(
            mounts
                .iter()
                .filter(|mount| mount.parent == parent && mount.id != parent),
        );
        next += 1;
    }
    if wanted.is_empty() {
        return Err(io::Error::other(
            "a mount that was just made is not in /proc/self/mountinfo",
        ));
    }
    for mount in wanted {
        let mut flags = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV | mount.kept;
        flags |= if right == Right::Read {
            MountFlags::RDONLY
        } else {
            MountFlags::empty()
        };
        mount_remount(&mount.place, flags, c"")
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", mount.place.display())))?;
    }
    Ok(())
}

pub(super) fn mounts() -> io::Result<Vec<Mount>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(table.lines().filter_map(Mount::parse).collect())
}

/// One line of /proc/self/mountinfo.
pub(super) struct Mount {
    id: u64,
    parent: u64,
    pub(super) place: PathBuf,
    /// Flags that must be repeated: without them the kernel refuses the remount.
    kept: MountFlags,
}

impl Mount {
    pub(super) fn is_read_only(&self) -> bool {
        self.kept.contains(MountFlags::RDONLY)
    }

    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split(' ');
        let id = fields.next()?.parse().ok()?;
        let parent = fields.next()?.parse().ok()?;
        let place = unescape(fields.nth(2)?);
        let kept = fields.next()?.split(',').map(|option| match option {
            "ro" => MountFlags::RDONLY,
            "noexec" => MountFlags::NOEXEC,
            "noatime" => MountFlags::NOATIME,
            "nodiratime" => MountFlags::NODIRATIME,
            "relatime" => MountFlags::RELATIME,
            _ => MountFlags::empty(),
        });
        Some(Self {
            id,
            parent,
            place,
            kept: kept.collect(),
        })
    }
}

/// Space, tab, newline and backslash stand there as a backslash and three octal digits.
fn unescape(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = code.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(byte) if first == b'\\' => {
                bytes.push(byte);
                rest = &after[3..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_line_of_the_mount_table_is_read_with_its_escapes_and_the_flags_to_keep() {
        let line = r"36 35 98:0 /mnt1 /mnt\0402 rw,noexec,relatime master:1 - ext3 /dev/root rw,errors=continue";
        let mount = Mount::parse(line).unwrap();
        assert_eq!((mount.id, mount.parent), (36, 35));
        assert_eq!(mount.place, Path::new("/mnt 2"));
        assert_eq!(mount.kept, MountFlags::NOEXEC | MountFlags::RELATIME);
        assert!(Mount::parse("no mount").is_none());
    }
}
