//! Where things are: the checkout, the target folder, what is shipped, and the cache outside of the checkout.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::process::{self, Run};

/// The folders that the commands work in, all absolute.
pub struct Layout {
    /// The checkout.
    pub root: PathBuf,
    /// Cargo's target folder of the main workspace, wherever the developer's configuration puts it.
    pub target: PathBuf,
    /// What is fetched or installed once and serves every checkout: `plue-runner` in the user's cache folder.
    pub cache: PathBuf,
}

impl Layout {
    /// Reads the folders from what cargo says about this very program.
    pub fn find() -> Result<Self> {
        let manifest = env::var_os("CARGO_MANIFEST_DIR").context("start this program as `cargo xtask`")?;
        let root = Path::new(&manifest)
            .parent()
            .context("CARGO_MANIFEST_DIR names no folder in a checkout; start this program as `cargo xtask`")?
            .to_owned();
        // Cargo put this program into <target>/release, whatever set the target folder: default, variable,
        // configuration.
        let program = env::current_exe().context("could not find out where this program is")?;
        let target = program
            .ancestors()
            .nth(2)
            .with_context(|| format!("{} is not in a target folder of cargo", program.display()))?
            .to_owned();
        let cache = env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
            .map_or_else(|| target.join("cache"), |folder| folder.join("plue-runner"));
        Ok(Self { root, target, cache })
    }

    /// The workspace of the components.
    pub fn tool_plugins(&self) -> PathBuf {
        self.root.join("tool-plugins")
    }

    /// What is shipped: the runner, with the attacks and `plugins/` beside it.
    pub fn dist(&self) -> PathBuf {
        self.target.join("dist")
    }

    /// The runner that is shipped and tested.
    pub fn runner(&self) -> PathBuf {
        self.dist().join("plue-runner")
    }

    /// The plugins that are shipped and tested.
    pub fn plugins(&self) -> PathBuf {
        self.dist().join("plugins")
    }

    /// The file that keeps the output of the quiet command `name`.
    pub fn log(&self, name: &str) -> PathBuf {
        self.target.join("xtask").join(name).with_extension("log")
    }

    /// A cargo command in the main workspace, with the target folder of this program.
    pub fn cargo(&self, purpose: &str) -> Run {
        Run::new(purpose, process::cargo())
            .dir(&self.root)
            .env("CARGO_TARGET_DIR", &self.target)
    }

    /// A command of the cargo `program` in the workspace of the components, with a target folder of its own inside the
    /// target folder. It runs where cargo finds the configuration with the flags for WebAssembly; flags of the
    /// environment would replace them.
    pub fn plugins_cargo(&self, purpose: &str, program: impl AsRef<OsStr>, target: &str) -> Run {
        Run::new(purpose, program)
            .dir(&self.tool_plugins())
            .env("CARGO_TARGET_DIR", self.target.join(target))
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
    }
}
