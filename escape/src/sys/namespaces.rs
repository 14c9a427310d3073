//! Namespaces, mounts and privileges.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use super::{HERE, call, checked, close, ended, path_of};

/// Runs a program as the first process of its own user, mount, PID, network, IPC and UTS namespaces, as their root,
/// with every capability in them and none outside. Gives its exit code.
pub fn in_namespaces(program: &str, arguments: &[String]) -> io::Result<i32> {
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    let (user, group) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let flags = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS;
    // SAFETY: unshare(2) takes flags only; this process has one thread.
    if unsafe { libc::unshare(flags) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // gVisor has no such file, and needs none.
    let _ = std::fs::write("/proc/self/setgroups", "deny");
    std::fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("0 {group} 1"))?;
    let mut command = std::process::Command::new(program);
    command.args(arguments);
    // SAFETY: between fork and exec there are three system calls, with constants and static strings.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            let none = std::ptr::null();
            libc::mount(none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE, none.cast());
            libc::mount(c"proc".as_ptr(), c"/proc".as_ptr(), c"proc".as_ptr(), 0, none.cast());
            Ok(())
        });
    }
    let status = command.status()?;
    Ok(status
        .code()
        .or(status.signal().map(|signal| 128 + signal))
        .unwrap_or(1))
}

pub fn unshare(flags: i32) -> io::Result<()> {
    call(libc::SYS_unshare, [flags as usize, 0, 0, 0, 0, 0]).map(drop)
}

pub fn setns(namespace: &File) -> io::Result<()> {
    call(libc::SYS_setns, [namespace.as_raw_fd() as usize, 0, 0, 0, 0, 0]).map(drop)
}

/// clone(2) with these flags; the child ends at once.
pub fn clone_into(flags: i32) -> io::Result<()> {
    let child = call(libc::SYS_clone, [(flags | libc::SIGCHLD) as usize, 0, 0, 0, 0, 0])?;
    of_clone(child)
}

/// clone3(2) with these flags; the child ends at once.
pub fn clone3_into(flags: u64) -> io::Result<()> {
    // struct clone_args: flags, four addresses, the signal at the end, and a stack that is ours.
    let mut arguments = [0_u64; 8];
    arguments[0] = flags;
    arguments[4] = libc::SIGCHLD as u64;
    let address = arguments.as_mut_ptr() as usize;
    let child = call(libc::SYS_clone3, [address, size_of_val(&arguments), 0, 0, 0, 0])?;
    of_clone(child)
}

fn of_clone(child: i64) -> io::Result<()> {
    if child == 0 {
        // SAFETY: this is the child, which has nothing to do.
        unsafe { libc::_exit(0) }
    }
    ended(i32::try_from(child).map_err(io::Error::other)?)
}

pub fn mount(source: &str, target: &Path, kind: &str, flags: libc::c_ulong) -> io::Result<()> {
    let (source, kind) = (CString::new(source)?, CString::new(kind)?);
    let target = path_of(target)?;
    let (source, target, kind) = (
        source.as_ptr() as usize,
        target.as_ptr() as usize,
        kind.as_ptr() as usize,
    );
    call(libc::SYS_mount, [source, target, kind, flags as usize, 0, 0]).map(drop)
}

pub fn umount(target: &Path, flags: i32) -> io::Result<()> {
    let target = path_of(target)?;
    call(
        libc::SYS_umount2,
        [target.as_ptr() as usize, flags as usize, 0, 0, 0, 0],
    )
    .map(drop)
}

pub fn pivot_root(root: &Path) -> io::Result<()> {
    let root = path_of(root)?;
    let root = root.as_ptr() as usize;
    call(libc::SYS_pivot_root, [root, root, 0, 0, 0, 0]).map(drop)
}

pub fn chroot(root: &Path) -> io::Result<()> {
    let root = path_of(root)?;
    call(libc::SYS_chroot, [root.as_ptr() as usize, 0, 0, 0, 0, 0]).map(drop)
}

pub fn open_tree() -> io::Result<()> {
    call(libc::SYS_open_tree, [HERE, c"/".as_ptr() as usize, 0, 0, 0, 0]).map(close)
}

pub fn open_tree_clone() -> io::Result<()> {
    // OPEN_TREE_CLONE.
    call(libc::SYS_open_tree, [HERE, c"/".as_ptr() as usize, 1, 0, 0, 0]).map(close)
}

pub fn fsopen() -> io::Result<()> {
    call(libc::SYS_fsopen, [c"tmpfs".as_ptr() as usize, 0, 0, 0, 0, 0]).map(close)
}

/// Asks for an attribute that does no harm.
pub fn mount_setattr(path: &Path) -> io::Result<()> {
    let path = path_of(path)?;
    // struct mount_attr: set, clear, propagation, user namespace. MOUNT_ATTR_NOATIME.
    let attributes = [0x10_u64, 0x70, 0, 0];
    let (path, attributes) = (path.as_ptr() as usize, attributes.as_ptr() as usize);
    call(libc::SYS_mount_setattr, [HERE, path, 0, attributes, 32, 0]).map(drop)
}

/// A device file that leads to what /dev/null leads to.
pub fn mknod(path: &Path) -> io::Result<()> {
    let path = path_of(path)?;
    let mode = (libc::S_IFCHR | 0o600) as usize;
    let device = libc::makedev(1, 3) as usize;
    call(libc::SYS_mknodat, [HERE, path.as_ptr() as usize, mode, device, 0, 0]).map(drop)
}

pub fn no_new_privileges() -> io::Result<bool> {
    call(libc::SYS_prctl, [libc::PR_GET_NO_NEW_PRIVS as usize, 0, 0, 0, 0, 0]).map(|set| set == 1)
}

/// The effective, the permitted and the inheritable capabilities.
pub fn capabilities() -> io::Result<[u64; 3]> {
    // _LINUX_CAPABILITY_VERSION_3, and this process.
    let header = [0x2008_0522_u32, 0];
    let mut sets = [0_u32; 6];
    call(
        libc::SYS_capget,
        [header.as_ptr() as usize, sets.as_mut_ptr() as usize, 0, 0, 0, 0],
    )?;
    Ok([0, 1, 2].map(|set| u64::from(sets[set]) | u64::from(sets[set + 3]) << 32))
}

pub fn is_in_bounding_set(capability: usize) -> bool {
    let asked = [libc::PR_CAPBSET_READ as usize, capability, 0, 0, 0, 0];
    call(libc::SYS_prctl, asked).is_ok_and(|set| set == 1)
}

/// This thread becomes another user.
pub fn become_user(user: usize) -> io::Result<()> {
    call(libc::SYS_setresuid, [user, user, user, 0, 0, 0]).map(drop)
}

pub fn set_groups() -> io::Result<()> {
    call(libc::SYS_setgroups, [0; 6]).map(drop)
}

/// Sets the machine's name to what it is.
pub fn keep_hostname() -> io::Result<()> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    let name = name.trim();
    call(libc::SYS_sethostname, [name.as_ptr() as usize, name.len(), 0, 0, 0, 0]).map(drop)
}

/// Makes the loader's user a session leader with a terminal of its own, and types a character into it.
pub fn type_into_terminal() -> io::Result<()> {
    // SAFETY: a fresh terminal; the name lives in a static buffer of the library until the next call.
    unsafe {
        libc::setsid();
        let master = libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY);
        checked(master)?;
        checked(libc::grantpt(master))?;
        checked(libc::unlockpt(master))?;
        let name = libc::ptsname(master);
        if name.is_null() {
            return Err(io::Error::last_os_error());
        }
        let terminal = libc::open(name, libc::O_RDWR);
        checked(terminal)?;
        checked(libc::ioctl(terminal, libc::TIOCSCTTY, 0))?;
        checked(libc::ioctl(terminal, libc::TIOCSTI, c"x".as_ptr()))
    }
}
