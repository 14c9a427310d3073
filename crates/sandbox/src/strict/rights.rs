//! The attributes of a mount: whether it can be written, and that it gives no privileges.

use std::io;
use std::path::Path;

use rustix::mount::{MountAttrFlags, MountFlags, mount_remount};

use super::sys;
use crate::proc::{self, Mount};

/// What a mount may be used for. No mount of commands has set-user-ID programs or devices.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    /// Read-only.
    Read,
    /// Read and written.
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

/// Leaves of a mounted device the device: neither its times nor its mode can be changed through the mount. Where the
/// kernel cannot (gVisor, whose devices are the pod's own), nothing is lost.
pub(super) fn close_device(target: &Path) -> io::Result<()> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_RDONLY;
    match sys::set_attributes(target, attributes, false) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        result => result,
    }
}

/// As [`restrict`], on kernels before 5.12 and in gVisor: one mount after the other.
fn remount(target: &Path, right: Right, recursive: bool) -> io::Result<()> {
    let mounts = proc::mounts()?;
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
        let mut flags = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV | kept(mount);
        if right == Right::Read {
            flags |= MountFlags::RDONLY;
        }
        mount_remount(&mount.place, flags, c"")
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", mount.place.display())))?;
    }
    Ok(())
}

/// The flags that a remount has to repeat: the kernel refuses one that takes them away.
fn kept(mount: &Mount) -> MountFlags {
    let flags = mount.options.split(',').map(|option| match option {
        "ro" => MountFlags::RDONLY,
        "noexec" => MountFlags::NOEXEC,
        "noatime" => MountFlags::NOATIME,
        "nodiratime" => MountFlags::NODIRATIME,
        "relatime" => MountFlags::RELATIME,
        _ => MountFlags::empty(),
    });
    flags.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remount_keeps_what_a_mount_may_not_be_used_for() {
        let mount = Mount {
            id: 36,
            parent: 35,
            place: "/mnt".into(),
            options: "rw,noexec,relatime".into(),
            kind: "ext4".into(),
        };
        assert_eq!(kept(&mount), MountFlags::NOEXEC | MountFlags::RELATIME);
    }
}
