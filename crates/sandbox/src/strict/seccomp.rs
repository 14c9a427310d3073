//! The system calls that no command needs and that attacks do. All else is allowed: what it can do is bounded by the
//! namespaces and by having no capabilities.
//!
//! Refused calls answer an error, they do not kill: programs try such calls and go on without. Calls for another
//! architecture (32-bit ones, for instance) end the process, as nobody can say what they would be.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

use super::layer::{Layer, MissingLayer};

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: TargetArch = TargetArch::aarch64;

/// `open_tree_attr(2)` of Linux 6.15, which has the same number everywhere.
const OPEN_TREE_ATTR: c_long = 467;

/// Answered with EPERM.
const REFUSED: &[c_long] = &[
    // Other processes' memory and descriptors.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
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
    // Memory that belongs to no process's own count: COMMAND_MEMORY would not see it. System V's objects and message
    // queues outlive their command besides.
    libc::SYS_memfd_create,
    libc::SYS_memfd_secret,
    libc::SYS_shmget,
    libc::SYS_semget,
    libc::SYS_msgget,
    libc::SYS_mq_open,
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

/// The same on every architecture; the library knows it on some.
const FCHMODAT2: c_long = 452;

/// Calls that give a file a mode, with the index of that argument.
const MODES: &[(c_long, u8)] = &[
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chmod, 1),
    (libc::SYS_fchmod, 1),
    (libc::SYS_fchmodat, 2),
    (FCHMODAT2, 2),
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

/// Puts characters into a terminal's input as if they had been typed.
const TIOCSTI: u64 = 0x5412;
/// Selects and pastes on a console.
const TIOCLINUX: u64 = 0x541c;

/// Filters this process, and all that it starts, for good.
pub(super) fn install() -> Result<(), MissingLayer> {
    let missing = |problem: String| MissingLayer::new(Layer::Seccomp, "installing the filter", problem);
    for program in programs().map_err(|error| missing(error.to_string()))? {
        seccompiler::apply_filter(&program).map_err(|error| missing(error.to_string()))?;
    }
    Ok(())
}

fn programs() -> Result<Vec<BpfProgram>, seccompiler::BackendError> {
    let mut programs = vec![
        filter(refused()?, libc::EPERM)?,
        filter(unknown(), libc::ENOSYS)?,
        // A pair of another family reaches that family's code too, and loads its module, before it is refused.
        filter(
            BTreeMap::from([(libc::SYS_socket, sockets()?), (libc::SYS_socketpair, sockets()?)]),
            libc::EAFNOSUPPORT,
        )?,
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

fn refused() -> Result<Rules, seccompiler::BackendError> {
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
    let requests = [TIOCSTI, TIOCLINUX]
        .iter()
        // The kernel looks at the lower half of the request only: so do we.
        .map(|&request| SeccompRule::new(vec![argument(1, SeccompCmpOp::Eq, request)?]))
        .collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_ioctl, requests);
    for &call in OF_ANOTHER {
        rules.insert(call, vec![SeccompRule::new(vec![argument(0, SeccompCmpOp::Ne, 0)?])?]);
    }
    for &(call, all) in OF_OTHERS {
        let others = [argument(0, SeccompCmpOp::Eq, all)?, argument(1, SeccompCmpOp::Ne, 0)?];
        let one_each = others.into_iter().map(|other| SeccompRule::new(vec![other]));
        rules.insert(call, one_each.collect::<Result<_, _>>()?);
    }
    for bit in SET_ID_BITS.map(u64::from) {
        let asked = |index| argument(index, SeccompCmpOp::MaskedEq(bit), bit);
        for &(call, mode) in MODES {
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

fn unknown() -> Rules {
    UNKNOWN.iter().map(|&call| (call, Vec::new())).collect()
}

/// Matches every family but those that are allowed.
fn sockets() -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let others = SOCKETS
        .iter()
        .map(|&family| argument(0, SeccompCmpOp::Ne, family as u64))
        .collect::<Result<_, _>>()?;
    Ok(vec![SeccompRule::new(others)?])
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
        for program in programs().unwrap() {
            assert!(!program.is_empty() && program.len() < 4096);
        }
    }
}
