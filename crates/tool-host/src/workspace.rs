//! The host's side of `plue:tool/workspace`: what `wasi:filesystem` cannot do, replacing a file at once without losing
//! its permission bits.

use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};

use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt, Permissions, PermissionsExt};

use super::bindings::{ToolError, workspace};
use super::state::CallState;

/// As many symbolic links as Linux follows in one path (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// Read, write and execute for everybody; set-user-id, set-group-id and sticky are never carried over.
const PERMISSION_BITS: u32 = 0o777;

impl workspace::Host for CallState {
    fn replace_file(&mut self, path: String, content: Vec<u8>) -> wasmtime::Result<Result<(), workspace::ToolError>> {
        let Some(root) = &self.grants.workspace else {
            return Ok(Err(ToolError::Denied(
                "the workspace is not open to this call".to_owned(),
            )));
        };
        let replaced = Dir::open_ambient_dir(&root.named, ambient_authority())
            .map_err(|error| ToolError::Failed(format!("the workspace cannot be opened: {}", error.kind())))
            .and_then(|root| replace(&root, Path::new(&path), &content));
        Ok(replaced)
    }
}

fn replace(root: &Dir, path: &Path, content: &[u8]) -> Result<(), ToolError> {
    let refuse = |error: io::Error| tool_error(path, &error);
    let target = follow(root, path)?;
    let (parent, name) = match (target.parent(), target.file_name()) {
        (Some(parent), Some(name)) => (parent, name),
        _ => {
            return Err(ToolError::Denied(format!(
                "{}: is a directory, not a file",
                path.display()
            )));
        }
    };
    let parent = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    };
    let directory = root.open_dir(parent).map_err(refuse)?;
    let mode = match directory.symlink_metadata(name) {
        Ok(metadata) if metadata.is_file() => Some(metadata.permissions().mode() & PERMISSION_BITS),
        Ok(_) => return Err(ToolError::Denied(format!("{}: is not a regular file", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(refuse(error)),
    };
    let mut temporary = Temporary::new(&directory).map_err(refuse)?;
    temporary.file.write_all(content).map_err(refuse)?;
    if let Some(mode) = mode {
        temporary
            .file
            .set_permissions(Permissions::from_mode(mode))
            .map_err(refuse)?;
    }
    temporary.persist(name).map_err(refuse)
}

/// Follows the links in the last part of a path. The folders above are resolved by cap-std when they are opened, and
/// never lead outside.
fn follow(root: &Dir, path: &Path) -> Result<PathBuf, ToolError> {
    let mut target = path.to_owned();
    // A link of this way ends in `/`: what it leads to must be a folder, however many links come behind it.
    let mut only_folder = false;
    for _ in 0..MAX_LINKS {
        match target.components().next_back() {
            Some(Component::Normal(_)) => {}
            Some(Component::RootDir | Component::Prefix(_)) => return Err(outside(path)),
            _ => {
                return Err(ToolError::Denied(format!(
                    "{}: is a directory, not a file",
                    path.display()
                )));
            }
        }
        match root.symlink_metadata(&target) {
            Ok(metadata) if metadata.is_symlink() => {
                // cap-std refuses to read a link that is absolute, since it leads outside.
                let link = root.read_link(&target).map_err(|error| tool_error(path, &error))?;
                only_folder |= names_a_folder(&link);
                target = target.parent().unwrap_or(Path::new("")).join(link);
            }
            Ok(_) if only_folder => return Err(tool_error(path, &io::ErrorKind::NotADirectory.into())),
            Ok(_) => return Ok(target),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !only_folder => return Ok(target),
            Err(error) => return Err(tool_error(path, &error)),
        }
    }
    Err(ToolError::Failed(format!(
        "{}: too many symbolic links",
        path.display()
    )))
}

/// Whether the text of a link says that it leads to a folder.
fn names_a_folder(link: &Path) -> bool {
    let text = link.as_os_str().as_encoded_bytes();
    text.ends_with(b"/") || text.ends_with(b"/.")
}

/// The new content under a name of its own, until it takes the place of the old. Removed when that does not happen.
///
/// Not `cap-tempfile`: where there is no `O_TMPFILE`, as in gVisor, its names have no dot in front.
struct Temporary<'a> {
    directory: &'a Dir,
    name: String,
    file: cap_std::fs::File,
    persisted: bool,
}

impl<'a> Temporary<'a> {
    fn new(directory: &'a Dir) -> io::Result<Self> {
        let random = getrandom::u64().map_err(io::Error::other)?;
        // A dot in front: `list_files` and globs of a command that runs meanwhile do not show it.
        let name = format!(".plue-{random:016x}.tmp");
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o666);
        let file = directory.open_with(&name, &options)?;
        Ok(Self {
            directory,
            name,
            file,
            persisted: false,
        })
    }

    fn persist(mut self, name: &std::ffi::OsStr) -> io::Result<()> {
        self.directory.rename(&self.name, self.directory, name)?;
        self.persisted = true;
        Ok(())
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.persisted
            && let Err(error) = self.directory.remove_file(&self.name)
        {
            tracing::warn!("a temporary file could not be removed from the workspace: {error}");
        }
    }
}

fn outside(path: &Path) -> ToolError {
    ToolError::Denied(format!("{}: leads outside of the workspace", path.display()))
}

/// Says an error in terms of the workspace.
fn tool_error(path: &Path, error: &io::Error) -> ToolError {
    let path_text = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => ToolError::NotFound(format!("{path_text}: the directory does not exist")),
        io::ErrorKind::NotADirectory => {
            ToolError::NotFound(format!("{path_text}: a part of the path is a file, not a directory"))
        }
        // cap-std says an attempt to leave with PermissionDenied and no number; the kernel's refusals have one.
        io::ErrorKind::PermissionDenied if error.raw_os_error().is_none() => outside(path),
        io::ErrorKind::PermissionDenied => ToolError::Denied(format!(
            "{path_text}: the permissions of the file or its directory do not allow it"
        )),
        kind => ToolError::Failed(format!("{path_text}: {kind}")),
    }
}
