//! A machine without openat2(2), as gVisor was for long: the file tools then resolve paths in another way, which is
//! where the escapes of 2026 were.

use std::collections::BTreeMap;
use std::io;

use anyhow::{Context, Result, bail};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

use crate::sys;

/// Makes openat2 answer ENOSYS for this process and all that it starts, and makes sure that it does.
pub fn take_away() -> Result<()> {
    let arch = std::env::consts::ARCH
        .try_into()
        .context("no filter is known for this processor")?;
    let filter = SeccompFilter::new(
        BTreeMap::from([(libc::SYS_openat2, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS.cast_unsigned()),
        arch,
    )?;
    let program: BpfProgram = filter.try_into()?;
    apply_filter(&program).context("install a filter")?;
    match sys::openat2(c".") {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        Err(error) => bail!("openat2 answers {error} under the filter"),
        Ok(()) => bail!("openat2 still works under the filter"),
    }
}

/// Whether this machine has it at all, for the report.
pub fn is_there() -> io::Result<bool> {
    match sys::openat2(c".") {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(false),
        Err(error) => Err(error),
    }
}
