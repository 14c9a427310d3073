//! Who commands are: the runner's own user or, when that is root, an ordinary one that can write the workspace and
//! nothing else of root's.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{MountPropagationFlags, MoveMountFlags, mount_change, move_mount};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{DumpableBehavior, Gid, Uid, set_dumpable_behavior};
use rustix::thread::{UnshareFlags, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::children;
use super::layer::{InLayer, Layer, MissingLayer};
use super::plan::Plan;
use super::sys::{self, Fork};
use crate::mutation::Protection;

/// The user and group of the commands of a runner that is root. Nobody else's: images give out numbers from 0, 1000 and
/// 65534 on, and systemd none of these.
const COMMAND_USER: u32 = 60_999;
/// So many runners that are root have a user of their own for their commands: what the kernel counts for a user, and
/// signals, then stay within one of them.
const USERS: u32 = 64;

/// The user of the commands of one runner.
pub(super) struct CommandUser {
    /// The number of the user and of its group.
    pub(super) number: u32,
    /// By which other runners of this machine know that the number is taken. It goes with us, however we end.
    _taken: Option<UnixListener>,
}

impl CommandUser {
    /// Takes a number that no other runner has. When there is none any more, or no way to know, two have the same. An
    /// operator who has given the workspace to one of these users means that one.
    pub(super) fn take(workspace: &Path) -> Self {
        let numbers = COMMAND_USER + 1 - USERS..=COMMAND_USER;
        let meant = fs::metadata(workspace).ok().map(|found| found.uid());
        if let Some(number) = meant.filter(|uid| numbers.contains(uid)) {
            return Self { number, _taken: None };
        }
        for number in numbers.rev() {
            let name = format!("plue-runner/commands/{number}");
            let listening = SocketAddr::from_abstract_name(name).and_then(|name| UnixListener::bind_addr(&name));
            match listening {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                result => {
                    let _taken = result.ok();
                    return Self { number, _taken };
                }
            }
        }
        Self {
            number: COMMAND_USER,
            _taken: None,
        }
    }
}

/// Lets commands open a pipe by its name, `/dev/stdout`: one that root has made is root's.
pub(super) fn hand_pipe_over(pipe: BorrowedFd<'_>, user: u32) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() || Protection::Privileges.is_off() {
        return Ok(());
    }
    let (user, group) = (Uid::from_raw(user), Gid::from_raw(user));
    Ok(rustix::fs::fchown(pipe, Some(user), Some(group))?)
}

/// Stops being root, when that is what we are.
pub(super) fn leave_root(plan: &Plan) -> Result<(), MissingLayer> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    // Where this cannot be had (gVisor, old kernels), the workspace may still be writable by the user, which is looked
    // at when the workspace is mounted.
    let mapping = fs::metadata(&plan.workspace)
        .in_layer(Layer::Workspace, format!("looking at {}", plan.workspace.display()))
        .and_then(|owner| {
            let made = Mapping::start(owner.uid(), owner.gid(), plan.user);
            made.in_layer(
                Layer::UserNamespace,
                "unshare(CLONE_NEWUSER), for the owner of the workspace",
            )
        })?;
    if let Err(error) = hand_over(&plan.workspace, &mapping)
        && !writable_by_user(&plan.workspace, plan.user)
    {
        let doing = format!(
            "giving {} to uid {} by an id-mapped mount",
            plan.workspace.display(),
            plan.user
        );
        return Err(MissingLayer::new(Layer::OrdinaryUser, doing, error));
    }
    become_user(plan.user, plan.user).in_layer(Layer::OrdinaryUser, "becoming an ordinary user")?;
    // The change of user has made /proc/self root's, where the user namespace is set up.
    set_dumpable_behavior(DumpableBehavior::Dumpable).in_layer(Layer::OrdinaryUser, "taking /proc/self back")?;
    Ok(())
}

/// In a mount namespace of our own, lets what belongs to the workspace's owner belong to the commands' user, and the
/// other way round: what commands make belongs to the owner.
fn hand_over(workspace: &Path, mapping: &Mapping) -> io::Result<()> {
    let tree = sys::id_mapped_copy(workspace, mapping.namespace.as_fd())?;
    sys::unshare(UnshareFlags::NEWNS)?;
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
    Ok(move_mount(
        &tree,
        "",
        CWD,
        workspace,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )?)
}

/// The supplementary groups that commands keep, since only root can give some up.
pub(super) fn kept_groups() -> Vec<u32> {
    if rustix::process::geteuid().is_root() {
        return Vec::new();
    }
    let own = rustix::process::getegid().as_raw();
    let groups = rustix::process::getgroups().unwrap_or_default();
    groups
        .iter()
        .map(|group| group.as_raw())
        .filter(|group| *group != own)
        .collect()
}

/// Becomes this user and group for good, without any other group.
fn become_user(uid: u32, gid: u32) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)
}

/// Whether the commands' user may write here, by the mode alone.
fn writable_by_user(workspace: &Path, user: u32) -> bool {
    fs::metadata(workspace).is_ok_and(|found| {
        let wanted = 0o3;
        match () {
            () if found.uid() == user => (found.mode() >> 6) & wanted == wanted,
            () if found.gid() == user => (found.mode() >> 3) & wanted == wanted,
            () => found.mode() & wanted == wanted,
        }
    })
}

/// A user namespace that no process stays in: an id-mapped mount takes its maps, which say which uid stands for which.
struct Mapping {
    namespace: File,
}

impl Mapping {
    fn start(uid: u32, gid: u32, user: u32) -> io::Result<Self> {
        let (parent, child) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        match sys::fork()? {
            Fork::Child => {
                drop(parent);
                let made = sys::unshare(UnshareFlags::NEWUSER);
                let code = made.map_or_else(|error| error.raw_os_error().unwrap_or(libc::EPERM), |()| 0);
                let _ = rustix::io::write(&child, &code.to_ne_bytes());
                // Lives until the parent has let go of its end.
                let _ = sys::wait_for_input(child.as_fd(), None);
                sys::exit(0)
            }
            Fork::Parent(pid) => {
                drop(child);
                let mut made = [0_u8; 4];
                let namespace = rustix::io::read(&parent, &mut made)
                    .map_err(io::Error::from)
                    .and_then(|_| {
                        match i32::from_ne_bytes(made) {
                            0 => {}
                            code => return Err(io::Error::from_raw_os_error(code)),
                        }
                        fs::write(format!("/proc/{pid}/uid_map"), exchange(uid, user))?;
                        fs::write(format!("/proc/{pid}/gid_map"), exchange(gid, user))?;
                        File::open(format!("/proc/{pid}/ns/user"))
                    });
                drop(parent);
                children::wait(pid);
                Ok(Self { namespace: namespace? })
            }
        }
    }
}

/// The map in which these two numbers stand for each other and every other one for itself.
fn exchange(one: u32, other: u32) -> String {
    let (low, high) = (one.min(other), one.max(other));
    if low == high {
        return format!("0 0 {}\n", u32::MAX);
    }
    let extents = [
        (0, 0, low),
        (low, high, 1),
        (low + 1, low + 1, high - low - 1),
        (high, low, 1),
        (high + 1, high + 1, u32::MAX - high - 1),
    ];
    let lines = extents.iter().filter(|(_, _, count)| *count > 0);
    lines
        .map(|(inside, outside, count)| format!("{inside} {outside} {count}\n"))
        .collect()
}

/// Makes this process the only user of a namespace of its own, in which it may make the other namespaces.
pub(super) fn enter_namespace() -> Result<(), MissingLayer> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    sys::unshare(UnshareFlags::NEWUSER).in_layer(Layer::UserNamespace, "unshare(CLONE_NEWUSER)")?;
    // Without this Linux refuses the group map. gVisor has no such file to write, and needs none.
    let _ = fs::write("/proc/self/setgroups", "deny");
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1\n"))
        .in_layer(Layer::UserNamespace, "writing /proc/self/uid_map")?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1\n"))
        .in_layer(Layer::UserNamespace, "writing /proc/self/gid_map")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_numbers_are_exchanged_and_every_other_one_stays() {
        assert_eq!(exchange(0, 5), "0 5 1\n1 1 4\n5 0 1\n6 6 4294967289\n");
        assert_eq!(exchange(5, 0), exchange(0, 5));
        assert_eq!(exchange(3, 4), "0 0 3\n3 4 1\n4 3 1\n5 5 4294967290\n");
        assert_eq!(exchange(7, 7), "0 0 4294967295\n");
    }
}
