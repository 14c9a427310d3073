//! Packages of Python, in an environment of their own in the cache.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::apt;
use crate::layout::Layout;
use crate::process::{self, Run};

/// The Python that has these packages, each with its version (`name==1.2`). They are installed once.
pub fn environment(layout: &Layout, packages: &[&str]) -> Result<PathBuf> {
    let name = format!("python-{}", packages.join("-").replace("==", "-"));
    let what = packages.join(" ");
    let home = apt::cached(layout, &name, |work| {
        let python = python(layout)?;
        process::note(&format!("installing {what} from PyPI (once)"));
        Run::new("making a virtual environment of Python", python)
            .args(["-m", "venv"])
            .arg(work)
            .quiet(&layout.log("venv"))?;
        Run::new(format!("installing {what}"), work.join("bin/python"))
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            .args(packages)
            .quiet(&layout.log("pip"))?;
        Ok(work.to_owned())
    })
    .with_context(|| {
        format!("{what} cannot be had here: this needs Python 3 with the module venv (Debian: python3-venv), and PyPI")
    })?;
    Ok(home.join("bin/python"))
}

/// A Python that can make virtual environments; Debian's own comes without.
fn python(layout: &Layout) -> Result<PathBuf> {
    let installed = process::find_program("python3");
    if let Some(program) = installed.filter(|program| can_make_environments(program)) {
        return Ok(program);
    }
    apt::install(layout, &["python3", "python3-venv"])?;
    let program = PathBuf::from("/usr/bin/python3");
    if !can_make_environments(&program) {
        bail!(
            "{} has no module venv, although python3-venv is installed",
            program.display()
        );
    }
    Ok(program)
}

fn can_make_environments(python: &Path) -> bool {
    let tried = Run::new("asking Python for venv", python)
        .args(["-c", "import venv, ensurepip"])
        .read();
    tried.is_ok()
}
