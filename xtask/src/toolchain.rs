//! Where the compiler for the components comes from: rustup, or Debian's packages where rustup cannot download.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::debian;
use crate::layout::Layout;
use crate::process::{self, Run};

/// The target of every component.
pub const TARGET: &str = "wasm32-wasip2";

/// How long rustup may try to download the target (20 MB) before we take it that it cannot.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(300);

/// What a developer asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Choice {
    /// rustup's target, and Debian's packages when rustup cannot have it
    #[default]
    Auto,
    /// rustup's target or an error
    Rustup,
    /// Debian's compiler, sources of the standard library and wasi-libc, or an error
    Debian,
}

impl Choice {
    /// What the command line calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Rustup => "rustup",
            Self::Debian => "debian",
        }
    }
}

/// A compiler for the components that is ready to be used.
pub enum Toolchain {
    /// The Rust of this machine, with its standard library for the target.
    Rustup,
    /// Debian's Rust, which builds the standard library for the target from source.
    Debian(debian::Toolchain),
}

impl Toolchain {
    /// Makes the chosen one ready, downloading what is missing, and says which it is.
    pub fn prepare(layout: &Layout, choice: Choice) -> Result<Self> {
        let why_not_rustup = match choice {
            Choice::Debian => None,
            Choice::Rustup | Choice::Auto => match add_target(layout, TARGET) {
                Ok(()) => {
                    process::note(&format!("compiler for the components: rustup's target {TARGET}"));
                    return Ok(Self::Rustup);
                }
                Err(error) if choice == Choice::Rustup => return Err(error),
                Err(error) => Some(error),
            },
        };
        if let Some(error) = &why_not_rustup {
            process::note(&format!("rustup cannot have the target {TARGET} here: {error:#}"));
        }
        let debian = debian::Toolchain::prepare(layout, TARGET).with_context(|| match why_not_rustup {
            None => format!("no compiler for {TARGET} from Debian's packages"),
            Some(error) => {
                format!("no compiler for {TARGET}: neither from rustup ({error:#}) nor from Debian's packages")
            }
        })?;
        process::note(&format!(
            "compiler for the components: Debian's {}, standard library built from source",
            debian.version()
        ));
        Ok(Self::Debian(debian))
    }

    /// What one asks for to have this one.
    pub fn choice(&self) -> Choice {
        match self {
            Self::Rustup => Choice::Rustup,
            Self::Debian(_) => Choice::Debian,
        }
    }

    /// The name of the way, as `--toolchain` takes it.
    pub fn name(&self) -> &'static str {
        self.choice().name()
    }

    /// A `cargo build` for the target in the workspace of the components.
    pub fn build(&self, layout: &Layout, purpose: &str) -> Run {
        let arguments = ["build", "--release", "--locked", "--target", TARGET];
        let folder = self.folder();
        match self {
            Self::Rustup => layout.plugins_cargo(purpose, process::cargo(), folder).args(arguments),
            Self::Debian(debian) => debian
                .configure(layout.plugins_cargo(purpose, debian::CARGO, folder), None)
                .args(arguments),
        }
    }

    /// Where a build puts the components.
    pub fn products(&self, layout: &Layout) -> PathBuf {
        layout.target.join(self.folder()).join(TARGET).join("release")
    }

    /// The two ways do not share a target folder, so that neither undoes the other's work.
    fn folder(&self) -> &'static str {
        match self {
            Self::Rustup => "plugins/rustup",
            Self::Debian(_) => "plugins/debian",
        }
    }
}

/// Whether the target's standard library is there; asks no network.
pub fn has_target(target: &str) -> bool {
    let folder = Run::new("asking where the target's library is", "rustc")
        .args(["--print", "target-libdir", "--target", target])
        .read();
    folder.is_ok_and(|folder| Path::new(folder.trim()).is_dir())
}

/// Has rustup download the target unless it is there.
pub fn add_target(layout: &Layout, target: &str) -> Result<()> {
    if has_target(target) {
        return Ok(());
    }
    Run::new(format!("downloading the target {target}"), "rustup")
        .args(["target", "add", target])
        .limit(DOWNLOAD_LIMIT)
        .quiet(&layout.log("rustup-target"))
}
