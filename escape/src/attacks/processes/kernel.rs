//! Parts of the kernel that have had holes, and the machine itself.

use std::io;

use plue_sandbox::mutation::Protection;

use super::program;
use crate::attack::{Attack, Baseline};
use crate::sys;
use crate::target::Outcome;

const SECCOMP: &[Protection] = &[Protection::Seccomp];

/// Something that a filter has to refuse, since the kernel would not.
const fn filtered(id: &'static str, what: &'static str, run: fn(&crate::target::Target) -> Outcome) -> Attack {
    program(id, what, run).falls_without(SECCOMP).baseline(Baseline::Unless(
        &[
            libc::ENOSYS,
            libc::EPERM,
            libc::EACCES,
            libc::EOPNOTSUPP,
            libc::EAFNOSUPPORT,
        ],
        "this kernel has it not, or not for this user",
    ))
}

const NO_FLAGS: Baseline = Baseline::Unless(
    &[
        libc::ENOSYS,
        libc::ENOTTY,
        libc::EOPNOTSUPP,
        libc::EPERM,
        libc::EACCES,
        libc::EINVAL,
    ],
    "the workspace's file system has it not, or not for this user",
);

/// Something that only the machine's root may do. Its arguments are wrong on purpose: whoever may gets another error
/// than who may not.
const fn administration(id: &'static str, what: &'static str, run: fn(&crate::target::Target) -> Outcome) -> Attack {
    program(id, what, run).baseline(Baseline::Unless(
        &[libc::ENOSYS, libc::EPERM, libc::EACCES],
        "this user does not rule the machine, or this kernel has it not",
    ))
}

fn asked(what: &str, number: libc::c_long, arguments: [usize; 6]) -> Outcome {
    match sys::call(number, arguments) {
        Ok(_) => Outcome::GotThrough(format!("{what} succeeded")),
        Err(error) => match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES | libc::ENOSYS) => Outcome::refused(what, &error),
            _ => Outcome::GotThrough(format!(
                "{what} was permitted, and failed because of its arguments: {error}"
            )),
        },
    }
}

pub const ATTACKS: &[Attack] = &[
    filtered(
        "processes/io-uring",
        "sets up an io_uring, whose operations no filter sees",
        |_| Outcome::of("io_uring_setup", sys::io_uring()),
    ),
    filtered("processes/keyctl", "asks for the session's keys", |_| {
        Outcome::of("keyctl", sys::keyctl())
    }),
    filtered("processes/add-key", "puts a key into the kernel", |_| {
        Outcome::of("add_key", sys::add_key())
    }),
    filtered(
        "processes/request-key",
        "asks for a key, for which the kernel starts a program",
        |_| match sys::request_key() {
            Err(error) if error.raw_os_error() != Some(libc::ENOKEY) => Outcome::refused("request_key", &error),
            other => Outcome::GotThrough(format!("request_key was answered: {other:?}")),
        },
    ),
    filtered("processes/bpf", "loads a map into the kernel", |_| {
        Outcome::of("bpf", sys::bpf())
    })
    // Without the filter it still needs rights of the machine.
    .falls_without(&[]),
    filtered("processes/perf", "measures the kernel", |_| {
        Outcome::of("perf_event_open", sys::perf())
    })
    // gVisor knows the call and no device for it.
    .baseline(Baseline::Unless(
        &[libc::ENOSYS, libc::EPERM, libc::EACCES, libc::ENODEV],
        "this kernel measures nothing, or not for this user",
    )),
    filtered("processes/userfaultfd", "holds the kernel in a page fault", |_| {
        Outcome::of("userfaultfd", sys::userfaultfd())
    }),
    filtered("processes/kcmp", "compares kernel objects of processes", |_| {
        let own = std::process::id() as usize;
        // KCMP_FILES.
        Outcome::of("kcmp", sys::call(libc::SYS_kcmp, [own, own, 2, 0, 0, 0]))
    }),
    filtered("processes/file-handles", "asks for a file's handle", |_| {
        Outcome::of("name_to_handle_at", sys::handle_of_root())
    }),
    filtered("processes/modify-ldt", "changes its segments", |_| {
        Outcome::of("modify_ldt", sys::modify_ldt())
    }),
    filtered(
        "processes/x32-calls",
        "makes a call by the x32 interface, whose numbers a filter may not know",
        |_| Outcome::of("getpid of x32", sys::call(0x4000_0000 | libc::SYS_getpid, [0; 6])),
    ),
    filtered(
        "processes/32-bit-calls",
        "makes a call by the 32-bit interface, whose numbers mean something else",
        |_| {
            // A filter ends the process for it, and a kernel without that interface does too: in a child.
            Outcome::of("getpid by int 0x80", sys::in_child(sys::call_32_bit))
        },
    )
    .baseline(Baseline::Unless(
        &[libc::ENOSYS, libc::EINTR],
        "this kernel has no such interface",
    )),
    filtered("processes/vsock", "opens a socket to the machine's own host", |_| {
        socket("AF_VSOCK", libc::AF_VSOCK, libc::SOCK_STREAM)
    }),
    filtered(
        "processes/crypto-socket",
        "opens a socket into the kernel's cryptography",
        |_| socket("AF_ALG", libc::AF_ALG, libc::SOCK_SEQPACKET),
    ),
    filtered(
        "processes/netlink",
        "opens a socket to a part of the kernel, by each protocol but the one that lists network interfaces",
        |_| {
            let protocols = 1..32;
            Outcome::any(protocols.map(|protocol| {
                let opened = sys::socket(libc::AF_NETLINK, libc::SOCK_RAW, protocol);
                Outcome::of(&format!("NETLINK protocol {protocol}"), opened)
            }))
        },
    )
    .baseline(Baseline::Unless(
        &[libc::EPROTONOSUPPORT, libc::EAFNOSUPPORT, libc::EPERM, libc::EACCES],
        "this kernel has none of them",
    )),
    filtered(
        "processes/inode-flags",
        "leaves a flag on its workspace, which all that is made there inherits (FS_IOC_SETFLAGS)",
        |target| Outcome::of("FS_IOC_SETFLAGS", sys::set_inode_flags(&target.workspace)),
    )
    .baseline(NO_FLAGS),
    filtered(
        "processes/inode-flags-of-xfs",
        "does the same in the way of another file system (FS_IOC_FSSETXATTR)",
        |target| Outcome::of("FS_IOC_FSSETXATTR", sys::set_extended_flags(&target.workspace)),
    )
    .baseline(NO_FLAGS),
    filtered(
        "processes/inode-flags-by-call",
        "does the same by a call of its own (file_setattr)",
        |target| Outcome::of("file_setattr", sys::file_setattr(&target.workspace)),
    )
    .baseline(NO_FLAGS),
    filtered(
        "processes/encrypted-folder",
        "gives the kernel a key by which nobody else can use a folder of the workspace",
        |target| Outcome::of("FS_IOC_ADD_ENCRYPTION_KEY", sys::add_encryption_key(&target.workspace)),
    )
    .baseline(NO_FLAGS),
    filtered(
        "processes/asynchronous-io",
        "takes contexts for asynchronous input and output, of which the machine has a number for all",
        |_| Outcome::of("io_setup", sys::io_setup()),
    )
    .baseline(Baseline::Unless(&[libc::ENOSYS], "this kernel has none")),
    filtered(
        "processes/bluetooth-and-the-like",
        "opens a socket of a family that nobody uses",
        |_| {
            let families = [
                libc::AF_BLUETOOTH,
                libc::AF_CAN,
                libc::AF_TIPC,
                libc::AF_RDS,
                libc::AF_KEY,
                libc::AF_XDP,
                libc::AF_NFC,
            ];
            Outcome::any(families.into_iter().flat_map(|family| {
                [libc::SOCK_RAW, libc::SOCK_DGRAM, libc::SOCK_SEQPACKET].map(|kind| socket("a socket", family, kind))
            }))
        },
    )
    .baseline(Baseline::Unless(
        &[
            libc::EAFNOSUPPORT,
            libc::EPERM,
            libc::ESOCKTNOSUPPORT,
            libc::EPROTONOSUPPORT,
        ],
        "this kernel has none of them",
    ))
    // Without the filter it still needs rights of the machine.
    .falls_without(&[]),
    program(
        "processes/terminal-input",
        "puts characters into a terminal's input (CVE-2017-5226)",
        |_| Outcome::of("TIOCSTI", sys::in_child(sys::type_into_terminal)),
    )
    .baseline(Baseline::Unless(
        &[
            libc::EIO,
            libc::ENOTTY,
            libc::EINVAL,
            libc::EPERM,
            libc::ENOENT,
            libc::EACCES,
        ],
        "this kernel does not let terminals be typed into",
    )),
    program(
        "processes/controlling-terminal",
        "opens the terminal that the runner was started from",
        |_| {
            Outcome::of(
                "open /dev/tty",
                std::fs::File::options().read(true).write(true).open("/dev/tty"),
            )
        },
    )
    .baseline(Baseline::Unless(
        // gVisor says EIO.
        &[libc::ENXIO, libc::ENOENT, libc::EACCES, libc::EIO],
        "the harness itself was started without a terminal",
    )),
    administration("processes/reboot", "restarts the machine", |_| {
        asked("reboot", libc::SYS_reboot, [0; 6])
    }),
    administration("processes/load-a-module", "loads a kernel module", |_| {
        asked("init_module", libc::SYS_init_module, [0; 6])
    }),
    administration("processes/unload-a-module", "removes a kernel module", |_| {
        asked(
            "delete_module",
            libc::SYS_delete_module,
            [c"plue-none".as_ptr() as usize, 0, 0, 0, 0, 0],
        )
    }),
    administration("processes/kexec", "starts another kernel", |_| {
        asked("kexec_load", libc::SYS_kexec_load, [0, 0, 0, usize::MAX >> 1, 0, 0])
    }),
    administration("processes/swap", "changes where memory is swapped to", |_| {
        asked(
            "swapoff",
            libc::SYS_swapoff,
            [c"/plue-none".as_ptr() as usize, 0, 0, 0, 0, 0],
        )
    }),
    administration(
        "processes/accounting",
        "lets the kernel write down every process",
        |_| asked("acct", libc::SYS_acct, [c"/plue-none".as_ptr() as usize, 0, 0, 0, 0, 0]),
    ),
    administration("processes/kernel-log", "reads the kernel's log", |_| {
        let mut buffer = [0_u8; 4096];
        // SYSLOG_ACTION_READ_ALL.
        asked(
            "syslog",
            libc::SYS_syslog,
            [3, buffer.as_mut_ptr() as usize, buffer.len(), 0, 0, 0],
        )
    }),
    administration("processes/clock", "sets the machine's clock", |_| {
        // A nanosecond that no second has.
        let time = [0_i64, i64::MAX];
        asked(
            "clock_settime",
            libc::SYS_clock_settime,
            [0, time.as_ptr() as usize, 0, 0, 0, 0],
        )
    })
    .baseline(Baseline::Unless(
        &[libc::ENOSYS, libc::EPERM, libc::EACCES],
        "this user does not rule the machine",
    )),
    administration("processes/ports", "reaches the machine's ports", |_| sys_iopl()),
    administration("processes/quota", "changes quotas", |_| {
        asked(
            "quotactl",
            libc::SYS_quotactl,
            [0x8000_0600, c"/plue-none".as_ptr() as usize, 0, 0, 0, 0],
        )
    }),
    administration(
        "processes/watch-all-files",
        "watches every file of the machine (fanotify)",
        |_| match sys::call(libc::SYS_fanotify_init, [0; 6]) {
            Ok(fd) => {
                sys::close(fd);
                Outcome::GotThrough("fanotify_init succeeded".to_owned())
            }
            Err(error) => Outcome::refused("fanotify_init", &error),
        },
    ),
];

#[cfg(target_arch = "x86_64")]
fn sys_iopl() -> Outcome {
    asked("iopl", libc::SYS_iopl, [3, 0, 0, 0, 0, 0])
}

#[cfg(not(target_arch = "x86_64"))]
fn sys_iopl() -> Outcome {
    Outcome::refused("iopl", &io::Error::from_raw_os_error(libc::ENOSYS))
}

fn socket(what: &str, family: i32, kind: i32) -> Outcome {
    let result: io::Result<()> = sys::socket(family, kind, 0);
    Outcome::of(what, result)
}
