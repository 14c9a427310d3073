//! The canary tree: what lies outside of the workspace, and a digest that notices whatever is done to it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// What is known of one entry. Access times are left out: reading is judged by what comes out.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    mode: u32,
    links: u64,
    owner: (u32, u32),
    modified: (i64, i64),
    content: Vec<u8>,
}

/// A tree as it was at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest(BTreeMap<PathBuf, Entry>);

/// Lays the tree out in a folder: files, a folder in a folder, a file that is read-only, a link. Everybody may change
/// it: it is the sandbox that is tried, and not the modes.
pub fn lay_out(folder: &Path, marker: &str) -> Result<()> {
    let lay = || -> io::Result<()> {
        fs::create_dir_all(folder.join("folder/deeper"))?;
        fs::write(folder.join("secret.txt"), format!("{marker}\n"))?;
        fs::write(folder.join("folder/inner.txt"), format!("inner {marker}\n"))?;
        fs::write(folder.join("folder/deeper/deep.txt"), format!("deep {marker}\n"))?;
        fs::write(folder.join("read-only.txt"), format!("read-only {marker}\n"))?;
        fs::set_permissions(folder.join("read-only.txt"), fs::Permissions::from_mode(0o444))?;
        fs::write(folder.join("empty"), "")?;
        for (path, mode) in [
            ("folder", 0o777),
            ("folder/deeper", 0o777),
            ("secret.txt", 0o666),
            ("folder/inner.txt", 0o666),
            ("folder/deeper/deep.txt", 0o666),
            ("empty", 0o666),
        ] {
            fs::set_permissions(folder.join(path), fs::Permissions::from_mode(mode))?;
        }
        symlink("secret.txt", folder.join("link"))
    };
    lay().with_context(|| format!("lay the canaries out in {}", folder.display()))
}

impl Digest {
    /// Of everything under `root`, and of `root` itself; under `except`, only the folder's own mode and owner.
    pub fn of(root: &Path, except: Option<&Path>) -> io::Result<Self> {
        let mut entries = BTreeMap::new();
        let mut left = vec![root.to_owned()];
        while let Some(path) = left.pop() {
            let meta = fs::symlink_metadata(&path)?;
            let kind = meta.file_type();
            let ours = Some(path.as_path()) == except;
            let content = if kind.is_file() {
                fs::read(&path)?
            } else if kind.is_symlink() {
                fs::read_link(&path)?.into_os_string().into_encoded_bytes()
            } else {
                Vec::new()
            };
            entries.insert(
                path.clone(),
                Entry {
                    mode: meta.mode(),
                    links: if ours { 0 } else { meta.nlink() },
                    owner: (meta.uid(), meta.gid()),
                    modified: if ours || kind.is_socket() {
                        (0, 0)
                    } else {
                        (meta.mtime(), meta.mtime_nsec())
                    },
                    content,
                },
            );
            if kind.is_dir() && !ours {
                for entry in fs::read_dir(&path)? {
                    left.push(entry?.path());
                }
            }
        }
        Ok(Self(entries))
    }

    /// What was done between `self` and `later`, one sentence each.
    pub fn changes(&self, later: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        for (path, before) in &self.0 {
            let shown = path.display();
            match later.0.get(path) {
                None => changes.push(format!("{shown} is gone")),
                Some(after) if after == before => {}
                Some(after) if after.content != before.content => changes.push(format!("{shown} has other content")),
                Some(after) if after.mode != before.mode || after.owner != before.owner => {
                    changes.push(format!("{shown} has another mode or owner"));
                }
                Some(after) if after.links != before.links => {
                    changes.push(format!("{shown} has another number of links"))
                }
                Some(_) => changes.push(format!("{shown} was modified")),
            }
        }
        let new = later.0.keys().filter(|path| !self.0.contains_key(*path));
        changes.extend(new.map(|path| format!("{} is new", path.display())));
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_notices_every_kind_of_change() {
        type Change = fn(&Path);
        let cases: [(Change, &str); 7] = [
            (|root| fs::write(root.join("secret.txt"), "x").unwrap(), "other content"),
            (|root| fs::write(root.join("new"), "").unwrap(), "is new"),
            (|root| fs::remove_file(root.join("empty")).unwrap(), "is gone"),
            (
                |root| fs::set_permissions(root.join("secret.txt"), fs::Permissions::from_mode(0o600)).unwrap(),
                "another mode",
            ),
            (
                |root| fs::hard_link(root.join("secret.txt"), root.join("folder/hard")).unwrap(),
                "number of links",
            ),
            (
                |root| {
                    let file = fs::File::options().write(true).open(root.join("empty")).unwrap();
                    file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
                },
                "was modified",
            ),
            (
                |root| {
                    fs::remove_file(root.join("link")).unwrap();
                    symlink("empty", root.join("link")).unwrap();
                },
                "other content",
            ),
        ];
        for (change, said) in cases {
            let folder = tempfile::tempdir().unwrap();
            lay_out(folder.path(), "marker").unwrap();
            let before = Digest::of(folder.path(), None).unwrap();
            assert_eq!(
                before.changes(&Digest::of(folder.path(), None).unwrap()),
                Vec::<String>::new()
            );
            change(folder.path());
            let changes = before.changes(&Digest::of(folder.path(), None).unwrap());
            assert!(changes.iter().any(|line| line.contains(said)), "{said}: {changes:?}");
        }
    }

    #[test]
    fn what_is_in_the_workspace_may_change_and_the_workspace_itself_may_not() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = folder.path().join("workspace");
        fs::create_dir(&workspace).unwrap();
        let digest = || Digest::of(folder.path(), Some(&workspace)).unwrap();
        let before = digest();
        fs::create_dir(workspace.join("made")).unwrap();
        assert_eq!(before, digest());
        fs::set_permissions(&workspace, fs::Permissions::from_mode(0o700)).unwrap();
        assert_ne!(before, digest());
    }
}
