//! Ahead-of-time compiled forms. A `.cwasm` is native code that runs with all the rights of the runner, so it is loaded
//! only from a plugin's folder, and only when nobody but root and we could have put it there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use super::load_error::Problem;

/// At the end of each `.cwasm`: what it is, and the sha256 of the component that it was made from. Wasmtime's own
/// header says which engine made it, and not from what.
const MAGIC: &[u8; 16] = b"plue-runner-aot1";
const TRAILER: usize = MAGIC.len() + 32;

/// How many hex digits of the digest are in the file's name.
const DIGITS: usize = 16;

/// The sha256 of a component.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct ComponentDigest([u8; 32]);

impl ComponentDigest {
    pub(crate) fn of(component: &[u8]) -> Self {
        Self(Sha256::digest(component).into())
    }

    pub(crate) fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Where the compiled form of a component is: beside it, named after it and its content.
pub(crate) fn path(component: &Path, digest: &ComponentDigest) -> PathBuf {
    let stem = component.file_stem().unwrap_or_default().to_string_lossy();
    component.with_file_name(format!("{stem}-{}.cwasm", &digest.hex()[..DIGITS]))
}

/// Loads the compiled form of a component; `None`, with a warning where one is due, when it has to be compiled anew.
/// A form that somebody else could have written is an error: it may be an attack, and it must not go unnoticed.
pub(crate) fn load(engine: &Engine, component: &Path, digest: &ComponentDigest) -> Result<Option<Component>, Problem> {
    let file = path(component, digest);
    let open = match OpenOptions::new().read(true).custom_flags(FLAGS).open(&file) {
        Ok(open) => open,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            tracing::warn!(
                component = %component.display(),
                "no compiled form of this component; compiling it now; `plue-runner plugin compile` makes one"
            );
            return Ok(None);
        }
        Err(error) => return Err(Problem::CompiledRead { file, error }),
    };
    check_owner(&file, &open)?;
    if let Err(reason) = check_trailer(&open, digest) {
        tracing::warn!(file = %file.display(), "compiling the component anew: {reason}");
        return Ok(None);
    }
    // SAFETY: the file is what `plugin compile` wrote: neither it nor its folder could be written by anyone but root
    // and the user that we run as, who could as well replace this program. Wasmtime checks that it was made by the
    // same version with the same settings for a CPU that this one covers.
    #[allow(unsafe_code)]
    let loaded = unsafe { Component::deserialize_file(engine, &file) };
    match loaded {
        Ok(component) => Ok(Some(component)),
        Err(error) => {
            tracing::warn!(file = %file.display(), "compiling the component anew: {error:#}");
            Ok(None)
        }
    }
}

/// A link is an error, and a FIFO does not make us wait.
const FLAGS: i32 = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).bits() as i32;

/// Whoever may write the file, or swap it for another one, decides what runs.
fn check_owner(file: &Path, open: &File) -> Result<(), Problem> {
    let unsafe_form = |what: &Path, why: String, remedy: String| Problem::UnsafeCompiled {
        file: what.to_owned(),
        why,
        remedy,
    };
    let folder = file.parent().unwrap_or(Path::new("."));
    let plugins = folder.parent().unwrap_or(Path::new("."));
    let metadata = open.metadata().map_err(|error| Problem::CompiledRead {
        file: file.to_owned(),
        error,
    })?;
    if !metadata.is_file() {
        let remedy = "remove it and run `plue-runner plugin compile`";
        return Err(unsafe_form(
            file,
            "it is not a regular file".to_owned(),
            remedy.to_owned(),
        ));
    }
    let mut checked = vec![(file, metadata)];
    for directory in [folder, plugins] {
        let metadata = fs::metadata(directory).map_err(|error| Problem::CompiledRead {
            file: directory.to_owned(),
            error,
        })?;
        checked.push((directory, metadata));
    }
    let us = rustix::process::geteuid().as_raw();
    for (what, metadata) in checked {
        if metadata.uid() != 0 && metadata.uid() != us {
            let why = format!(
                "it belongs to user {}, who is neither root nor the user of this process",
                metadata.uid()
            );
            let remedy = format!("`chown` it to root or to user {us}");
            return Err(unsafe_form(what, why, remedy));
        }
        if metadata.mode() & 0o022 != 0 {
            let why = format!("group or others may write it (mode {:03o})", metadata.mode() & 0o777);
            return Err(unsafe_form(what, why, "`chmod go-w` it".to_owned()));
        }
    }
    Ok(())
}

fn check_trailer(file: &File, digest: &ComponentDigest) -> Result<(), String> {
    let length = file.metadata().map_err(|error| error.to_string())?.len();
    let mut trailer = [0; TRAILER];
    let whole = length
        .checked_sub(TRAILER as u64)
        .is_some_and(|start| file.read_exact_at(&mut trailer, start).is_ok());
    if !whole || &trailer[..MAGIC.len()] != MAGIC {
        return Err("it is no compiled form, or not a whole one".to_owned());
    }
    if trailer[MAGIC.len()..] != digest.0 {
        return Err("it was made from another component".to_owned());
    }
    Ok(())
}

/// Compiles a component and writes the compiled form beside it, so that [`load`] takes it. Older forms of the component
/// are removed.
pub(crate) fn compile(engine: &Engine, component: &Path, bytes: &[u8]) -> Result<PathBuf, Problem> {
    let code = engine
        .precompile_component(bytes)
        .map_err(|error| Problem::Compile(format!("{error:#}")))?;
    let digest = ComponentDigest::of(bytes);
    let file = path(component, &digest);
    let folder = file.parent().unwrap_or(Path::new("."));
    let write = |error| Problem::CompiledWrite {
        file: file.clone(),
        error,
    };
    remove_older(component, &file).map_err(write)?;
    // Forms are only taken from folders that nobody else can write.
    for directory in [folder, folder.parent().unwrap_or(folder)] {
        close_to_others(directory).map_err(write)?;
    }
    // A name that is known, so that what a killed run left of it is removed by the next.
    let temporary = file.with_extension("cwasm.tmp");
    let written = (|| {
        let _ = fs::remove_file(&temporary);
        let mut open = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(&temporary)?;
        for part in [&code[..], MAGIC, &digest.0] {
            open.write_all(part)?;
        }
        open.set_permissions(fs::Permissions::from_mode(0o644))?;
        fs::rename(&temporary, &file)
    })();
    if let Err(error) = written {
        let _ = fs::remove_file(&temporary);
        return Err(write(error));
    }
    Ok(file)
}

fn close_to_others(directory: &Path) -> io::Result<()> {
    let mode = fs::metadata(directory)?.mode();
    if mode & 0o022 != 0 {
        fs::set_permissions(directory, fs::Permissions::from_mode(mode & 0o7755))?;
    }
    Ok(())
}

/// Removes the forms of earlier contents of the component: `NAME-<16 hex digits>.cwasm`.
fn remove_older(component: &Path, current: &Path) -> io::Result<()> {
    let prefix = format!("{}-", component.file_stem().unwrap_or_default().to_string_lossy());
    for entry in fs::read_dir(current.parent().unwrap_or(Path::new(".")))? {
        let entry = entry?;
        let name = entry.file_name();
        let digits = name
            .to_str()
            .and_then(|name| name.strip_prefix(&prefix)?.strip_suffix(".cwasm"));
        let is_form =
            digits.is_some_and(|digits| digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_hexdigit()));
        if is_form && entry.path() != current {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
