//! `cargo xtask build`: what is shipped, in one folder that may be moved anywhere.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result};

use crate::layout::Layout;
use crate::plugins;
use crate::process::{self, Run};
use crate::toolchain::{Choice, Toolchain};

/// The programs that are shipped: the runner, and the attacks that `plue-runner escape-test` runs.
const PROGRAMS: [&str; 2] = ["plue-runner", "plue-escape"];

pub fn run(layout: &Layout) -> Result<ExitCode> {
    build(layout)?;
    print_sizes(layout)?;
    Ok(ExitCode::SUCCESS)
}

/// Builds the runner and the components and lays them out in `target/dist`. Gives the toolchain that made the
/// components. Where nothing changed this takes as long as two idle cargo builds.
pub fn build(layout: &Layout) -> Result<Toolchain> {
    let started = Instant::now();
    process::announce("the compiler for the components");
    let toolchain = Toolchain::prepare(layout, Choice::Auto)?;
    let names = plugins::build(layout, &toolchain, &layout.plugins(), &plugins::test_plugins(layout))?;
    remove_others(layout, &names)?;
    process::announce("building the runner (the first time this takes minutes: wasmtime)");
    layout
        .cargo("building the runner")
        .args(["build", "--release", "--bins"])
        .live()?;
    for program in PROGRAMS {
        plugins::copy(
            &layout.target.join("release").join(program),
            &layout.dist().join(program),
        )?;
    }
    compile_ahead(layout, &names)?;
    process::note(&format!(
        "built in {}: {}",
        process::spoken(started.elapsed()),
        layout.dist().display()
    ));
    Ok(toolchain)
}

/// Removes plugins that are no more, which the runner would go on loading.
fn remove_others(layout: &Layout, names: &[String]) -> Result<()> {
    let folder = layout.plugins();
    for entry in fs::read_dir(&folder).with_context(|| format!("could not read {}", folder.display()))? {
        let path = entry
            .with_context(|| format!("could not read {}", folder.display()))?
            .path();
        if path.is_dir() && !names.iter().any(|name| path.ends_with(name)) {
            fs::remove_dir_all(&path).with_context(|| format!("could not remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// Compiles the components with the runner that will load them, unless that has been done.
fn compile_ahead(layout: &Layout, names: &[String]) -> Result<()> {
    let runner = changed(&layout.runner())?;
    let mut current = true;
    for name in names {
        let home = layout.plugins().join(name);
        // The runner loads compiled code only from where no one else can write.
        close(&home)?;
        current &= is_compiled(&home, runner)?;
    }
    if current {
        return Ok(());
    }
    process::announce("compiling the components ahead of time");
    for name in names {
        for old in plugins::files(&layout.plugins().join(name), "cwasm")? {
            fs::remove_file(&old).with_context(|| format!("could not remove {}", old.display()))?;
        }
    }
    Run::new("compiling the components ahead of time", layout.runner())
        .args(["plugin", "compile"])
        .arg(layout.plugins())
        .live()
}

/// Whether a plugin's folder has a compiled form that is newer than its component and the runner.
fn is_compiled(home: &Path, runner: SystemTime) -> Result<bool> {
    let mut newest_source = runner;
    for component in plugins::files(home, "wasm")? {
        newest_source = newest_source.max(changed(&component)?);
    }
    let mut compiled = false;
    for form in plugins::files(home, "cwasm")? {
        compiled |= changed(&form)? >= newest_source;
    }
    Ok(compiled)
}

/// Takes the right to write from everyone but the owner.
fn close(folder: &Path) -> Result<()> {
    for path in [Path::new("."), Path::new(".."), Path::new("../..")].map(|up| folder.join(up)) {
        let permissions = fs::metadata(&path)
            .with_context(|| format!("could not look at {}", path.display()))?
            .permissions();
        if permissions.mode() & 0o022 != 0 {
            fs::set_permissions(&path, PermissionsExt::from_mode(permissions.mode() & !0o022))
                .with_context(|| format!("could not take the right to write {} from others", path.display()))?;
        }
    }
    Ok(())
}

fn changed(path: &Path) -> Result<SystemTime> {
    fs::metadata(path)
        .and_then(|metadata| metadata.modified())
        .with_context(|| format!("could not look at {}", path.display()))
}

fn print_sizes(layout: &Layout) -> Result<()> {
    let mut text = format!("{}\n", layout.dist().display());
    let mut files: Vec<_> = PROGRAMS.iter().map(|name| layout.dist().join(name)).collect();
    let plugins = layout.plugins();
    for entry in fs::read_dir(&plugins).with_context(|| format!("could not read {}", plugins.display()))? {
        let home = entry
            .with_context(|| format!("could not read {}", plugins.display()))?
            .path();
        for extension in ["wasm", "cwasm"] {
            files.extend(plugins::files(&home, extension)?);
        }
    }
    files.sort();
    for file in files {
        let size = fs::metadata(&file)
            .with_context(|| format!("could not look at {}", file.display()))?
            .len();
        let name = file.strip_prefix(layout.dist()).unwrap_or(&file);
        text.push_str(&format!("{:>9}  {}\n", kibibytes(size), name.display()));
    }
    process::print(&text)
}

fn kibibytes(bytes: u64) -> String {
    format!("{} KiB", bytes.div_ceil(1024))
}
