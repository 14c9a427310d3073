//! What is checked of a command before any sandbox starts it, and what every command finds in its environment.

use std::io;
use std::path::{Path, PathBuf};

use super::{CommandSpec, StartError};

/// Where programs are looked for. The runner's own PATH is not passed on: it is part of its environment.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The environment of every command, before HOME and what the task gives.
///
/// git takes any folder of the workspace for safe, whoever owns it: the task and its commands are one party.
pub(super) const ENVIRONMENT: [(&str, &str); 7] = [
    ("PATH", PATH),
    ("LANG", "C.UTF-8"),
    ("TERM", "dumb"),
    ("CI", "true"),
    ("GIT_CONFIG_COUNT", "1"),
    ("GIT_CONFIG_KEY_0", "safe.directory"),
    ("GIT_CONFIG_VALUE_0", "*"),
];

/// What can be refused of a command without looking at any file.
pub(super) fn check(spec: &CommandSpec) -> Result<(), StartError> {
    let invalid = |problem: &str| Err(StartError::Invalid(problem.into()));
    if spec.argv.is_empty() {
        return invalid("the command is empty: it needs a program");
    }
    let mut strings = spec.argv.iter().chain(spec.env.keys()).chain(spec.env.values());
    if strings.any(|text| text.contains('\0')) {
        return invalid("the command, or its environment, has a NUL character in it");
    }
    if spec.timeout.is_zero() {
        return invalid("the time limit must be longer than zero");
    }
    Ok(())
}

/// Says why a program could not be started.
pub(super) fn start_error(program: &str, error: &io::Error) -> StartError {
    match error.kind() {
        io::ErrorKind::NotFound => StartError::NotFound(format!("the program {program:?} was not found")),
        io::ErrorKind::PermissionDenied => StartError::Denied(format!("{program:?} may not be executed")),
        io::ErrorKind::ArgumentListTooLong => {
            StartError::Invalid("the command and its environment are longer than the system takes".into())
        }
        _ => StartError::Failed(format!("{program:?} could not be started: {error}")),
    }
}

/// The folder that commands run in or below.
#[derive(Clone, Debug)]
pub(super) struct Workspace {
    /// Without links in its path.
    pub(super) real: PathBuf,
    /// As the operator names it, which may lead through a link.
    pub(super) named: PathBuf,
}

impl Workspace {
    /// # Errors
    /// When the folder does not exist, or is no folder.
    pub(super) fn new(workspace: &Path) -> io::Result<Self> {
        let named = std::path::absolute(workspace)?;
        let real = workspace.canonicalize()?;
        if !real.is_dir() {
            return Err(io::Error::new(io::ErrorKind::NotADirectory, "it is no folder"));
        }
        Ok(Self { real, named })
    }

    /// The folder that a command runs in; links are followed as long as they stay inside of the workspace. Nothing
    /// outside is looked at, so that no answer tells what is there.
    pub(super) fn directory(&self, asked: &Path) -> Result<PathBuf, StartError> {
        let relative = [&self.real, &self.named]
            .into_iter()
            .find_map(|workspace| asked.strip_prefix(workspace).ok())
            .unwrap_or(asked);
        let relative = if relative.as_os_str().is_empty() {
            Path::new(".")
        } else {
            relative
        };
        cap_std::fs::Dir::open_ambient_dir(&self.real, cap_std::ambient_authority())
            .and_then(|workspace| workspace.open_dir(relative))
            .map_err(|error| directory_error(asked, &error))?;
        Ok(self.real.join(relative))
    }
}

/// Says why a command cannot run in a folder.
pub(super) fn directory_error(asked: &Path, error: &io::Error) -> StartError {
    let shown = asked.display();
    match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::NotFound, _) => {
            StartError::NotFound(format!("the working directory {shown} does not exist in the workspace"))
        }
        (io::ErrorKind::NotADirectory, _) => {
            StartError::NotFound(format!("the working directory {shown} is no folder"))
        }
        // cap-std's own, and not the system's: the path led out.
        (io::ErrorKind::PermissionDenied, None) => {
            StartError::Denied(format!("the working directory {shown} is outside of the workspace"))
        }
        (io::ErrorKind::PermissionDenied, _) => {
            StartError::Denied(format!("the working directory {shown} may not be entered"))
        }
        _ => StartError::Failed(format!("the working directory {shown} cannot be used: {error}")),
    }
}
