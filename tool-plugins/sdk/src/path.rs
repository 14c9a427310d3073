//! The rules for paths, in one place.

use std::fmt;

use crate::{ToolError, quote};

/// Longest path that a message repeats whole, in bytes.
const SHOWN_PATH: usize = 300;

/// The longest path, in bytes: what Linux takes in one call, without the end. Said here, since a host without openat2
/// goes part by part and would take more.
const MAX_PATH: usize = 4095;

/// A path within the workspace, as far as its text can say so: it is relative, holds no NUL, and does not begin with
/// `..`. What symbolic links, or a `..` behind one, make of it is decided when it is opened, by the kernel, which
/// refuses every path that leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkspacePath {
    /// Relative, without empty and `.` parts; empty for the workspace itself.
    relative: String,
    /// It ended in `/`, so only a folder will do.
    folder_only: bool,
}

impl WorkspacePath {
    /// Takes what a model wrote: relative to the workspace, or absolute under `root`, by which the model knows it.
    ///
    /// # Errors
    /// `invalid-input` for a path that is empty, too long, or has a NUL; `denied` for one that leaves the workspace.
    pub fn new(path: &str, root: &str) -> Result<Self, ToolError> {
        if path.is_empty() {
            return Err(ToolError::InvalidInput(
                "The path is empty. The workspace itself is \".\".".into(),
            ));
        }
        if path.contains('\0') {
            return Err(ToolError::InvalidInput(format!(
                "The path {} contains a NUL character.",
                shown(path)
            )));
        }
        let mut parts = path.split('/').filter(|part| !part.is_empty() && *part != ".");
        if path.starts_with('/') {
            for expected in root.split('/').filter(|part| !part.is_empty() && *part != ".") {
                if parts.next() != Some(expected) {
                    return Err(outside(path, root));
                }
            }
        }
        let mut relative = String::with_capacity(path.len());
        for part in parts {
            if relative.is_empty() && part == ".." {
                return Err(outside(path, root));
            }
            if !relative.is_empty() {
                relative.push('/');
            }
            relative.push_str(part);
        }
        if relative.len() > MAX_PATH {
            return Err(ToolError::InvalidInput(format!(
                "The path {} is too long.",
                shown(&relative)
            )));
        }
        let folder_only = path.ends_with('/') || path.ends_with("/.");
        Ok(Self { relative, folder_only })
    }

    /// Relative to the workspace; empty for the workspace itself.
    pub fn as_str(&self) -> &str {
        &self.relative
    }

    /// As `wasi:filesystem` wants it: never empty.
    pub(crate) fn for_open(&self) -> &str {
        if self.relative.is_empty() { "." } else { &self.relative }
    }

    /// Whether the path was written with a `/` at its end.
    pub fn is_folder_only(&self) -> bool {
        self.folder_only
    }

    /// Whether the last part is `..`, which is a folder wherever it leads.
    pub(crate) fn ends_in_parent(&self) -> bool {
        self.relative.rsplit('/').next() == Some("..")
    }

    /// What a walk from here found at a path relative to this one.
    pub fn join(&self, below: &str) -> Self {
        let mut relative = self.relative.clone();
        if !relative.is_empty() {
            relative.push('/');
        }
        relative.push_str(below);
        Self {
            relative,
            folder_only: false,
        }
    }
}

/// The workspace itself, for `#[serde(default = "…")]` of an input's path.
pub fn whole_workspace() -> String {
    ".".to_owned()
}

impl fmt::Display for WorkspacePath {
    /// As messages show it: quoted where its characters need it, and not longer than a message may be.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(self.for_open()))
    }
}

fn outside(path: &str, root: &str) -> ToolError {
    ToolError::Denied(format!(
        "{} is not in the workspace. Paths are relative to the workspace, or absolute under {root}.",
        shown(path)
    ))
}

fn shown(path: &str) -> String {
    if path.len() <= SHOWN_PATH {
        return quote(path).into_owned();
    }
    let mut end = SHOWN_PATH;
    while !path.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}… ({} bytes long)", quote(&path[..end]), path.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_taken_when_it_is_in_the_workspace() {
        for (path, relative) in [
            ("a", "a"),
            ("a/b", "a/b"),
            (".", ""),
            ("./", ""),
            ("././a//b/./c", "a/b/c"),
            ("-rf", "-rf"),
            ("with space/ü", "with space/ü"),
            ("...", "..."),
            ("a/../b", "a/../b"),
            ("/workspace", ""),
            ("/workspace/", ""),
            ("/workspace/a/b", "a/b"),
            ("//workspace//./a", "a"),
            ("workspace/a", "workspace/a"),
        ] {
            let taken = WorkspacePath::new(path, "/workspace").map(|path| path.relative);
            assert_eq!(taken.ok().as_deref(), Some(relative), "{path}");
        }
    }

    #[test]
    fn a_path_is_refused_when_it_is_not() {
        for path in [
            "..",
            "../a",
            "./../a",
            "/",
            "/etc/passwd",
            "/workspace-evil/a",
            "/work",
            "/workspace/../etc",
            "/workspace/..",
            "/../workspace/a",
            "/./..",
        ] {
            let refused = WorkspacePath::new(path, "/workspace");
            assert!(matches!(refused, Err(ToolError::Denied(_))), "{path}: {refused:?}");
        }
        for path in ["", "\0", "a\0b", "a\0"] {
            let refused = WorkspacePath::new(path, "/workspace");
            assert!(
                matches!(refused, Err(ToolError::InvalidInput(_))),
                "{path:?}: {refused:?}"
            );
        }
    }

    #[test]
    fn the_workspace_may_be_anywhere() {
        for (path, root, relative) in [
            ("/tmp/x/y", "/tmp/x/", Some("y")),
            ("/tmp/x", "/tmp/x", Some("")),
            ("/workspace/y", "/tmp/x", None),
            ("/etc/hosts", "/", Some("etc/hosts")),
        ] {
            let taken = WorkspacePath::new(path, root).ok().map(|path| path.relative);
            assert_eq!(taken.as_deref(), relative, "{path} under {root}");
        }
    }

    #[test]
    fn a_slash_at_the_end_asks_for_a_folder() {
        for (path, folder_only) in [("a", false), ("a/", true), ("a/.", true), (".", false), ("./", true)] {
            assert_eq!(
                WorkspacePath::new(path, "/w").map(|path| path.folder_only),
                Ok(folder_only),
                "{path}"
            );
        }
    }

    #[test]
    fn a_message_never_grows_with_the_path() {
        let path = WorkspacePath::new(&"é".repeat(2_000), "/w").map(|path| path.to_string());
        assert!(path.is_ok_and(|path| path.len() < 400 && path.ends_with("(4000 bytes long)")));
        let refused = WorkspacePath::new(&"é".repeat(10_000), "/w");
        assert!(matches!(refused, Err(ToolError::InvalidInput(said)) if said.len() < 400));
    }
}
