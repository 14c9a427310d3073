//! A file that entries are only added to, and how it is read again after its writer was killed.
//!
//! Each entry has its length twice, once inverted, and a checksum. The last one may be cut, by a process or a machine
//! that died while it wrote: what is before it counts. Anything else that is wrong is a file that says nothing: what
//! stands behind the damage may contradict what stands before it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::marker::PhantomData;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::files::sync_folder;
use crate::spool_dir::careful;

/// Length, inverted length, checksum.
const HEAD: usize = 16;

/// What the first entry of every file is: of another version, what follows may mean something else.
const FORMAT: &str = concat!("plue-runner state 1, ", env!("CARGO_PKG_VERSION"));

/// Why a file says nothing.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("it is damaged at byte {0}")]
    Damaged(u64),
    #[error("another version of the runner has written it")]
    Version,
    #[error("it is no file that this user alone can write to")]
    NotOurs,
}

/// See the module.
#[derive(Debug)]
pub struct Log<E> {
    file: File,
    length: u64,
    entries: PhantomData<fn(E)>,
}

impl<E: Serialize + DeserializeOwned> Log<E> {
    /// A new file with these entries, in the place of any other: whole, or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(path: &Path, entries: impl IntoIterator<Item = E>) -> io::Result<Self> {
        let made = path.with_extension("new");
        match fs::remove_file(&made) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(careful())
            .open(&made)?;
        let mut bytes = frame(&FORMAT);
        for entry in entries {
            bytes.extend(frame(&entry));
        }
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&made, path)?;
        if let Some(folder) = path.parent() {
            sync_folder(folder)?;
        }
        Ok(Self {
            file,
            length: bytes.len() as u64,
            entries: PhantomData,
        })
    }

    /// Opens what an earlier process has left, and gives each entry to `take`; `None` when there is nothing. What was
    /// cut at its end is cut off.
    ///
    /// # Errors
    /// When it says nothing.
    pub fn open(path: &Path, mut take: impl FnMut(E)) -> Result<Option<Self>, Unreadable> {
        let opened = OpenOptions::new()
            .read(true)
            .append(true)
            .custom_flags(careful())
            .open(path);
        let file = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let about = file.metadata()?;
        let us = rustix::process::geteuid().as_raw();
        if !about.is_file() || about.uid() != us || about.nlink() != 1 || about.mode() & 0o022 != 0 {
            return Err(Unreadable::NotOurs);
        }
        let mut reader = BufReader::with_capacity(1 << 20, &file);
        let mut at = 0;
        let format = next(&mut reader, at, about.len())?.ok_or(Unreadable::Damaged(0))?;
        if decode::<String>(&format).is_none_or(|format| format != FORMAT) {
            return Err(Unreadable::Version);
        }
        at += (HEAD + format.len()) as u64;
        while let Some(body) = next(&mut reader, at, about.len())? {
            take(decode(&body).ok_or(Unreadable::Damaged(at))?);
            at += (HEAD + body.len()) as u64;
        }
        if at < about.len() {
            tracing::warn!(
                file = %path.display(),
                bytes = about.len() - at,
                "the last entry is not whole: it was being written when the runner was killed"
            );
            file.set_len(at)?;
        }
        Ok(Some(Self {
            file,
            length: at,
            entries: PhantomData,
        }))
    }

    /// Adds an entry. Once this returns, the death of this process does not lose it, and with `sync` neither that of
    /// the machine.
    ///
    /// # Errors
    /// When it cannot be written. The file is not to be written to again.
    pub fn append(&mut self, entry: &E, sync: bool) -> io::Result<()> {
        let bytes = frame(entry);
        self.file.write_all(&bytes)?;
        self.length += bytes.len() as u64;
        if sync {
            self.file.sync_data()?;
        }
        Ok(())
    }

    /// How long it is.
    pub fn length(&self) -> u64 {
        self.length
    }
}

fn frame(entry: &impl Serialize) -> Vec<u8> {
    // An entry that cannot be serialized is none of ours; as an empty one it is damage to whoever reads it.
    let Ok(mut bytes) = postcard::to_extend(entry, vec![0; HEAD]) else {
        return vec![0; HEAD];
    };
    let (head, body) = bytes.split_at_mut(HEAD);
    let length = u32::try_from(body.len()).unwrap_or_default();
    head[..4].copy_from_slice(&length.to_le_bytes());
    head[4..8].copy_from_slice(&(!length).to_le_bytes());
    head[8..].copy_from_slice(&checksum(body));
    bytes
}

fn checksum(body: &[u8]) -> [u8; 8] {
    let mut sum = [0; 8];
    let digest = Sha256::digest(body);
    sum.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    sum
}

/// The next entry; `None` at the end, also when that is in the middle of one.
fn next(reader: &mut impl Read, at: u64, end: u64) -> Result<Option<Vec<u8>>, Unreadable> {
    let left = end - at;
    if left < HEAD as u64 {
        return Ok(None);
    }
    let mut head = [0; HEAD];
    reader.read_exact(&mut head)?;
    let number = |range: std::ops::Range<usize>| {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&head[range]);
        u32::from_le_bytes(bytes)
    };
    let length = number(0..4);
    // A machine that loses its power may leave a length of the file, and zeros where the last entry was to be.
    if head == [0; HEAD] {
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest)?;
        return match rest.iter().all(|byte| *byte == 0) {
            true => Ok(None),
            false => Err(Unreadable::Damaged(at)),
        };
    }
    if number(4..8) != !length {
        return Err(Unreadable::Damaged(at));
    }
    if left - (HEAD as u64) < u64::from(length) {
        return Ok(None);
    }
    let mut body = vec![0; length as usize];
    reader.read_exact(&mut body)?;
    if checksum(&body) != head[8..] {
        let is_last = left == HEAD as u64 + u64::from(length);
        return if is_last {
            Ok(None)
        } else {
            Err(Unreadable::Damaged(at))
        };
    }
    Ok(Some(body))
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::PathBuf;

    use super::*;

    fn file() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.journal");
        (folder, path)
    }

    fn read(path: &Path) -> Result<Option<Vec<String>>, Unreadable> {
        let mut entries = Vec::new();
        Ok(Log::open(path, |entry| entries.push(entry))?.map(|_: Log<String>| entries))
    }

    fn written() -> (tempfile::TempDir, PathBuf, Vec<String>, Vec<u64>) {
        let (folder, path) = file();
        let entries: Vec<String> = ["a", "", &"é".repeat(5000), "last one"].map(str::to_owned).into();
        let mut log = Log::create(&path, entries[..1].iter().cloned()).unwrap();
        let mut ends = vec![log.length()];
        for entry in &entries[1..] {
            log.append(entry, true).unwrap();
            ends.push(log.length());
        }
        (folder, path, entries, ends)
    }

    #[test]
    fn entries_come_back_and_more_can_be_added() {
        let (folder, path, mut entries, _) = written();
        assert_eq!(read(&path).unwrap().unwrap(), entries);
        let mut log: Log<String> = Log::open(&path, |_| {}).unwrap().unwrap();
        log.append(&"more".to_owned(), false).unwrap();
        entries.push("more".into());
        assert_eq!(read(&path).unwrap().unwrap(), entries);
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(folder.path().read_dir().unwrap().count(), 1, "no file is left behind");
        assert!(read(&folder.path().join("other")).unwrap().is_none());
    }

    #[test]
    fn a_file_that_is_cut_anywhere_has_all_entries_before_the_cut_and_can_be_added_to() {
        let (_folder, path, entries, ends) = written();
        let whole = fs::read(&path).unwrap();
        let first = ends[0] - (HEAD + 2) as u64;
        for cut in (first..whole.len() as u64)
            .rev()
            .filter(|cut| *cut % 7 == 0 || *cut < first + 40)
        {
            fs::write(&path, &whole[..cut as usize]).unwrap();
            let kept = ends.iter().filter(|end| **end <= cut).count();
            let mut log: Log<String> = Log::open(&path, |_| {}).unwrap().unwrap();
            log.append(&"again".to_owned(), false).unwrap();
            let mut expected = entries[..kept].to_vec();
            expected.push("again".into());
            assert_eq!(read(&path).unwrap().unwrap(), expected, "cut at {cut}");
        }
        // Zeros where the last entry was to be.
        let mut zeros = whole[..ends[2] as usize].to_vec();
        zeros.extend([0; 100]);
        fs::write(&path, zeros).unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), entries[..3]);
    }

    #[test]
    fn damage_before_the_last_entry_makes_the_whole_file_say_nothing() {
        let (_folder, path, entries, ends) = written();
        let whole = fs::read(&path).unwrap();
        for at in (0..ends[2] as usize).step_by(3) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x41;
            fs::write(&path, &damaged).unwrap();
            assert!(read(&path).is_err(), "at {at}");
        }
        // In the last one, it is as if that had been cut.
        let mut damaged = whole.clone();
        *damaged.last_mut().unwrap() ^= 1;
        fs::write(&path, &damaged).unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), entries[..3]);
        for garbage in [&b""[..], b"{}", &[0xff; 200]] {
            fs::write(&path, garbage).unwrap();
            assert!(read(&path).is_err());
        }
    }

    #[test]
    fn a_file_of_another_version_or_that_others_could_write_to_is_not_believed() {
        let (_folder, path, ..) = written();
        let mut bytes = frame(&"plue-runner state 0, 0.0.1");
        bytes.extend(frame(&"entry"));
        fs::write(&path, bytes).unwrap();
        assert!(matches!(read(&path), Err(Unreadable::Version)));
        fs::remove_file(&path).unwrap();
        let (_other, open, ..) = written();
        let anybody = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        fs::set_permissions(&open, anybody).unwrap();
        assert!(matches!(read(&open), Err(Unreadable::NotOurs)));
    }
}
