//! `cargo xtask sbom`: what is in the programs and components that are shipped, as CycloneDX documents.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cargo_tools::{self, CYCLONEDX};
use crate::layout::Layout;
use crate::process::{self, Run};
use crate::toolchain;

/// How cargo-cyclonedx ends the names of what it writes, beside each `Cargo.toml`.
const SUFFIX: &str = ".cdx.json";

/// Which documents are kept: what is shipped, and nothing of the tests.
const SHIPPED: [&str; 7] = [
    "plue-runner_bin",
    "plue-escape_bin",
    "plue-grep",
    "plue-list-files",
    "plue-read-file",
    "plue-shell",
    "plue-write-file",
];

pub fn run(layout: &Layout) -> Result<ExitCode> {
    write(layout)?;
    process::print(&format!("{}\n", folder(layout).display()))?;
    Ok(ExitCode::SUCCESS)
}

/// Writes one document for each shipped program and component into `target/dist/sbom`.
pub fn write(layout: &Layout) -> Result<()> {
    let program = cargo_tools::install(layout, &CYCLONEDX)?;
    let host = Run::new("asking for this machine's target", "rustc")
        .arg("-vV")
        .read()?;
    let host = host.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc does not say what this machine's target is")?;
    let folder = folder(layout);
    fs::create_dir_all(&folder).with_context(|| format!("could not make {}", folder.display()))?;
    describe(layout, &program, &layout.root, "binaries", host, &folder)?;
    describe(
        layout,
        &program,
        &layout.tool_plugins(),
        "crate",
        toolchain::TARGET,
        &folder,
    )?;
    for name in SHIPPED {
        let file = folder.join(format!("{name}{SUFFIX}"));
        ensure!(file.is_file(), "cargo-cyclonedx has not written {}", file.display());
    }
    Ok(())
}

fn folder(layout: &Layout) -> PathBuf {
    layout.dist().join("sbom")
}

/// Describes a workspace. The documents stand beside its manifests first, and are taken from there.
fn describe(layout: &Layout, program: &Path, workspace: &Path, what: &str, target: &str, out: &Path) -> Result<()> {
    Run::new("listing what is shipped", program)
        .args([
            "cyclonedx",
            "--format",
            "json",
            "--spec-version",
            "1.5",
            "--describe",
            what,
        ])
        .args(["--target", target, "--quiet"])
        .dir(workspace)
        .quiet(&layout.log("sbom"))?;
    for member in members(workspace)? {
        let files = fs::read_dir(&member).with_context(|| format!("could not read {}", member.display()))?;
        for file in files.flatten().map(|entry| entry.path()) {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Some(stem) = name.strip_suffix(SUFFIX) else {
                continue;
            };
            if SHIPPED.contains(&stem) {
                fs::copy(&file, out.join(&name)).with_context(|| format!("could not copy {}", file.display()))?;
            }
            fs::remove_file(&file).with_context(|| format!("could not remove {}", file.display()))?;
        }
    }
    Ok(())
}

/// The folders of a workspace's crates.
fn members(workspace: &Path) -> Result<Vec<PathBuf>> {
    let metadata = Run::new("asking for the crates of a workspace", process::cargo())
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .dir(workspace)
        .read()?;
    let metadata: Value = serde_json::from_str(&metadata).context("`cargo metadata` gave no JSON")?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let folder = |package: &Value| Some(Path::new(package["manifest_path"].as_str()?).parent()?.to_owned());
    packages
        .map(|package| folder(package).context("`cargo metadata` names a package without a manifest"))
        .collect()
}
