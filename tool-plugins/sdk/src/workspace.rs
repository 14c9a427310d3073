//! The workspace: the only folder that a tool can see.

use wasip2::filesystem::types::{Descriptor, DescriptorFlags, DescriptorType, ErrorCode, OpenFlags, PathFlags};
use wasip2::io::streams::StreamError;

use crate::error::{is_folder, is_special, refused};
use crate::{File, Folder, ToolError, Walk, WorkspacePath, bindings, quote};

/// Where the workspace is when the runner does not say.
const DEFAULT_ROOT: &str = "/workspace";

/// The runner's words for where the workspace is (`wit/tool.wit`): as the operator wrote it, and without links.
const ROOT_VARIABLES: [&str; 2] = ["PLUE_WORKSPACE", "PLUE_WORKSPACE_REAL"];

/// What one write to a stream may carry without asking, in bytes (`wasi:io/streams`).
const WRITE_SIZE: usize = 4096;

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    File,
    Folder,
    Link,
    /// A FIFO, a socket, a device: never to be opened.
    Special,
}

impl FileKind {
    pub(crate) fn of(kind: DescriptorType) -> Self {
        match kind {
            DescriptorType::RegularFile => Self::File,
            DescriptorType::Directory => Self::Folder,
            DescriptorType::SymbolicLink => Self::Link,
            _ => Self::Special,
        }
    }
}

/// What is known of a path without opening it.
#[derive(Clone, Copy, Debug)]
pub struct Stat {
    pub kind: FileKind,
    /// In bytes.
    pub size: u64,
}

/// The workspace, through the descriptor that the runner granted. `wasi:filesystem` is used directly, every path
/// relative to that descriptor: the standard library would look for the right preopen, and stat, on each call.
pub struct Workspace {
    root: Descriptor,
}

impl Workspace {
    pub(crate) fn open() -> Result<Self, ToolError> {
        match wasip2::filesystem::preopens::get_directories().into_iter().next() {
            Some((root, _name)) => Ok(Self { root }),
            None => Err(ToolError::Denied("This tool was not given the workspace.".into())),
        }
    }

    /// Takes a path that the model wrote. See [`WorkspacePath::new`].
    ///
    /// # Errors
    /// `invalid-input` or `denied`.
    pub fn path(&self, path: &str) -> Result<WorkspacePath, ToolError> {
        // Only an absolute path asks where the workspace is.
        if !path.starts_with('/') {
            return WorkspacePath::new(path, DEFAULT_ROOT);
        }
        let variables = wasip2::cli::environment::get_environment();
        let roots = ROOT_VARIABLES.map(|wanted| {
            let found = variables.iter().find(|(name, _)| name == wanted);
            found.map(|(_, root)| root.as_str())
        });
        let named = WorkspacePath::new(path, roots[0].unwrap_or(DEFAULT_ROOT));
        match (named, roots[1]) {
            // A refusal speaks of the name that the model was told.
            (Err(refused), Some(real)) => WorkspacePath::new(path, real).map_err(|_| refused),
            (named, _) => named,
        }
    }

    /// What is at the path, links followed.
    ///
    /// # Errors
    /// `not-found`, or `denied` when it leads out of the workspace.
    pub fn stat(&self, path: &WorkspacePath) -> Result<Stat, ToolError> {
        let stat = self
            .root
            .stat_at(PathFlags::SYMLINK_FOLLOW, path.for_open())
            .map_err(|code| refused(code, "look at", path))?;
        let kind = FileKind::of(stat.type_);
        if path.is_folder_only() && kind != FileKind::Folder {
            return Err(refused(ErrorCode::NotDirectory, "look at", path));
        }
        Ok(Stat { kind, size: stat.size })
    }

    /// Opens a regular file for reading. It looks first: opening a FIFO waits for a writer, and a device may do
    /// anything.
    ///
    /// # Errors
    /// `not-found`, `denied`, or `invalid-input` for a folder.
    pub fn open_file(&self, path: &WorkspacePath) -> Result<File, ToolError> {
        let stat = self.stat(path)?;
        only_a_file(stat.kind, path)?;
        let descriptor = self
            .root
            .open_at(
                PathFlags::SYMLINK_FOLLOW,
                path.for_open(),
                OpenFlags::empty(),
                DescriptorFlags::READ,
            )
            .map_err(|code| refused(code, "read", path))?;
        Ok(File::new(descriptor, path.to_string(), stat.size))
    }

    /// Opens a folder.
    ///
    /// # Errors
    /// `not-found` or `denied`; `invalid-input` when it is no folder.
    pub fn open_folder(&self, path: &WorkspacePath) -> Result<Folder, ToolError> {
        // The host does not hand on to the kernel that a folder is wanted: it would open a FIFO, and wait.
        if self.stat(path)?.kind != FileKind::Folder {
            return Err(ToolError::InvalidInput(format!("{path} is not a folder.")));
        }
        self.root
            .open_at(
                PathFlags::SYMLINK_FOLLOW,
                path.for_open(),
                OpenFlags::DIRECTORY,
                DescriptorFlags::READ,
            )
            .map(Folder::new)
            .map_err(|code| refused(code, "open", path))
    }

    /// Begins a walk at a folder. What `keep` refuses by its name is neither shown nor entered.
    ///
    /// # Errors
    /// As for [`Workspace::open_folder`], and when the folder cannot be listed.
    pub fn walk<Keep: Fn(&str) -> bool>(&self, path: &WorkspacePath, keep: Keep) -> Result<Walk<Keep>, ToolError> {
        Walk::new(self.open_folder(path)?, keep).map_err(|code| refused(code, "list", path))
    }

    /// Creates the folders that the path lies in, as far as they do not exist, and then writes. When either fails, the
    /// new folders are removed again.
    ///
    /// # Errors
    /// What `write` says; `not-found` when a part of the path is a file; `denied`; `invalid-input` when the path ends
    /// at a folder.
    pub fn write_with_parents(
        &self,
        path: &WorkspacePath,
        write: impl FnOnce() -> Result<(), ToolError>,
    ) -> Result<(), ToolError> {
        let mut created = Vec::new();
        let written = self.create_parents(path, &mut created).and_then(|()| write());
        if written.is_err() {
            for folder in created.into_iter().rev() {
                // One that somebody has put something into meanwhile is not empty, and stays.
                let _ = self.root.remove_directory_at(folder);
            }
        }
        written
    }

    fn create_parents<'a>(&self, path: &'a WorkspacePath, created: &mut Vec<&'a str>) -> Result<(), ToolError> {
        for folder in self.missing_parents(path)? {
            match self.root.create_directory_at(folder) {
                Ok(()) => created.push(folder),
                Err(ErrorCode::Exist) => {}
                Err(code) => return Err(refused(code, "create", &quote(folder))),
            }
        }
        Ok(())
    }

    /// The folders on the way that do not exist, the outer before the inner, each by the beginning of the path. Follows
    /// the path to its end as if they were there, so that one that leaves the workspace behind them is refused too.
    fn missing_parents<'a>(&self, path: &'a WorkspacePath) -> Result<Vec<&'a str>, ToolError> {
        let text = path.as_str();
        let mut missing = Vec::new();
        // Where the path leads: a place that exists, and how far below it what does not.
        let (mut place, mut below) = (String::new(), 0_usize);
        let ends = text.match_indices('/').map(|(end, _)| end);
        let mut start = 0;
        for end in ends.chain([text.len()]) {
            let part = &text[start..end];
            start = end + 1;
            let is_last = end == text.len();
            if below > 0 {
                if part == ".." {
                    below -= 1;
                } else {
                    below += 1;
                    if !is_last {
                        missing.push(&text[..end]);
                    }
                }
                continue;
            }
            let length = place.len();
            if !place.is_empty() {
                place.push('/');
            }
            place.push_str(part);
            match self.root.stat_at(PathFlags::SYMLINK_FOLLOW, &place) {
                Ok(stat) if is_last => only_a_file(FileKind::of(stat.type_), path)?,
                Ok(stat) if stat.type_ == DescriptorType::Directory => {}
                Ok(_) => return Err(refused(ErrorCode::NotDirectory, "create", &quote(&text[..end]))),
                Err(ErrorCode::NoEntry) => {
                    place.truncate(length);
                    below = 1;
                    if !is_last {
                        missing.push(&text[..end]);
                    }
                }
                Err(code) => return Err(refused(code, "write", path)),
            }
        }
        if path.ends_in_parent() {
            return Err(is_folder(path));
        }
        Ok(missing)
    }

    /// Gives a file new content, all at once; creates it when it is not there. Its permissions stay. The folder must
    /// exist. Needs a manifest that grants `read-write`.
    ///
    /// # Errors
    /// `not-found`, `denied`, `failed`; `invalid-input` for a folder.
    pub fn replace_file(&self, path: &WorkspacePath, content: &[u8]) -> Result<(), ToolError> {
        self.only_a_file_to_write(path)?;
        bindings::plue::tool::workspace::replace_file(path.for_open(), content)
    }

    /// Adds to the end of a file, also when another does so at the same time; creates it when it is not there. The
    /// folder must exist. Needs a manifest that grants `read-write`.
    ///
    /// # Errors
    /// `not-found`, `denied`, `failed`; `invalid-input` for a folder.
    pub fn append_file(&self, path: &WorkspacePath, content: &[u8]) -> Result<(), ToolError> {
        self.only_a_file_to_write(path)?;
        let descriptor = self
            .root
            .open_at(
                PathFlags::SYMLINK_FOLLOW,
                path.for_open(),
                OpenFlags::CREATE,
                DescriptorFlags::WRITE,
            )
            .map_err(|code| refused(code, "write", path))?;
        let stream = descriptor
            .append_via_stream()
            .map_err(|code| refused(code, "write", path))?;
        for piece in content.chunks(WRITE_SIZE) {
            stream.blocking_write_and_flush(piece).map_err(|error| match error {
                StreamError::Closed => ToolError::Failed(format!("Cannot write {path}: it was closed.")),
                StreamError::LastOperationFailed(error) => {
                    let code = wasip2::filesystem::types::filesystem_error_code(&error).unwrap_or(ErrorCode::Io);
                    refused(code, "write", path)
                }
            })?;
        }
        Ok(())
    }

    /// Refuses what is there and no regular file. Nothing there is fine.
    fn only_a_file_to_write(&self, path: &WorkspacePath) -> Result<(), ToolError> {
        match self.stat(path) {
            Ok(stat) => only_a_file(stat.kind, path),
            // What ends in `/` can only be a folder, and here it is a file, or nothing.
            Err(ToolError::NotFound(_)) if path.is_folder_only() => Err(ToolError::InvalidInput(format!(
                "There is no folder {path}, and a path that ends in / names a folder. To write a file, leave out the /."
            ))),
            Err(ToolError::NotFound(_)) if path.ends_in_parent() => Err(is_folder(path)),
            Err(ToolError::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn only_a_file(kind: FileKind, path: &WorkspacePath) -> Result<(), ToolError> {
    match kind {
        FileKind::File => Ok(()),
        FileKind::Folder => Err(is_folder(path)),
        FileKind::Link | FileKind::Special => Err(is_special(path)),
    }
}
