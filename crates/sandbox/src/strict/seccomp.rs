//! The system calls that no command needs and that attacks do. All else is allowed: what it can do is bounded by the
//! namespaces and by having no capabilities.
//!
//! Refused calls answer an error, they do not kill: programs try such calls and go on without. Calls for another
//! architecture (32-bit ones, for instance) end the process, as nobody can say what they would be.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

use super::layer::{Layer, MissingLayer};
use super::pod;
use super::sys::{self, FCHMODAT2};

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: TargetArch = TargetArch::aarch64;

/// `open_tree_attr(2)` of Linux 6.15, which has the same number everywhere.
const OPEN_TREE_ATTR: c_long = 467;

/// `file_setattr(2)` of Linux 6.17, likewise.
const FILE_SETATTR: c_long = 469;

/// Answered with EPERM.
///
/// ptrace(2) and process_vm_readv(2) are not here: debuggers and leak checkers need them for processes of their own
/// command. Those of the sandbox cannot be traced ([`privileges`](super::privileges) makes them so), and what a tracer
/// changes of a call is filtered after it has.
const REFUSED: &[c_long] = &[
    // Other processes' memory and descriptors.
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    // Namespaces, roots and mounts, the old way and the new.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    OPEN_TREE_ATTR,
    // Files by handle go around every path.
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    // What ioctl does with a file's flags, as a call of its own.
    FILE_SETATTR,
    // Large parts of the kernel that have had holes.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_lookup_dcookie,
    libc::SYS_nfsservctl,
    libc::SYS_vhangup,
    // The machine itself.
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// Answered with ENOSYS, so that programs take the older call in its place, or do without.
const UNKNOWN: &[c_long] = &[
    // Its flags lie in memory, where a filter cannot look; C libraries go on with clone.
    libc::SYS_clone3,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // Memory that is in no count at all.
    libc::SYS_memfd_secret,
    // Its contexts are of the whole machine, and without a bound for one user.
    libc::SYS_io_setup,
    // Its mode lies in memory too, and may ask for a set-user-ID file.
    libc::SYS_openat2,
];

/// Answered with EPERM when they are for another process, or by its PID for our own: the attendant is of the same
/// user, and would have its limits lowered or its processor taken away.
const OF_ANOTHER: &[c_long] = &[
    libc::SYS_prlimit64,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setattr,
    libc::SYS_sched_setaffinity,
];

/// The same for calls that say first what their second argument is, with what stands for all processes of a user.
const OF_OTHERS: &[(c_long, u64)] = &[
    (libc::SYS_setpriority, libc::PRIO_USER as u64),
    (libc::SYS_ioprio_set, IOPRIO_WHO_USER),
];
const IOPRIO_WHO_USER: u64 = 3;

/// Set-user-ID and set-group-ID. In the sandbox they do nothing; outside of it the file lies in the workspace, and
/// belongs to the runner's user or, where files are mapped, to root.
const SET_ID_BITS: [libc::mode_t; 2] = [libc::S_ISUID, libc::S_ISGID];

/// Calls that change the mode of what is there, with the index of that argument. It may be a folder, for which
/// set-group-ID means only whose what is made in it will be: [`set_group_id`](super::set_group_id) tells them apart.
const CHANGES: &[(c_long, u8)] = &[
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chmod, 1),
    (libc::SYS_fchmod, 1),
    (libc::SYS_fchmodat, 2),
    (FCHMODAT2, 2),
];

/// Calls that make a file with a mode, likewise.
const MAKES: &[(c_long, u8)] = &[
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_creat, 1),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mknod, 1),
    (libc::SYS_mknodat, 2),
];

/// Calls that give a file a mode when these flags say so, with the indices of flags and mode.
const OPENS: &[(c_long, u8, u8)] = &[
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, 1, 2),
    (libc::SYS_openat, 2, 3),
];
const CREATES: [i32; 2] = [libc::O_CREAT, libc::O_TMPFILE];

/// Every flag of clone(2) that makes a namespace.
const NAMESPACE_FLAGS: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u64;

/// The kinds of socket that there are: of the machine's own files, and of networks.
const SOCKETS: [i32; 3] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6];

/// Large pages are in no process's own count. The calls that ask for them, with the index of their flags, and the
/// answer of a machine that has none: programs take others.
const LARGE_PAGES: &[(c_long, u8, u64, i32)] = &[
    (libc::SYS_mmap, 3, libc::MAP_HUGETLB as u64, libc::ENOMEM),
    (libc::SYS_shmget, 2, libc::SHM_HUGETLB as u64, libc::ENOMEM),
    // Chromium asks with every flag that there is, to hear that some are none.
    (libc::SYS_memfd_create, 1, libc::MFD_HUGETLB as u64, libc::EINVAL),
];

/// Calls that give a file to another user or group, with the index of the user; the group is behind it. Nobody but the
/// file's own has a number in the user namespace, where the kernel says EINVAL for that: programs know EPERM, which is
/// what it says to an ordinary user elsewhere.
const GIVES: &[(c_long, u8)] = &[
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chown, 1),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_lchown, 1),
    (libc::SYS_fchown, 1),
    (libc::SYS_fchownat, 2),
];
/// The number that stands for no change.
const UNCHANGED: u32 = u32::MAX;

/// Puts characters into a terminal's input as if they had been typed.
const TIOCSTI: u64 = 0x5412;
/// Selects and pastes on a console.
const TIOCLINUX: u64 = 0x541c;

/// The lower half of an ioctl's request: whose it is, and its number. The upper half is the size of what it takes, in
/// which a 32-bit form differs.
const REQUEST: u64 = 0xffff;
/// Requests that leave something on a file, a folder or a file system: flags that a later task's files inherit,
/// encryption, verity, sizes, defragmentation. Those of the group `f`, and one of `v`.
const LEAVES_ITS_MARK: [u64; 22] = [
    // FS_IOC_SETFLAGS and, of the file system ext4, SETVERSION, SETRSVSZ, GROUP_EXTEND, GROUP_ADD, MIGRATE,
    // ALLOC_DA_BLKS, MOVE_EXT, RESIZE_FS, SWAP_BOOT, CLEAR_ES_CACHE, CHECKPOINT, SETFSUUID.
    0x6602, 0x6604, 0x6606, 0x6607, 0x6608, 0x6609, 0x660c, 0x660f, 0x6610, 0x6611, 0x6628, 0x662b, 0x662c,
    // FS_IOC_SET_ENCRYPTION_POLICY, GET_ENCRYPTION_PWSALT (which makes one), ADD_ENCRYPTION_KEY,
    // REMOVE_ENCRYPTION_KEY, and that of all users.
    0x6613, 0x6614, 0x6617, 0x6618, 0x6619,
    // FS_IOC_ENABLE_VERITY, PRECACHE_EXTENTS, the label of ext4's superblock, FS_IOC_SETVERSION.
    0x6685, 0x6612, 0x662d, 0x7602,
];
/// Groups of which every request is refused but these: btrfs (with what any file system copies by), XFS (with what asks
/// for a file's attributes) and F2FS.
const FILE_SYSTEMS: [(u64, &[u64]); 3] = [
    // FICLONE, FICLONERANGE, FIDEDUPERANGE, FS_IOC_GETFSLABEL, and what asks btrfs about a folder.
    (
        0x9400,
        &[
            0x4004_9409,
            0x4020_940d,
            0xc018_9436,
            0x8100_9431,
            0x8008_9419,
            0x8400_941f,
        ],
    ),
    // FS_IOC_FSGETXATTR.
    (0x5800, &[0x801c_581f]),
    (0xf500, &[]),
];

/// Filters this process, and all that it starts, for good. Gives what answers for set-group-ID, when the kernel lets
/// another process do so.
///
/// Without `queues`, POSIX message queues could not be removed when their command ends, and are refused.
pub(super) fn install(queues: bool) -> Result<Option<OwnedFd>, MissingLayer> {
    let missing = |problem: String| MissingLayer::new(Layer::Seccomp, "installing the filter", problem);
    let asked = asked().map_err(|error| missing(error.to_string()))?;
    // gVisor and Linux before 5.0 have no such thing, and one process has no two.
    let answers = sys::filter_with_listener(&asked).ok();
    // In gVisor nobody but the pod's own containers sees the files, and none of them gains a group by executing one.
    let folders = answers.is_some() || pod::is_gvisor();
    for program in programs(folders, queues).map_err(|error| missing(error.to_string()))? {
        seccompiler::apply_filter(&program).map_err(|error| missing(error.to_string()))?;
    }
    Ok(answers)
}

/// Has another process asked for each change of a mode to one with set-group-ID.
fn asked() -> Result<BpfProgram, seccompiler::BackendError> {
    let bit = u64::from(libc::S_ISGID);
    let mut rules = Rules::new();
    for &(call, mode) in CHANGES {
        let asked = argument(mode, SeccompCmpOp::MaskedEq(bit), bit)?;
        rules.insert(call, vec![SeccompRule::new(vec![asked])?]);
    }
    let stand_in = SeccompAction::Trace(0);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, stand_in, ARCHITECTURE)?;
    let mut program: BpfProgram = filter.try_into()?;
    // The library has no word for the answer that is meant.
    for step in &mut program {
        if u32::from(step.code) == libc::BPF_RET | libc::BPF_K && step.k == libc::SECCOMP_RET_TRACE {
            step.k = libc::SECCOMP_RET_USER_NOTIF;
        }
    }
    Ok(program)
}

/// With `folders`, set-group-ID is left to who can tell a folder from a file.
fn programs(folders: bool, queues: bool) -> Result<Vec<BpfProgram>, seccompiler::BackendError> {
    let mut programs = vec![
        filter(refused(folders)?, libc::EPERM)?,
        filter(unknown(queues), libc::ENOSYS)?,
        // A pair of another family reaches that family's code too, and loads its module, before it is refused.
        filter(
            BTreeMap::from([
                (libc::SYS_socket, sockets()?),
                (libc::SYS_socketpair, vec![SeccompRule::new(other_families()?)?]),
            ]),
            libc::EAFNOSUPPORT,
        )?,
        filter(
            BTreeMap::from([(libc::SYS_socket, kernel_sockets()?)]),
            libc::EPROTONOSUPPORT,
        )?,
        filter(large_pages(libc::ENOMEM)?, libc::ENOMEM)?,
        filter(large_pages(libc::EINVAL)?, libc::EINVAL)?,
    ];
    if cfg!(target_arch = "x86_64") {
        programs.push(without_x32());
    }
    Ok(programs)
}

type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

fn filter(rules: Rules, errno: i32) -> Result<BpfProgram, seccompiler::BackendError> {
    let answer = SeccompAction::Errno(errno.unsigned_abs());
    SeccompFilter::new(rules, SeccompAction::Allow, answer, ARCHITECTURE)?.try_into()
}

fn refused(folders: bool) -> Result<Rules, seccompiler::BackendError> {
    let mut rules: Rules = REFUSED.iter().map(|&call| (call, Vec::new())).collect();
    // gVisor lets anybody make a device file, whatever the mount says.
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_mknod, devices(1)?);
    rules.insert(libc::SYS_mknodat, devices(2)?);
    let mut flags = Vec::new();
    let mut left = NAMESPACE_FLAGS;
    while left != 0 {
        let flag = left & left.wrapping_neg();
        left &= !flag;
        flags.push(SeccompRule::new(vec![argument(
            0,
            SeccompCmpOp::MaskedEq(flag),
            flag,
        )?])?);
    }
    rules.insert(libc::SYS_clone, flags);
    rules.insert(libc::SYS_ioctl, requests()?);
    for &call in OF_ANOTHER {
        rules.insert(call, vec![SeccompRule::new(vec![argument(0, SeccompCmpOp::Ne, 0)?])?]);
    }
    let own = [rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()];
    for &(call, user) in GIVES {
        let to_another = [(user, own[0]), (user + 1, own[1])].map(|(index, own)| {
            let others = [own, UNCHANGED].map(|one| argument(index, SeccompCmpOp::Ne, one.into()));
            SeccompRule::new(others.into_iter().collect::<Result<_, _>>()?)
        });
        rules.insert(call, to_another.into_iter().collect::<Result<_, _>>()?);
    }
    for &(call, all) in OF_OTHERS {
        let others = [argument(0, SeccompCmpOp::Eq, all)?, argument(1, SeccompCmpOp::Ne, 0)?];
        let one_each = others.into_iter().map(|other| SeccompRule::new(vec![other]));
        rules.insert(call, one_each.collect::<Result<_, _>>()?);
    }
    for bit in SET_ID_BITS {
        let may_be_a_folder = folders && bit == libc::S_ISGID;
        let bit = u64::from(bit);
        let asked = |index| argument(index, SeccompCmpOp::MaskedEq(bit), bit);
        let changes = CHANGES.iter().filter(|_| !may_be_a_folder);
        for &(call, mode) in MAKES.iter().chain(changes) {
            let rule = SeccompRule::new(vec![asked(mode)?])?;
            rules.entry(call).or_default().push(rule);
        }
        for &(call, flags, mode) in OPENS {
            for creates in CREATES.map(|flag| flag as u64) {
                let created = argument(flags, SeccompCmpOp::MaskedEq(creates), creates)?;
                let rule = SeccompRule::new(vec![created, asked(mode)?])?;
                rules.entry(call).or_default().push(rule);
            }
        }
    }
    Ok(rules)
}

/// Matches a mode, the argument with this index, that asks for a device file.
fn devices(index: u8) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let kinds = [libc::S_IFCHR, libc::S_IFBLK].map(u64::from);
    let mask = u64::from(libc::S_IFMT);
    kinds
        .iter()
        .map(|&kind| SeccompRule::new(vec![argument(index, SeccompCmpOp::MaskedEq(mask), kind)?]))
        .collect()
}

fn unknown(queues: bool) -> Rules {
    let queue = (!queues).then_some(&libc::SYS_mq_open);
    UNKNOWN.iter().chain(queue).map(|&call| (call, Vec::new())).collect()
}

/// Matches the requests of ioctl(2) that are refused. The kernel looks at the lower 32 bits of a request only: so do
/// we.
fn requests() -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let mut refused = Vec::new();
    for request in [TIOCSTI, TIOCLINUX] {
        refused.push(vec![argument(1, SeccompCmpOp::Eq, request)?]);
    }
    for request in LEAVES_ITS_MARK {
        refused.push(vec![argument(1, SeccompCmpOp::MaskedEq(REQUEST), request)?]);
    }
    for (group, allowed) in FILE_SYSTEMS {
        let mut others = vec![argument(1, SeccompCmpOp::MaskedEq(0xff00), group)?];
        for &request in allowed {
            others.push(argument(1, SeccompCmpOp::Ne, request)?);
        }
        refused.push(others);
    }
    refused.into_iter().map(SeccompRule::new).collect()
}

/// What every family has but those that are allowed.
fn other_families() -> Result<Vec<SeccompCondition>, seccompiler::BackendError> {
    let families = SOCKETS.iter();
    families
        .map(|&family| argument(0, SeccompCmpOp::Ne, family as u64))
        .collect()
}

/// Matches every family but those that are allowed. A socket to the kernel is another filter's matter.
fn sockets() -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let mut others = other_families()?;
    others.push(argument(0, SeccompCmpOp::Ne, libc::AF_NETLINK as u64)?);
    Ok(vec![SeccompRule::new(others)?])
}

/// Matches every socket to the kernel but the one by which programs ask for their network interfaces.
fn kernel_sockets() -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let others = [
        argument(0, SeccompCmpOp::Eq, libc::AF_NETLINK as u64)?,
        argument(2, SeccompCmpOp::Ne, libc::NETLINK_ROUTE as u64)?,
    ];
    Ok(vec![SeccompRule::new(others.into())?])
}

/// Those that are answered like that.
fn large_pages(errno: i32) -> Result<Rules, seccompiler::BackendError> {
    let mut rules = Rules::new();
    for &(call, flags, large, _) in LARGE_PAGES.iter().filter(|(_, _, _, answer)| *answer == errno) {
        let asked = argument(flags, SeccompCmpOp::MaskedEq(large), large)?;
        rules.insert(call, vec![SeccompRule::new(vec![asked])?]);
    }
    Ok(rules)
}

fn argument(index: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value)
}

/// The calls of the x32 interface have the architecture of the ordinary ones and a bit of their own in the number,
/// which the other filters do not know: all of them are refused.
fn without_x32() -> BpfProgram {
    /// `__X32_SYSCALL_BIT`.
    const X32: u32 = 0x4000_0000;
    let step = |code: u32, jt: u8, jf: u8, k: u32| sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    vec![
        // The number of the call is the first word of what a filter sees.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, X32),
        step(
            libc::BPF_RET | libc::BPF_K,
            0,
            0,
            libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs(),
        ),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn no_call_is_in_two_lists_and_every_program_fits() {
        let both = REFUSED.iter().filter(|call| UNKNOWN.contains(call)).count();
        assert_eq!(both, 0);
        for program in programs(false, false).unwrap().into_iter().chain([asked().unwrap()]) {
            assert!(!program.is_empty() && program.len() < 4096);
        }
    }
}
