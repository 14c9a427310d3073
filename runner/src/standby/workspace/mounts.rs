//! What is mounted where, as far as the workspace is concerned.

use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Statx, StatxAttributes, StatxFlags, fstat, statat, statx};
use rustix::io;

use plue_sandbox::proc;

/// The mount that a file is on: two files with the same one are on the same mount, as far as the kernel tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    device: u64,
    /// Linux 5.8 and later: tells bind mounts of one file system apart.
    id: Option<u64>,
}

impl Mount {
    pub(super) fn of(file: impl AsFd) -> io::Result<Self> {
        let device = fstat(&file)?.st_dev;
        let id = ask(&file)
            .filter(|told| told.stx_mask & StatxFlags::MNT_ID.bits() != 0)
            .map(|told| told.stx_mnt_id);
        Ok(Self { device, id })
    }
}

fn ask(file: impl AsFd) -> Option<Statx> {
    statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).ok()
}

/// Whether something is mounted at this folder. Its path is asked for only where the kernel does not say (gVisor).
pub(super) fn is_mount_point(folder: impl AsFd, path: &Path) -> io::Result<bool> {
    let root = StatxAttributes::MOUNT_ROOT;
    if let Some(told) = ask(&folder)
        && told.stx_attributes_mask.contains(root)
    {
        return Ok(told.stx_attributes.contains(root));
    }
    let parent = statat(&folder, c"..", AtFlags::empty())?;
    Ok(parent.st_dev != fstat(&folder)?.st_dev || points().any(|point| point == path))
}

/// The mount points below a folder, as paths relative to it.
pub(super) fn points_below(folder: &Path) -> Vec<PathBuf> {
    let below = points().filter_map(|point| Some(point.strip_prefix(folder).ok()?.to_owned()));
    let mut below: Vec<PathBuf> = below.filter(|point| !point.as_os_str().is_empty()).collect();
    below.sort();
    below.dedup();
    below
}

/// All mount points that this process sees. None where there is no /proc.
fn points() -> impl Iterator<Item = PathBuf> {
    let mounts = proc::mounts().unwrap_or_default();
    mounts.into_iter().map(|mount| mount.place)
}

/// A name as people can read it, from which the bytes can be told: what is no UTF-8, or cannot be seen, is escaped.
pub(super) fn readable(name: &Path) -> String {
    let mut text = String::new();
    for chunk in name.as_os_str().as_bytes().utf8_chunks() {
        let quote = |character| matches!(character, '\'' | '"');
        for character in chunk.valid().chars() {
            if quote(character) {
                text.push(character);
            } else {
                text.extend(character.escape_debug());
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_escaped_without_loss() {
        let cases: [(&[u8], &str); 4] = [
            (b"a b/\xc3\xa9", "a b/\u{e9}"),
            (b"a\nb\\n", "a\\nb\\\\n"),
            (b"\xff\xc3", "\\xff\\xc3"),
            ("\u{202e}'".as_bytes(), "\\u{202e}'"),
        ];
        for (name, expected) in cases {
            assert_eq!(readable(Path::new(std::ffi::OsStr::from_bytes(name))), expected);
        }
    }
}
