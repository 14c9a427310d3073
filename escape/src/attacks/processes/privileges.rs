//! What a command could do if it had privileges: namespaces, mounts, devices, the kernel's settings.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};

use anyhow::{Context, Result};
use plue_sandbox::mutation::Protection;

use super::{CONFINED, program};
use crate::attack::{Attack, Baseline};
use crate::scene::Scene;
use crate::sys;
use crate::target::{Outcome, Target};

const SECCOMP: &[Protection] = &[Protection::Seccomp];
const PRIVILEGES: &[Protection] = &[Protection::Privileges];
const NOT_IN_THIS_KERNEL: Baseline = Baseline::Unless(
    &[libc::ENOSYS, libc::EPERM, libc::ENOSPC],
    "this kernel has it not, or not for this user",
);
const NOT_EVEN_FOR_ROOT: Baseline = Baseline::InNamespacesUnless(
    &[libc::ENOSYS, libc::EPERM, libc::EINVAL, libc::ENODEV],
    "this kernel has it not, or not in namespaces",
);

/// A call that fails for another reason than a missing right was allowed.
fn permitted(what: &str, result: io::Result<impl Sized>) -> Outcome {
    match result {
        Ok(_) => Outcome::GotThrough(format!("{what} succeeded")),
        Err(error) => match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES | libc::ENOSYS | libc::EROFS) => Outcome::refused(what, &error),
            _ => Outcome::GotThrough(format!(
                "{what} was permitted, and failed because of its arguments: {error}"
            )),
        },
    }
}

/// A folder that a mount may cover.
fn folder(target: &Target) -> std::path::PathBuf {
    let folder = target.workspace.join("covered");
    let _ = fs::create_dir(&folder);
    folder
}

fn opens_for_writing(paths: &[&str]) -> Outcome {
    Outcome::any(
        paths
            .iter()
            .map(|path| Outcome::of(path, fs::File::options().write(true).open(path))),
    )
}

/// A copy of `id` in the workspace.
const ID: &str = "id-of-another-user";
/// Its owner: daemon, and nobody whose rights would tempt.
const OWNER: u32 = 1;

fn another_users_program(scene: &Scene) -> Result<()> {
    let path = scene.workspace.join(ID);
    fs::copy("/usr/bin/id", &path).context("copy id into the workspace")?;
    match std::os::unix::fs::chown(&path, Some(OWNER), Some(OWNER)) {
        Ok(()) => fs::set_permissions(&path, fs::Permissions::from_mode(0o6755)).context("set its mode"),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => fs::remove_file(&path).context("remove it again"),
        Err(error) => Err(error).context("give id to another user"),
    }
}

fn run_as_its_owner(target: &Target) -> Outcome {
    let path = target.workspace.join(ID);
    match fs::metadata(&path).map(|meta| meta.mode() & 0o6000) {
        Ok(0o6000) => {}
        Ok(_) => return Outcome::Broken("its set-user-id bit was lost".to_owned()),
        Err(_) => return Outcome::refused("find it", &io::Error::from_raw_os_error(libc::ENODATA)),
    }
    let ran = std::process::Command::new(&path).arg("-u").output();
    let own = rustix::process::geteuid().as_raw();
    match ran {
        Err(error) => Outcome::refused("run it", &error),
        Ok(output) => match String::from_utf8_lossy(&output.stdout).trim().parse::<u32>() {
            Ok(user) if user == own => Outcome::refused(
                &format!("it runs as {user}, who started it"),
                &io::Error::from_raw_os_error(libc::EPERM),
            ),
            Ok(user) => Outcome::GotThrough(format!("it runs as {user}, and who started it is {own}")),
            Err(_) => Outcome::Broken(format!("id says nothing: {output:?}")),
        },
    }
}

pub const ATTACKS: &[Attack] = &[
    program(
        "processes/unshare-user",
        "makes a user namespace, in which it would be root",
        |_| Outcome::of("unshare", sys::unshare(libc::CLONE_NEWUSER)),
    )
    .baseline(NOT_IN_THIS_KERNEL)
    .falls_without(SECCOMP),
    program("processes/unshare-mount", "makes a mount namespace", |_| {
        Outcome::of("unshare", sys::unshare(libc::CLONE_NEWNS))
    })
    .baseline(Baseline::InNamespaces)
    .falls_without(CONFINED),
    program("processes/unshare-network", "makes a network namespace", |_| {
        Outcome::of("unshare", sys::unshare(libc::CLONE_NEWNET))
    })
    .baseline(Baseline::InNamespaces)
    .falls_without(CONFINED),
    program("processes/clone-user", "makes a user namespace by clone", |_| {
        Outcome::of("clone", sys::clone_into(libc::CLONE_NEWUSER))
    })
    .baseline(NOT_IN_THIS_KERNEL)
    .falls_without(SECCOMP),
    program(
        "processes/clone3-user",
        "makes a user namespace by clone3, whose flags a filter cannot see",
        |_| Outcome::of("clone3", sys::clone3_into(libc::CLONE_NEWUSER as u64)),
    )
    .baseline(NOT_IN_THIS_KERNEL)
    .falls_without(SECCOMP),
    program("processes/setns", "enters a namespace by setns", |_| {
        permitted(
            "setns",
            fs::File::open("/proc/self/ns/net").and_then(|file| sys::setns(&file)),
        )
    })
    .baseline(Baseline::InNamespaces)
    .falls_without(CONFINED),
    program("processes/mount-tmpfs", "mounts a file system", |target| {
        let folder = folder(target);
        let result = sys::mount("tmpfs", &folder, "tmpfs", 0);
        let _ = sys::umount(&folder, libc::MNT_DETACH);
        permitted("mount", result)
    })
    .baseline(Baseline::InNamespaces)
    .falls_without(CONFINED),
    program(
        "processes/mount-bind-root",
        "mounts the root once more, without what lies over it",
        |target| {
            let folder = folder(target);
            let result = sys::mount("/", &folder, "", libc::MS_BIND);
            let _ = sys::umount(&folder, libc::MNT_DETACH);
            permitted("mount", result)
        },
    )
    // Without the filter the kernel still locks what lies over a mount of another user namespace.
    .baseline(Baseline::InNamespacesUnless(
        &[libc::EINVAL, libc::EPERM],
        "mounts are locked together here",
    )),
    program("processes/mount-proc", "mounts another /proc", |target| {
        let folder = folder(target);
        let result = sys::mount("proc", &folder, "proc", 0);
        let _ = sys::umount(&folder, libc::MNT_DETACH);
        permitted("mount", result)
    })
    .baseline(NOT_EVEN_FOR_ROOT),
    program(
        "processes/remount-writable",
        "makes a read-only mount writable again",
        |target| {
            // A remount that changes nothing shows that it may.
            permitted(
                "remount",
                sys::mount("", &target.workspace, "", libc::MS_REMOUNT | libc::MS_BIND),
            )
        },
    )
    .baseline(Baseline::InNamespaces)
    .falls_without(CONFINED),
    program(
        "processes/umount",
        "takes a mount away, and sees what lies under it",
        |target| {
            // Of a folder that is no mount: with the right to it, the answer is that the folder is no mount.
            permitted("umount", sys::umount(&folder(target), 0))
        },
    )
    .baseline(Baseline::InNamespaces)
    .falls_without(CONFINED),
    program("processes/pivot-root", "makes another folder the root", |target| {
        permitted("pivot_root", sys::pivot_root(&folder(target)))
    })
    .baseline(Baseline::InNamespaces)
    .falls_without(CONFINED),
    program("processes/chroot", "chroot, and from there up", |target| {
        permitted("chroot", sys::chroot(&folder(target)))
    })
    .baseline(Baseline::InNamespaces)
    .falls_without(CONFINED),
    program(
        "processes/open-tree",
        "opens a mount by the new calls (open_tree)",
        |_| Outcome::of("open_tree", sys::open_tree()),
    )
    .baseline(NOT_IN_THIS_KERNEL)
    .falls_without(SECCOMP),
    program(
        "processes/open-tree-clone",
        "copies a whole tree of mounts by open_tree",
        |_| permitted("open_tree", sys::open_tree_clone()),
    )
    .baseline(NOT_EVEN_FOR_ROOT),
    program(
        "processes/fsopen",
        "makes a file system by the new calls (fsopen)",
        |_| permitted("fsopen", sys::fsopen()),
    )
    .baseline(NOT_EVEN_FOR_ROOT)
    .falls_without(CONFINED),
    program(
        "processes/mount-setattr",
        "changes the attributes of a mount (mount_setattr)",
        |target| permitted("mount_setattr", sys::mount_setattr(&target.workspace)),
    )
    .baseline(NOT_EVEN_FOR_ROOT),
    program("processes/mknod", "makes a device file", |target| {
        Outcome::of("mknod", sys::mknod(&target.workspace.join("device")))
    })
    .baseline(Baseline::Unless(&[libc::EPERM], "this user may make no device files")),
    program("processes/devices", "opens a device of the machine", |_| {
        const ORDINARY: [&str; 14] = [
            "null", "zero", "full", "random", "urandom", "tty", "ptmx", "fd", "stdin", "stdout", "stderr", "shm",
            "pts", "console",
        ];
        for entry in fs::read_dir("/dev").into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let device = entry
                .file_type()
                .is_ok_and(|kind| kind.is_block_device() || kind.is_char_device());
            // Not what does something by being opened: watchdogs, tape drives, terminals.
            let harmless = [
                "mem", "kmsg", "port", "kvm", "fuse", "vd", "sd", "nvme", "loop", "dm-", "net",
            ];
            if device && !ORDINARY.contains(&&*name) && harmless.iter().any(|start| name.starts_with(start)) {
                let opened = fs::File::options()
                    .read(true)
                    .custom_flags(libc::O_NONBLOCK)
                    .open(entry.path());
                if opened.is_ok() {
                    return Outcome::GotThrough(format!("/dev/{name} was opened"));
                }
            }
        }
        Outcome::refused(
            "find a device of the machine",
            &io::Error::from_raw_os_error(libc::ENODEV),
        )
    })
    .baseline(Baseline::Unless(
        &[libc::ENODEV],
        "no device of the machine is to be seen here",
    )),
    program(
        "processes/no-new-privileges",
        "could get the user of a program that has the set-user-id bit",
        |_| match sys::no_new_privileges() {
            Ok(true) => Outcome::refused("no_new_privs is set", &io::Error::from_raw_os_error(libc::EPERM)),
            Ok(false) => Outcome::GotThrough("set-user-id programs get their user".to_owned()),
            Err(error) => Outcome::refused("prctl", &error),
        },
    )
    .baseline(Baseline::InNamespacesUnless(
        &[libc::EPERM],
        "no_new_privs is set for all that runs here",
    ))
    // A filter sets it too.
    .falls_without(CONFINED),
    program(
        "processes/program-of-another-user",
        "runs a program of another user's that has the set-user-id bit",
        run_as_its_owner,
    )
    .setup(another_users_program)
    // Without no_new_privs there is still no such user in the namespace.
    .baseline(Baseline::Unless(
        &[libc::ENODATA, libc::EPERM],
        "only root can make such a program, and nobody gets its user when no_new_privs is set already",
    )),
    program(
        "processes/capabilities",
        "holds a capability",
        |_| match sys::capabilities() {
            Ok([0, 0, 0]) => Outcome::held("no capability is effective, permitted or inheritable"),
            Ok(held) => Outcome::GotThrough(format!("effective, permitted, inheritable: {held:x?}")),
            Err(error) => Outcome::refused("capget", &error),
        },
    )
    .baseline(Baseline::InNamespaces)
    .falls_without(PRIVILEGES),
    program(
        "processes/bounding-set",
        "could get a capability by a program that has it",
        |_| match (0..41).find(|capability| sys::is_in_bounding_set(*capability)) {
            Some(capability) => Outcome::GotThrough(format!("capability {capability} is in the bounding set")),
            None => Outcome::held("the bounding set is empty"),
        },
    )
    .baseline(Baseline::InNamespaces)
    .falls_without(PRIVILEGES),
    program("processes/set-user-id", "becomes another user", |_| {
        Outcome::of("setresuid", sys::become_user(1))
    })
    .baseline(Baseline::Unless(
        &[libc::EPERM, libc::EINVAL],
        "this user may become no other",
    )),
    program("processes/supplementary-groups", "drops or takes groups", |_| {
        Outcome::of("setgroups", sys::set_groups())
    })
    .baseline(Baseline::Unless(&[libc::EPERM], "this user may not")),
    program("processes/hostname", "changes the machine's name", |_| {
        permitted("sethostname", sys::keep_hostname())
    })
    .baseline(Baseline::InNamespaces)
    .falls_without(CONFINED),
    program("processes/sysctl", "opens the kernel's settings for writing", |_| {
        opens_for_writing(&[
            "/proc/sys/kernel/core_pattern",
            "/proc/sys/vm/overcommit_memory",
            "/proc/sys/kernel/modprobe",
        ])
    })
    .baseline(Baseline::Unless(
        &[libc::EACCES, libc::EPERM, libc::EROFS, libc::ENOENT],
        "this user may not change settings",
    )),
    program("processes/sysrq", "opens the machine's emergency switch", |_| {
        opens_for_writing(&["/proc/sysrq-trigger"])
    })
    .baseline(Baseline::Unless(
        &[libc::EACCES, libc::EPERM, libc::EROFS, libc::ENOENT],
        "this user may not, or there is none",
    )),
    program("processes/sys", "opens settings under /sys for writing", |_| {
        opens_for_writing(&[
            "/sys/kernel/mm/transparent_hugepage/enabled",
            "/sys/kernel/mm/ksm/run",
            "/sys/power/state",
        ])
    })
    .baseline(Baseline::Unless(
        &[libc::EACCES, libc::EPERM, libc::EROFS, libc::ENOENT],
        "this user may not, or there is none",
    )),
    program("processes/cgroups", "moves itself to another control group", |_| {
        opens_for_writing(&[
            "/sys/fs/cgroup/cgroup.procs",
            "/sys/fs/cgroup/memory/cgroup.procs",
            "/sys/fs/cgroup/pids/cgroup.procs",
        ])
    })
    .baseline(Baseline::Unless(
        &[libc::EACCES, libc::EPERM, libc::EROFS, libc::ENOENT],
        "this user may not, or there are none",
    )),
];
