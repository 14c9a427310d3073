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

/// The longest argument, and the longest variable with its name, in bytes: 32 pages of 4 KiB, the end of the string
/// included. The kernel takes no longer one.
pub const MAX_STRING: usize = 128 * 1024 - 1;

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
    for (name, value) in &spec.env {
        if name.len() + "=".len() + value.len() > MAX_STRING {
            let problem = format!(
                "the variable {name} is longer than {MAX_STRING} bytes, which is all that the system hands to a \
                    program; \
                 put its value into a file"
            );
            return invalid(&problem);
        }
    }
    if spec.timeout.is_zero() {
        return invalid("the time limit must be longer than zero");
    }
    Ok(())
}

/// Scripts that are longer than the kernel takes an argument.
pub(super) mod long_script {
    use std::fs::File;
    use std::io::{self, Write};
    use std::path::Path;

    use super::MAX_STRING;

    /// The descriptor under which the shell finds the script.
    pub(crate) const DESCRIPTOR: i32 = 9;

    /// Programs that take a script after `-c`.
    const SHELLS: [&str; 6] = ["sh", "bash", "dash", "ash", "ksh", "zsh"];

    /// A command whose script may be in a file, and not among its arguments.
    pub(crate) struct Script {
        pub(crate) argv: Vec<String>,
        /// What the shell is to find under the descriptor that the arguments name.
        content: Option<Vec<u8>>,
    }

    impl Script {
        /// The script in a file without a name.
        pub(crate) fn file(&self) -> io::Result<Option<File>> {
            let Some(content) = &self.content else { return Ok(None) };
            let file = rustix::fs::memfd_create("script", rustix::fs::MemfdFlags::CLOEXEC)?;
            let mut file = File::from(file);
            file.write_all(content)?;
            Ok(Some(file))
        }
    }

    /// Takes the script from a shell's arguments when it is too long for one. The shell reads it by its `.`, in the
    /// same process and with the same `$0` and `$@`, from a descriptor that it closes first: the file is open by its
    /// name by then.
    ///
    /// # Errors
    /// When another argument is too long.
    pub(crate) fn take(mut argv: Vec<String>) -> io::Result<Script> {
        let Some(place) = argv.iter().position(|argument| argument.len() > MAX_STRING) else {
            return Ok(Script { argv, content: None });
        };
        if !is_script(&argv, place) || argv[place + 1..].iter().any(|argument| argument.len() > MAX_STRING) {
            return Err(io::ErrorKind::ArgumentListTooLong.into());
        }
        let call = format!(". /proc/self/fd/{DESCRIPTOR}");
        let script = std::mem::replace(&mut argv[place], call);
        let content = format!("exec {DESCRIPTOR}<&-; {script}").into_bytes();
        Ok(Script {
            argv,
            content: Some(content),
        })
    }

    /// Whether this argument is a shell's script: the first that is no option behind `-c`.
    fn is_script(argv: &[String], place: usize) -> bool {
        let program = argv.first().map(Path::new).and_then(Path::file_name);
        let is_shell = program
            .and_then(|name| name.to_str())
            .is_some_and(|name| SHELLS.contains(&name));
        let before = argv.get(1..place).unwrap_or_default();
        let is_option = |argument: &String| argument.starts_with('-');
        let takes_script = |argument: &String| !argument.starts_with("--") && argument[1..].contains('c');
        is_shell && before.iter().all(is_option) && before.iter().any(takes_script)
    }

    #[cfg(test)]
    mod tests {
        #![allow(clippy::unwrap_used)]
        use super::*;

        #[test]
        fn only_the_script_of_a_shell_is_taken_and_only_when_it_is_too_long() {
            let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
            let long = "x".repeat(MAX_STRING + 1);
            let fits = "x".repeat(MAX_STRING);
            assert!(take(words(&["/bin/sh", "-c", &fits])).unwrap().content.is_none());
            for argv in [
                &["/bin/sh", "-e", "-c", &long, "name"][..],
                &["bash", "-ec", "--", &long],
            ] {
                let script = take(words(argv)).unwrap();
                assert!(script.argv.contains(&". /proc/self/fd/9".to_owned()));
                assert!(script.content.unwrap().ends_with(long.as_bytes()));
            }
            for argv in [
                &["/bin/echo", "-c", &long][..],
                &["/bin/sh", &long],
                &["/bin/sh", "--color", &long],
                &["/bin/sh", "-c", "script", &long],
                &["/bin/sh", "-c", &long, &long],
            ] {
                let refused = take(words(argv)).map(|script| script.argv);
                assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ArgumentListTooLong);
            }
        }
    }
}

/// Says why a program could not be started.
pub(super) fn start_error(program: &str, error: &io::Error) -> StartError {
    match error.kind() {
        io::ErrorKind::NotFound => StartError::NotFound(format!("the program {program:?} was not found")),
        io::ErrorKind::PermissionDenied => StartError::Denied(format!("{program:?} may not be executed")),
        io::ErrorKind::ArgumentListTooLong => StartError::Invalid(
            "the command and its environment are longer than the system takes: put what is long into a file".into(),
        ),
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
