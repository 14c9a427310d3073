//! The compiler for the components from Debian's packages, for machines that reach package mirrors and nothing else.
//!
//! Debian's compiler has no standard library for WebAssembly, so cargo builds it from source (`-Zbuild-std`, which
//! RUSTC_BOOTSTRAP opens on a stable compiler). What it links to comes from three places: the C library from the
//! package `wasi-libc` (older releases of Debian have it for preview 1 only, so it is taken from sid, unpacked into the
//! cache and never installed), and the linkers `wasm-ld` and `wasm-component-ld` from the Rust toolchain of this machine.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::layout::Layout;
use crate::process::{self, Run};

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

/// Checks the packages of that release; a part of every Debian.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

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
        install(layout, &PACKAGES)?;
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

/// Installs packages of Debian that are not there yet. Asks the mirror only when one is missing.
pub fn install(layout: &Layout, packages: &[&str]) -> Result<()> {
    let missing: Vec<&str> = packages
        .iter()
        .copied()
        .filter(|package| !is_installed(package))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let wanted = missing.join(" ");
    ensure!(
        process::find_program("apt-get").is_some(),
        "{wanted}: this needs Debian's packages, and there is no apt-get here"
    );
    update_lists(layout)
        .and_then(|()| {
            apt_get(&format!("installing {wanted}"))?
                .args(["install", "--yes", "--no-install-recommends"])
                .args(&missing)
                .quiet(&layout.log("apt-install"))
        })
        .with_context(|| format!("could not install {wanted}; do it by hand: apt-get install {wanted}"))
}

fn update_lists(layout: &Layout) -> Result<()> {
    apt_get("reading the package lists")?
        .arg("update")
        .quiet(&layout.log("apt-update"))
}

/// An apt-get that may change the machine: as root, else by sudo where that asks for no password.
fn apt_get(purpose: &str) -> Result<Run> {
    let root = Run::new("asking who runs this", "id").arg("-u").read()?.trim() == "0";
    let run = if root {
        Run::new(purpose, "apt-get")
    } else {
        Run::new(purpose, "sudo").args(["--non-interactive", "DEBIAN_FRONTEND=noninteractive", "apt-get"])
    };
    Ok(run
        .args(["-o", "DPkg::Lock::Timeout=300"])
        .env("DEBIAN_FRONTEND", "noninteractive"))
}

fn is_installed(package: &str) -> bool {
    let status = Run::new("asking for installed packages", "dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status}", package])
        .read();
    status.is_ok_and(|status| status == "installed")
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
    let cached = layout.cache.join("wasi-libc");
    for place in [Path::new("/"), &cached] {
        let folder = place.join(&inside);
        if folder.join("libc.a").is_file() {
            return Ok(folder);
        }
    }
    // Whoever finds the folder finds all of it: it gets its name when it is complete.
    let work = layout.cache.join(format!("wasi-libc.{}", std::process::id()));
    let unpacked = fetch_libc(layout, &work).with_context(|| format!("could not get wasi-libc of Debian {LIBC_SUITE}"));
    let moved = unpacked.and_then(|unpacked| match fs::rename(&unpacked, &cached) {
        Err(error) if !cached.join(&inside).is_dir() => {
            Err(error).with_context(|| format!("could not put wasi-libc into {}", cached.display()))
        }
        _ => Ok(()),
    });
    // What is left is rubbish, and no reason to fail.
    let _ = fs::remove_dir_all(&work);
    moved?;
    let folder = cached.join(inside);
    ensure!(
        folder.join("libc.a").is_file(),
        "the package wasi-libc of Debian {LIBC_SUITE} has no {target}/libc.a; remove {} to fetch it again",
        cached.display()
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

/// Fetches the package through apt, with lists of our own beside the machine's, and unpacks it below `work`.
fn fetch_libc(layout: &Layout, work: &Path) -> Result<PathBuf> {
    for folder in ["lists/partial", "cache/archives/partial"] {
        let folder = work.join(folder);
        fs::create_dir_all(&folder).with_context(|| format!("could not make the folder {}", folder.display()))?;
    }
    let mirror = mirror(layout)?;
    write(
        &work.join("debian.sources"),
        &format!("Types: deb\nURIs: {mirror}\nSuites: {LIBC_SUITE}\nComponents: main\nSigned-By: {KEYRING}\n"),
    )?;
    let place = work.display();
    let configuration = work.join("apt.conf");
    // The machine's configuration (mirrors, proxies, keys) holds; only the lists and the cache are ours. Hooks of the
    // machine's own updates are not wanted: some images empty the package cache in them, under a running installation.
    write(
        &configuration,
        &format!(
            "#clear APT::Update::Pre-Invoke;\n#clear APT::Update::Post-Invoke;\n#clear APT::Update::Post-Invoke-Success;\n\
             Dir::Etc::SourceList \"{place}/debian.sources\";\nDir::Etc::SourceParts \"/dev/null\";\n\
             Dir::State::Lists \"{place}/lists\";\nDir::Cache \"{place}/cache\";\n\
             Acquire::Languages \"none\";\nAPT::Sandbox::User \"root\";\n\
             Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n"
        ),
    )?;
    let apt = |purpose: &str, arguments: &[&str]| {
        Run::new(purpose, "apt-get")
            .arg("-c")
            .arg(&configuration)
            .args(arguments)
            .dir(work)
            .quiet(&layout.log("apt-wasi-libc"))
    };
    apt("reading Debian's package lists", &["update"])?;
    apt("downloading wasi-libc", &["download", "wasi-libc"])?;
    let package = find_package(work)?;
    let unpacked = work.join("unpacked");
    Run::new("unpacking wasi-libc", "dpkg")
        .arg("-x")
        .arg(&package)
        .arg(&unpacked)
        .read()?;
    Ok(unpacked)
}

/// The mirror that this machine takes Debian from.
fn mirror(layout: &Layout) -> Result<String> {
    let ask = || -> Result<Option<String>> {
        let targets = Run::new("asking apt for its mirror", "apt-get")
            .args([
                "indextargets",
                "--format",
                "$(ORIGIN)|$(LABEL)|$(REPO_URI)",
                "Created-By: Packages",
            ])
            .read()?;
        Ok(debian_archive(&targets).map(str::to_owned))
    };
    if let Some(mirror) = ask()? {
        return Ok(mirror);
    }
    // Before its first update apt does not know whose packages a mirror has.
    update_lists(layout)?;
    ask()?.context("apt is configured with no mirror of Debian's archive")
}

/// The first mirror of Debian's own archive in lines of `origin|label|address`.
fn debian_archive(targets: &str) -> Option<&str> {
    targets.lines().find_map(|line| line.strip_prefix("Debian|Debian|"))
}

fn find_package(folder: &Path) -> Result<PathBuf> {
    for entry in fs::read_dir(folder).with_context(|| format!("could not read the folder {}", folder.display()))? {
        let path = entry
            .with_context(|| format!("could not read the folder {}", folder.display()))?
            .path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            return Ok(path);
        }
    }
    bail!("apt-get download left no package in {}", folder.display())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("could not write {}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_mirror_is_that_of_the_archive_and_not_of_security_updates() {
        let targets =
            "Elsewhere|Tools|file:/other/\nDebian|Debian-Security|file:/security/\nDebian|Debian|file:/archive/\n";
        assert_eq!(debian_archive(targets), Some("file:/archive/"));
        assert_eq!(debian_archive("Elsewhere|Tools|file:/other/\n"), None);
    }

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
