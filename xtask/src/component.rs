//! Building a tool as an author does: with plain cargo, and with `cargo component`, which makes a component of a module
//! for wasm32-wasip1 and an adapter.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::layout::Layout;
use crate::process::{self, Run};
use crate::toolchain::Toolchain;
use crate::{debian, plugins, toolchain};

/// The target that cargo-component builds for, whatever others it is given.
const TARGET: &str = "wasm32-wasip1";

/// The plugin that authors start from.
const EXAMPLE: &str = "examples/plugin-rust";

/// Builds the example as its README says, once with plain cargo and once with `cargo component` (which lies at
/// `program`). Gives a folder of plugins for each; each holds the example alone.
pub fn build(layout: &Layout, plain: &Toolchain, program: &Path) -> Result<[PathBuf; 2]> {
    let example = layout.root.join(EXAMPLE);
    let plugins = plugins::find(layout, &example)?;
    let plugin = plugins
        .first()
        .with_context(|| format!("there is no plugin in {EXAMPLE}"))?;
    let out = |name: &str| layout.target.join("xtask/plugins").join(name);

    plain
        .build(layout, &format!("building {EXAMPLE}"))
        .dir(&example)
        .live()?;
    plugins::lay_out(plugin, &plain.products(layout), &out("example"))?;

    let folder = "plugins/component";
    let run = layout
        .plugins_cargo(&format!("building {EXAMPLE} with cargo component"), program, folder)
        .dir(&example)
        .args(["component", "build", "--release", "--locked"]);
    let run = match toolchain::add_target(layout, TARGET) {
        Ok(()) => run,
        Err(error) => {
            process::note(&format!(
                "cargo component with Debian's compiler, since rustup cannot have {TARGET}: {error:#}"
            ));
            with_debian(layout, run)?
        }
    };
    run.live()?;
    let products = layout.target.join(folder).join(TARGET).join("release");
    plugins::lay_out(plugin, &products, &out("component"))?;
    Ok([out("example"), out("component")])
}

/// Has cargo-component use Debian's toolchain. It insists on finding the target in the folder that `rustc --print
/// sysroot` names, though the standard library is built from source: so it gets a rustc that names a folder of ours.
fn with_debian(layout: &Layout, run: Run) -> Result<Run> {
    let debian = debian::Toolchain::prepare(layout, TARGET)?;
    let folder = layout.target.join("xtask/rustc");
    let sysroot = folder.join("sysroot");
    fs::create_dir_all(sysroot.join("lib/rustlib").join(TARGET))
        .with_context(|| format!("could not make the folder {}", sysroot.display()))?;
    let rustc = folder.join("rustc");
    let script = format!(
        "#!/bin/sh\n[ \"$*\" = '--print sysroot' ] && echo '{}' && exit\nexec {} \"$@\"\n",
        sysroot.display(),
        debian::RUSTC
    );
    fs::write(&rustc, script)
        .and_then(|()| fs::set_permissions(&rustc, PermissionsExt::from_mode(0o755)))
        .with_context(|| format!("could not write {}", rustc.display()))?;
    Ok(debian.configure(run, Some(&folder)).env("CARGO", debian::CARGO))
}
