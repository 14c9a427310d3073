//! `cargo xtask plugins`: builds the components and lays them out as the runner wants them, one folder each.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::layout::Layout;
use crate::process;
use crate::toolchain::{Choice, Toolchain};

/// One of our plugins, where it is made.
pub struct Plugin {
    /// The name of its folder, here and where it is laid out.
    pub folder: String,
    /// Its manifest.
    manifest: PathBuf,
    /// The file name that the manifest gives to the component.
    component: String,
    /// The file name that cargo gives to it.
    product: String,
}

pub fn run(layout: &Layout, choice: Choice, out: Option<PathBuf>) -> Result<ExitCode> {
    let toolchain = Toolchain::prepare(layout, choice)?;
    let out = out
        .map_or_else(|| Ok(layout.plugins()), std::path::absolute)
        .context("could not read --out")?;
    build(layout, &toolchain, &out, &test_plugins(layout))?;
    Ok(ExitCode::SUCCESS)
}

/// Where the plugins are that only tests use: no part of what is shipped.
pub fn test_plugins(layout: &Layout) -> PathBuf {
    layout.target.join("test-plugins")
}

/// Builds all components and lays those that are shipped out in `out`. Gives the names of their folders. The others,
/// which only tests use, are laid out in `out_of_tests`.
pub fn build(layout: &Layout, toolchain: &Toolchain, out: &Path, out_of_tests: &Path) -> Result<Vec<String>> {
    let plugins = find(layout, &layout.tool_plugins())?;
    let purpose = format!("building {} components ({})", plugins.len(), toolchain.name());
    process::announce(&purpose);
    toolchain.build(layout, &purpose).live()?;
    let products = toolchain.products(layout);
    let (shipped, tests): (Vec<_>, Vec<_>) = plugins
        .into_iter()
        .partition(|plugin| plugin.manifest.starts_with(layout.tool_plugins()));
    for plugin in &shipped {
        lay_out(plugin, &products, out)?;
    }
    for plugin in &tests {
        lay_out(plugin, &products, out_of_tests)?;
    }
    process::note(&format!("plugins: {}", out.display()));
    Ok(shipped.into_iter().map(|plugin| plugin.folder).collect())
}

/// The plugins of a workspace (tool-plugins/, or an example): its crates with a manifest beside their Cargo.toml.
pub fn find(layout: &Layout, workspace: &Path) -> Result<Vec<Plugin>> {
    let metadata = layout
        .plugins_cargo("asking cargo for the plugins", process::cargo(), "plugins")
        .dir(workspace)
        .args(["metadata", "--no-deps", "--locked", "--format-version=1"])
        .read()?;
    let metadata: Value = serde_json::from_str(&metadata).context("cargo metadata gave no JSON")?;
    let mut plugins = Vec::new();
    for package in list(&metadata, "packages") {
        let Some(home) = text(package, "manifest_path").map(Path::new).and_then(Path::parent) else {
            continue;
        };
        let manifest = home.join("plugin.toml");
        if manifest.is_file() {
            plugins.push(plugin(package, home, manifest)?);
        }
    }
    if plugins.is_empty() {
        bail!("no crate in {} has a plugin.toml", workspace.display());
    }
    Ok(plugins)
}

fn plugin(package: &Value, home: &Path, manifest: PathBuf) -> Result<Plugin> {
    let place = manifest.display();
    let text_of_manifest = fs::read_to_string(&manifest).with_context(|| format!("could not read {place}"))?;
    let table: toml::Table = text_of_manifest
        .parse()
        .with_context(|| format!("{place} is no TOML"))?;
    let component = table
        .get("component")
        .and_then(toml::Value::as_str)
        .with_context(|| format!("{place} does not name its component; add: component = \"NAME.wasm\""))?;
    let target = list(package, "targets")
        .find(|target| list(target, "crate_types").any(|kind| kind == "cdylib"))
        .and_then(|target| text(target, "name"))
        .with_context(|| format!("{}: a plugin's library needs crate-type = [\"cdylib\"]", home.display()))?;
    let folder = home
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    // Cargo names the file after the library's crate.
    let product = format!("{}.wasm", target.replace('-', "_"));
    Ok(Plugin {
        folder,
        component: component.to_owned(),
        product,
        manifest,
    })
}

/// Copies a plugin's files, from cargo's folder `products` into a folder of its own in `out`. What was compiled ahead
/// of time from another component goes away.
pub fn lay_out(plugin: &Plugin, products: &Path, out: &Path) -> Result<()> {
    let home = out.join(&plugin.folder);
    fs::create_dir_all(&home).with_context(|| format!("could not make the folder {}", home.display()))?;
    copy(&plugin.manifest, &home.join("plugin.toml"))?;
    if copy(&products.join(&plugin.product), &home.join(&plugin.component))? {
        for compiled in files(&home, "cwasm")? {
            fs::remove_file(&compiled).with_context(|| format!("could not remove {}", compiled.display()))?;
        }
    }
    Ok(())
}

/// Copies a file unless the same bytes are there already, so that a time of change means a change. Says whether it did.
pub fn copy(from: &Path, to: &Path) -> Result<bool> {
    let bytes = fs::read(from).with_context(|| format!("could not read {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == bytes) {
        return Ok(false);
    }
    // Never in place: the old one may be running, or mapped by a runner.
    let new = to.with_added_extension("new");
    fs::copy(from, &new).with_context(|| format!("could not write {}", new.display()))?;
    // A build's files may be open to a group; what is shipped is its owner's alone to change.
    fs::metadata(&new)
        .and_then(|metadata| {
            fs::set_permissions(&new, PermissionsExt::from_mode(metadata.permissions().mode() & !0o022))
        })
        .with_context(|| format!("could not take the right to write {} from others", new.display()))?;
    fs::rename(&new, to).with_context(|| format!("could not put {} in place", to.display()))?;
    Ok(true)
}

/// The files of a folder with this extension.
pub fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("could not read the folder {}", folder.display()))? {
        let path = entry
            .with_context(|| format!("could not read the folder {}", folder.display()))?
            .path();
        if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    Ok(found)
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str)
}
