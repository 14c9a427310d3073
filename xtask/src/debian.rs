//! The compiler for the components from Debian's packages, for machines that reach package mirrors and nothing else.
//!
//! Debian's compiler has no standard library for WebAssembly, so cargo builds it from source (`-Zbuild-std`, which
//! RUSTC_BOOTSTRAP opens on a stable compiler). What it links to comes from three places: the C library from the
//! package `wasi-libc` (older releases of Debian have it for preview 1 only, so it is taken from sid, unpacked into the
//! cache and never installed), and the linkers `wasm-ld` and `wasm-component-ld` from the Rust toolchain of this
//! machine.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::apt;
use crate::layout::Layout;
use crate::process::Run;

/// Debian's cargo. The one on PATH is rustup's.
pub const CARGO: &str = "/usr/bin/cargo";
/// Debian's compiler.
pub const RUSTC: &str = "/usr/bin/rustc";

/// Debian keeps a newer Rust for its browsers under these names, in stable releases too.
const PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// The flags of tool-plugins/.cargo/config.toml; flags in the environment replace those, so they are repeated here.
const COMPONENT_FLAGS: [&str; 2] = ["-C", "target-feature=+simd128"];

/// The release of Debian whose wasi-libc knows preview 2.
const LIBC_SUITE: &str = "sid";

/// Debian's Rust with all that it needs to compile for one WebAssembly target.
pub struct Toolchain {
    version: String,
    /// `wasm-component-ld`, which rustc calls, and `wasm-ld`, which that calls.
    linkers: [PathBuf; 2],
    /// The C library of the target.
    libc: PathBuf,
}

impl Toolchain {
    /// Installs and fetches what is missing to compile for `target`.
    pub fn prepare(layout: &Layout, target: &str) -> Result<Self> {
        let linkers = linkers()?;
        apt::install(layout, &PACKAGES)?;
        let version = Run::new("asking Debian's rustc for its version", RUSTC)
            .arg("--version")
            .read()?;
        let libc = libc(layout, target)?;
        Ok(Self {
            version: version.trim().to_owned(),
            linkers,
            libc,
        })
    }

    /// As `rustc --version` says it.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Sets the environment of a cargo that builds with this toolchain. Programs in the folder `first` go before all
    /// others.
    pub fn configure(&self, cargo: Run, first: Option<&Path>) -> Run {
        let mut path: Vec<PathBuf> = first
            .map(Path::to_owned)
            .into_iter()
            .chain(self.linkers.clone())
            .collect();
        path.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
        // A PATH that is made of a PATH can be joined again.
        let path = env::join_paths(path).unwrap_or_default();
        // Encoded, since folders may have spaces in their names.
        let mut flags = OsString::from(COMPONENT_FLAGS.join("\x1f"));
        flags.push("\x1f-L\x1fnative=");
        flags.push(&self.libc);
        cargo
            .env("PATH", path)
            .env("RUSTC", RUSTC)
            .env("RUSTC_BOOTSTRAP", "1")
            // As a variable, since cargo-component does not understand the flag -Zbuild-std.
            .env("CARGO_UNSTABLE_BUILD_STD", "std,panic_abort")
            .env("CARGO_ENCODED_RUSTFLAGS", flags)
            // The libraries of rustup's compiler, which `cargo run` puts there.
            .env_remove("LD_LIBRARY_PATH")
            .env_remove("RUSTUP_TOOLCHAIN")
    }
}

/// The folders of the linkers that come with the Rust toolchain of this machine.
fn linkers() -> Result<[PathBuf; 2]> {
    let sysroot = Run::new("asking where Rust is installed", "rustc")
        .args(["--print", "sysroot"])
        .read()?;
    let host = Run::new("asking which machine this is", "rustc")
        .args(["--print", "host-tuple"])
        .read()?;
    let folder = Path::new(sysroot.trim())
        .join("lib/rustlib")
        .join(host.trim())
        .join("bin");
    let folders = [folder.clone(), folder.join("gcc-ld")];
    for (folder, linker) in folders.iter().zip(["wasm-component-ld", "wasm-ld"]) {
        ensure!(
            folder.join(linker).is_file(),
            "the linker {linker} is not in {}; a toolchain that rustup installed has it there",
            folder.display()
        );
    }
    Ok(folders)
}

/// The folder of the target's C library: of the installed package when that is new enough, else of the one in the
/// cache, which is fetched when it is not there.
fn libc(layout: &Layout, target: &str) -> Result<PathBuf> {
    let inside = Path::new("usr/lib").join(debian_target(target));
    let installed = Path::new("/").join(&inside);
    if installed.join("libc.a").is_file() {
        return Ok(installed);
    }
    let unpacked = apt::unpacked(layout, "wasi-libc", LIBC_SUITE)?;
    let folder = unpacked.join(inside);
    ensure!(
        folder.join("libc.a").is_file(),
        "the package wasi-libc of Debian {LIBC_SUITE} has no {target}/libc.a; remove {} to fetch it again",
        unpacked.display()
    );
    Ok(folder)
}

/// The name of a target in Debian's package, where preview 1 has kept its first name.
fn debian_target(target: &str) -> &str {
    if target == "wasm32-wasip1" {
        "wasm32-wasi"
    } else {
        target
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_flags_for_components_are_those_of_their_configuration() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tool-plugins/.cargo/config.toml");
        let configuration = fs::read_to_string(path).unwrap();
        let [_, feature] = COMPONENT_FLAGS;
        assert!(
            configuration.contains(feature),
            "{feature} is not in tool-plugins/.cargo/config.toml"
        );
    }
}
