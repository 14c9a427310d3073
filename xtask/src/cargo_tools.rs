//! Cargo's subcommands that the tests need, installed from the package registry into the cache, once per version.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::layout::Layout;
use crate::process::{self, Run};

/// One such program.
pub struct Tool {
    name: &'static str,
    version: &'static str,
}

/// Builds components the way that tool authors know.
pub const COMPONENT: Tool = Tool {
    name: "cargo-component",
    version: "0.21.1",
};

/// Checks licences, sources and advisories of all dependencies.
pub const DENY: Tool = Tool {
    name: "cargo-deny",
    version: "0.20.2",
};

/// Lists what is in what is shipped.
pub const CYCLONEDX: Tool = Tool {
    name: "cargo-cyclonedx",
    version: "0.5.9",
};

/// Runs the fuzz targets.
pub const FUZZ: Tool = Tool {
    name: "cargo-fuzz",
    version: "0.13.2",
};

/// How long a fetch of RustSec's database may take. Where GitHub cannot be reached, some networks never answer.
pub const FETCH_LIMIT: Duration = Duration::from_secs(120);

/// The program, which is compiled when it is not in the cache. That takes 2 to 6 minutes on two cores, so it is not
/// optimised as its authors would, which would take twice as long.
pub fn install(layout: &Layout, tool: &Tool) -> Result<PathBuf> {
    let Tool { name, version } = tool;
    let root = layout.cache.join("tools").join(format!("{name}-{version}"));
    let program = root.join("bin").join(name);
    if program.is_file() {
        return Ok(program);
    }
    let purpose = format!("installing {name} {version} (once, 2 to 6 minutes)");
    process::announce(&purpose);
    // Beside the target folder of our own code: what is built here is needed only once. A folder for each, since
    // several may be installed at a time.
    let build = layout.target.join("xtask").join("install").join(name);
    Run::new(purpose, process::cargo())
        .args(["install", "--locked", "--quiet", "--version", version, "--root"])
        .arg(&root)
        .arg(name)
        .dir(&layout.root)
        .env("CARGO_TARGET_DIR", &build)
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "false")
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
        .env_remove("RUSTFLAGS")
        .quiet(&layout.log(name))
        .with_context(|| format!("could not install {name} {version} from the package registry"))?;
    // Half a gigabyte that no one needs; when it stays, that is no failure.
    let _ = fs::remove_dir_all(build);
    Ok(program)
}

/// Whether cargo-deny has a copy of RustSec's database from an earlier time.
pub fn has_advisory_database() -> bool {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    let Some(entries) = home.and_then(|home| fs::read_dir(home.join("advisory-dbs")).ok()) else {
        return false;
    };
    // A fetch that failed leaves a file behind.
    entries.flatten().any(|entry| entry.path().join("crates").is_dir())
}
