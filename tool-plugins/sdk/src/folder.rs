//! A folder that was opened, and what is in it.

use wasip2::filesystem::types::{Descriptor, DescriptorFlags, ErrorCode, OpenFlags, PathFlags};

use crate::FileKind;
use crate::file::read_up_to;

/// Most names that are taken from one folder; the rest is counted out, and said.
const MAX_ENTRIES: usize = 2_000_000;

/// A folder of the workspace.
pub struct Folder {
    descriptor: Descriptor,
}

impl Folder {
    pub(crate) fn new(descriptor: Descriptor) -> Self {
        Self { descriptor }
    }

    /// Opens a folder below this one. A last part that is a symbolic link is not followed.
    pub(crate) fn open_folder(&self, path: &str) -> Result<Self, ErrorCode> {
        self.descriptor
            .open_at(PathFlags::empty(), path, OpenFlags::DIRECTORY, DescriptorFlags::READ)
            .map(Self::new)
    }

    /// The content of a file of this folder, up to `limit` bytes. The caller has seen, in the listing of this folder,
    /// that it is a regular file; a symbolic link that took its place is refused. `scratch` is a buffer to use again.
    ///
    /// # Errors
    /// What the host answered.
    pub fn read_file(&self, name: &str, limit: u64, scratch: &mut Vec<u8>) -> Result<Vec<u8>, ErrorCode> {
        let descriptor =
            self.descriptor
                .open_at(PathFlags::empty(), name, OpenFlags::empty(), DescriptorFlags::READ)?;
        read_up_to(&descriptor, limit, scratch)
    }

    /// A file of this folder, to be read piece by piece. As with [`Folder::read_file`], it is known to be regular.
    ///
    /// # Errors
    /// What the host answered.
    pub fn open_file(&self, name: &str) -> Result<crate::File, ErrorCode> {
        let descriptor =
            self.descriptor
                .open_at(PathFlags::empty(), name, OpenFlags::empty(), DescriptorFlags::READ)?;
        let size = descriptor.stat()?.size;
        Ok(crate::File::new(descriptor, crate::quote(name).into_owned(), size))
    }

    /// What is in the folder, sorted by name.
    ///
    /// # Errors
    /// What the host answered.
    pub fn entries(&self, keep: impl Fn(&str) -> bool) -> Result<Entries, ErrorCode> {
        let stream = self.descriptor.read_directory()?;
        let mut entries = Entries::default();
        loop {
            match stream.read_directory_entry() {
                Ok(Some(entry)) => {
                    if !keep(&entry.name) {
                        continue;
                    }
                    if entries.sorted.len() >= MAX_ENTRIES {
                        entries.left_out += 1;
                        continue;
                    }
                    entries.push(&entry.name, FileKind::of(entry.type_));
                }
                Ok(None) => break,
                // Gone between the listing and the look at it.
                Err(ErrorCode::NoEntry) => {}
                // `wasi:filesystem` speaks Unicode: a name that is not has no form in it.
                Err(ErrorCode::IllegalByteSequence) => entries.unnameable += 1,
                Err(code) => return Err(code),
            }
        }
        entries.sort();
        Ok(entries)
    }
}

/// The entries of a folder: all names in one piece of memory, since there may be a million.
#[derive(Default)]
pub struct Entries {
    names: String,
    /// In reverse, so that the next one is at the end.
    sorted: Vec<Entry>,
    /// How many have names that are not Unicode, and cannot be reached.
    pub unnameable: u64,
    /// How many are beyond what is taken from one folder.
    pub left_out: u64,
}

struct Entry {
    start: u32,
    length: u32,
    kind: FileKind,
}

impl Entries {
    fn push(&mut self, name: &str, kind: FileKind) {
        // A component's memory is smaller than 4 GiB.
        let (start, length) = (self.names.len() as u32, name.len() as u32);
        self.names.push_str(name);
        self.sorted.push(Entry { start, length, kind });
    }

    fn sort(&mut self) {
        let names = self.names.as_str();
        self.sorted
            .sort_unstable_by(|a, b| name_of(names, b).cmp(name_of(names, a)));
    }

    /// How many are left.
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// The next one in order.
    pub fn pop(&mut self) -> Option<(&str, FileKind)> {
        let entry = self.sorted.pop()?;
        Some((name_of(&self.names, &entry), entry.kind))
    }
}

fn name_of<'a>(names: &'a str, entry: &Entry) -> &'a str {
    &names[entry.start as usize..(entry.start + entry.length) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_in_the_order_of_their_names() {
        let mut entries = Entries::default();
        for name in ["b", "a-b", "a", "é", "B"] {
            entries.push(name, FileKind::File);
        }
        entries.sort();
        let mut names = Vec::new();
        while let Some((name, _)) = entries.pop() {
            names.push(name.to_owned());
        }
        assert_eq!(names, ["B", "a", "a-b", "b", "é"]);
    }
}
