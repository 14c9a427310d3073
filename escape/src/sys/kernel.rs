//! Parts of the kernel that few programs use.

use std::io;
use std::path::Path;

use super::{call, close};

pub fn socket(family: i32, kind: i32, protocol: i32) -> io::Result<()> {
    call(
        libc::SYS_socket,
        [family as usize, kind as usize, protocol as usize, 0, 0, 0],
    )
    .map(close)
}

pub fn io_uring() -> io::Result<()> {
    // struct io_uring_params.
    let mut parameters = [0_u32; 30];
    call(
        libc::SYS_io_uring_setup,
        [1, parameters.as_mut_ptr() as usize, 0, 0, 0, 0],
    )
    .map(close)
}

pub fn keyctl() -> io::Result<()> {
    // KEYCTL_GET_KEYRING_ID of KEY_SPEC_SESSION_KEYRING, which is made when there is none.
    call(libc::SYS_keyctl, [0, -3_isize as usize, 1, 0, 0, 0]).map(drop)
}

pub fn add_key() -> io::Result<()> {
    let (kind, name) = (c"user".as_ptr() as usize, c"plue-escape".as_ptr() as usize);
    // KEY_SPEC_PROCESS_KEYRING: it goes with this process.
    call(
        libc::SYS_add_key,
        [kind, name, c"x".as_ptr() as usize, 1, -2_isize as usize, 0],
    )
    .map(drop)
}

pub fn request_key() -> io::Result<()> {
    let (kind, name) = (c"user".as_ptr() as usize, c"plue-escape-none".as_ptr() as usize);
    call(libc::SYS_request_key, [kind, name, 0, 0, 0, 0]).map(drop)
}

pub fn bpf() -> io::Result<()> {
    // BPF_MAP_CREATE of an array: kind, key, value, entries.
    let mut attributes = [0_u32; 32];
    attributes[..4].copy_from_slice(&[2, 4, 4, 1]);
    call(
        libc::SYS_bpf,
        [0, attributes.as_ptr() as usize, size_of_val(&attributes), 0, 0, 0],
    )
    .map(close)
}

pub fn perf() -> io::Result<()> {
    // struct perf_event_attr: PERF_TYPE_SOFTWARE, its size, the processor's clock, without the kernel.
    let mut attributes = [0_u32; 28];
    attributes[0] = 1;
    attributes[1] = size_of_val(&attributes) as u32;
    attributes[10] = 1 << 5 | 1 << 6;
    let any = -1_isize as usize;
    call(
        libc::SYS_perf_event_open,
        [attributes.as_ptr() as usize, 0, any, any, 0, 0],
    )
    .map(close)
}

/// An ioctl(2) on a folder.
fn request(folder: &Path, request: usize, argument: usize) -> io::Result<()> {
    let folder = std::fs::File::open(folder)?;
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(&folder) as usize;
    call(libc::SYS_ioctl, [descriptor, request, argument, 0, 0, 0]).map(drop)
}

/// Sets the flag by which times of access are not kept (`FS_NOATIME_FL`), beside those that are set.
pub fn set_inode_flags(folder: &Path) -> io::Result<()> {
    const GET: usize = 0x8008_6601;
    const SET: usize = 0x4008_6602;
    let mut flags = 0_u64;
    request(folder, GET, &raw mut flags as usize)?;
    flags |= 0x80;
    request(folder, SET, &raw const flags as usize)
}

/// The same flag, as XFS has it.
pub fn set_extended_flags(folder: &Path) -> io::Result<()> {
    const GET: usize = 0x801c_581f;
    const SET: usize = 0x401c_5820;
    // struct fsxattr: flags, three sizes, and what is reserved.
    let mut attributes = [0_u32; 7];
    request(folder, GET, attributes.as_mut_ptr() as usize)?;
    attributes[0] |= 0x40;
    request(folder, SET, attributes.as_ptr() as usize)
}

/// The same by file_setattr(2) of Linux 6.17.
pub fn file_setattr(folder: &Path) -> io::Result<()> {
    let folder = super::path_of(folder)?;
    // struct file_attr: flags, and three sizes.
    let attributes = [0x40_u64, 0, 0];
    let (folder, attributes) = (folder.as_ptr() as usize, attributes.as_ptr() as usize);
    call(469, [libc::AT_FDCWD as isize as usize, folder, attributes, 24, 0, 0]).map(drop)
}

/// A key of 64 bytes, for the file system of this folder.
pub fn add_encryption_key(folder: &Path) -> io::Result<()> {
    const ADD: usize = 0xc050_6617;
    // struct fscrypt_add_key_arg: a specifier of 40 bytes, which begins with its type 2; the size of the key, and 36
    // bytes of nothing; the key.
    let mut key = [7_u32; 36];
    key[..20].fill(0);
    key[0] = 2;
    key[10] = 64;
    request(folder, ADD, key.as_mut_ptr() as usize)
}

/// A context for one operation.
pub fn io_setup() -> io::Result<()> {
    let mut context = 0_usize;
    call(libc::SYS_io_setup, [1, &raw mut context as usize, 0, 0, 0, 0]).map(drop)
}

pub fn userfaultfd() -> io::Result<()> {
    // UFFD_USER_MODE_ONLY.
    call(libc::SYS_userfaultfd, [(libc::O_CLOEXEC | 1) as usize, 0, 0, 0, 0, 0]).map(close)
}

pub fn handle_of_root() -> io::Result<()> {
    let mut handle = [0_u32; 34];
    handle[0] = 128;
    let mut mount = 0_i32;
    let at = libc::AT_FDCWD as isize as usize;
    let (handle, mount) = (handle.as_mut_ptr() as usize, &raw mut mount as usize);
    call(
        libc::SYS_name_to_handle_at,
        [at, c"/".as_ptr() as usize, handle, mount, 0, 0],
    )
    .map(drop)
}

/// Reads the table of segments.
#[cfg(target_arch = "x86_64")]
pub fn modify_ldt() -> io::Result<()> {
    let mut table = [0_u64; 8];
    call(
        libc::SYS_modify_ldt,
        [0, table.as_mut_ptr() as usize, size_of_val(&table), 0, 0, 0],
    )
    .map(drop)
}

#[cfg(not(target_arch = "x86_64"))]
pub fn modify_ldt() -> io::Result<()> {
    Err(io::Error::from_raw_os_error(libc::ENOSYS))
}

/// getpid(2) as a 32-bit program asks for it.
#[cfg(target_arch = "x86_64")]
pub fn call_32_bit() -> io::Result<()> {
    let result: i64;
    // SAFETY: the call changes no memory; the registers that it changes are named.
    unsafe {
        std::arch::asm!(
            "int 0x80",
            inlateout("rax") 20_i64 => result,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    // The upper half is of no meaning.
    match result as i32 {
        pid if pid > 0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}

#[cfg(not(target_arch = "x86_64"))]
pub fn call_32_bit() -> io::Result<()> {
    Err(io::Error::from_raw_os_error(libc::ENOSYS))
}

/// A connection from one address of the loopback to a port of another.
pub fn connect_from(from: std::net::Ipv4Addr, port: u16) -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketType};
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    rustix::net::bind(&socket, &std::net::SocketAddrV4::new(from, 0))?;
    let to = std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, port);
    Ok(rustix::net::connect(&socket, &to)?)
}

/// Two connected sockets. A family that has no such pairs refuses them after it has made both.
pub fn socket_pair(family: i32, kind: i32) -> io::Result<()> {
    let mut pair = [0_i32; 2];
    let made = call(
        libc::SYS_socketpair,
        [family as usize, kind as usize, 0, pair.as_mut_ptr() as usize, 0, 0],
    );
    match made {
        Err(error) if error.raw_os_error() != Some(libc::EOPNOTSUPP) => Err(error),
        _ => Ok(()),
    }
}

/// An ICMP echo request, by a socket that the kernel gives to some groups.
pub fn ping(to: std::net::Ipv4Addr) -> io::Result<()> {
    use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto};
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, Some(ipproto::ICMP))?;
    rustix::net::connect(&socket, &std::net::SocketAddrV4::new(to, 0))?;
    // Type 8, code 0; the kernel fills in the sum.
    rustix::net::send(&socket, &[8, 0, 0, 0, 0, 0, 0, 1], SendFlags::empty())?;
    Ok(())
}
