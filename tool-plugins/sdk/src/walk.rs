//! A walk through a folder and all below it, in order of paths.

use wasip2::filesystem::types::ErrorCode;

use crate::{Entries, FileKind, Folder, quote};

/// Most folders that are open at once. A deeper one is opened again when the walk comes back to it.
const OPEN_FOLDERS: usize = 24;

/// Longest path that is opened in one step, in bytes: the kernel takes 4096 with the end.
const OPEN_PATH: usize = 4000;

/// Everything below a folder: a folder before what is in it, siblings by name. Symbolic links are shown and not
/// followed, so it ends. Memory is bounded by the names of the folders on the way down, and there is no recursion, so
/// that no depth is too deep.
pub struct Walk<Keep> {
    root: Folder,
    keep: Keep,
    /// The folders from the root to where the walk is.
    stack: Vec<Level>,
    /// Where the walk is, relative to the root.
    path: String,
    /// The last item was a folder, and the walk goes into it next.
    enter: bool,
    /// What could not be shown.
    pub problems: WalkProblems,
}

struct Level {
    /// `None` for the root, and for one that was closed because too many are open.
    folder: Option<Folder>,
    entries: Entries,
    /// How much of the path leads here.
    path_length: usize,
}

/// What a walk left out.
#[derive(Default)]
pub struct WalkProblems {
    /// Entries whose names are not Unicode.
    pub unnameable: u64,
    /// Entries beyond what is taken from one folder.
    pub left_out: u64,
    /// Files and folders that could not be opened or read.
    pub unreadable: u64,
    /// The first of them, with the reason.
    pub first_unreadable: Option<String>,
}

impl WalkProblems {
    /// Counts a file or folder that could not be read.
    pub fn unreadable(&mut self, path: &str, reason: &str) {
        self.unreadable += 1;
        if self.first_unreadable.is_none() {
            self.first_unreadable = Some(format!("{}: {reason}", quote(path)));
        }
    }

    /// One sentence for each kind of thing that was left out.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.unnameable > 0 {
            notes.push(format!(
                "{} entries have names that are not UTF-8 and were left out.",
                self.unnameable
            ));
        }
        if self.left_out > 0 {
            notes.push(format!(
                "{} entries of very large folders were left out.",
                self.left_out
            ));
        }
        if let Some(first) = &self.first_unreadable {
            notes.push(format!(
                "{} files or folders could not be read; the first is {first}.",
                self.unreadable
            ));
        }
        notes
    }
}

/// One thing that the walk came to.
pub struct Item<'a> {
    /// Relative to where the walk began.
    pub path: &'a str,
    /// The last part of the path.
    pub name: &'a str,
    pub kind: FileKind,
    /// The folder that it is in.
    pub parent: &'a Folder,
}

impl<Keep: Fn(&str) -> bool> Walk<Keep> {
    /// Begins at a folder. What `keep` refuses by its name is neither shown nor entered.
    ///
    /// # Errors
    /// When the folder itself cannot be listed.
    pub(crate) fn new(root: Folder, keep: Keep) -> Result<Self, ErrorCode> {
        let entries = root.entries(&keep)?;
        let mut problems = WalkProblems::default();
        problems.unnameable += entries.unnameable;
        problems.left_out += entries.left_out;
        let stack = vec![Level {
            folder: None,
            entries,
            path_length: 0,
        }];
        Ok(Self {
            root,
            keep,
            stack,
            path: String::new(),
            enter: false,
            problems,
        })
    }

    /// Does not go into the folder that was shown last.
    pub fn skip_folder(&mut self) {
        self.enter = false;
    }

    /// How many entries are left in the folder that the walk is in.
    pub fn siblings_left(&self) -> usize {
        self.stack.last().map_or(0, |level| level.entries.len())
    }

    /// The next one, or `None` at the end.
    pub fn next_item(&mut self) -> Option<Item<'_>> {
        if std::mem::take(&mut self.enter) {
            self.descend();
        }
        loop {
            let level = self.stack.last_mut()?;
            self.path.truncate(level.path_length);
            let Some((name, kind)) = level.entries.pop() else {
                self.stack.pop();
                continue;
            };
            if !self.path.is_empty() {
                self.path.push('/');
            }
            let name_start = self.path.len();
            self.path.push_str(name);
            if let Err(code) = self.open_last() {
                self.problems.unreadable(&self.path, code.message());
                // What is left here cannot be reached.
                self.stack.pop();
                continue;
            }
            self.enter = kind == FileKind::Folder;
            let parent = self
                .stack
                .last()
                .and_then(|level| level.folder.as_ref())
                .unwrap_or(&self.root);
            return Some(Item {
                path: &self.path,
                name: &self.path[name_start..],
                kind,
                parent,
            });
        }
    }

    /// Goes into the folder that the path names.
    fn descend(&mut self) {
        let name_start = self.stack.last().map_or(0, |level| level.path_length);
        let name = self.path[name_start..].trim_start_matches('/');
        let parent = self
            .stack
            .last()
            .and_then(|level| level.folder.as_ref())
            .unwrap_or(&self.root);
        let opened = parent.open_folder(name).and_then(|folder| {
            let entries = folder.entries(&self.keep)?;
            Ok((folder, entries))
        });
        match opened {
            Ok((folder, entries)) => {
                self.problems.unnameable += entries.unnameable;
                self.problems.left_out += entries.left_out;
                if entries.is_empty() {
                    return;
                }
                self.stack.push(Level {
                    folder: Some(folder),
                    entries,
                    path_length: self.path.len(),
                });
                self.close_one();
            }
            // Gone since its parent was listed.
            Err(ErrorCode::NoEntry) => {}
            Err(code) => self.problems.unreadable(&self.path, code.message()),
        }
    }

    /// Keeps the number of open folders down: the one that is needed last is closed.
    fn close_one(&mut self) {
        if let Some(depth) = self.stack.len().checked_sub(OPEN_FOLDERS + 1)
            && let Some(level) = self.stack.get_mut(depth)
            && level.path_length > 0
        {
            level.folder = None;
        }
    }

    /// Makes sure that the folder the walk is in is open, when it was closed for the sake of deeper ones.
    fn open_last(&mut self) -> Result<(), ErrorCode> {
        let Some(level) = self.stack.last() else { return Ok(()) };
        if level.folder.is_some() || level.path_length == 0 {
            return Ok(());
        }
        let target = &self.path[..level.path_length];
        let nearest = self
            .stack
            .iter()
            .rev()
            .find_map(|level| Some((level.folder.as_ref()?, level.path_length)));
        let (mut from, mut done) = nearest.unwrap_or((&self.root, 0));
        let mut opened;
        while done < target.len() {
            let step = next_step(&target[done..]);
            done += step.len();
            opened = from.open_folder(step.trim_matches('/'))?;
            if done >= target.len() {
                if let Some(level) = self.stack.last_mut() {
                    level.folder = Some(opened);
                }
                return Ok(());
            }
            from = &opened;
        }
        Ok(())
    }
}

/// As much of a path as can be opened at once, cut before a `/`.
fn next_step(path: &str) -> &str {
    if path.len() <= OPEN_PATH {
        return path;
    }
    let bytes = path.as_bytes();
    let cut = (1..=OPEN_PATH).rev().find(|&at| bytes.get(at) == Some(&b'/'));
    cut.map_or(path, |at| &path[..at])
}

#[cfg(test)]
mod tests {
    use super::next_step;

    #[test]
    fn a_long_path_is_opened_in_steps_that_the_kernel_takes() {
        let path = ["folder"; 3000].join("/");
        let mut rest = path.as_str();
        let mut steps = 0;
        while !rest.is_empty() {
            let step = next_step(rest);
            assert!(step.len() <= super::OPEN_PATH && !step.ends_with('/'));
            rest = &rest[step.len()..];
            steps += 1;
        }
        assert_eq!(steps, 6);
    }
}
