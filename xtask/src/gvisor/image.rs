//! The root file system of the container: what a pod's image has, and nothing of this machine.
//!
//! Three ways were measured. The machine's own `/` costs nothing, but it is not what a pod sees: on a developer's
//! machine it holds the checkout, the home and the keys. `debootstrap --variant=minbase` takes 24 s and root's rights,
//! and runs the packages' scripts. Unpacking the essential packages by ourselves takes 6 s and no rights, and what the
//! scripts would do is not needed. The container starts in 0.15 s and the demo runs in 3.3 s in all three.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::apt::{self, Archive};
use crate::layout::Layout;
use crate::process::{self, Run};

/// What the image has, in apt's words: the packages that every Debian has, git, which steps need, and what they depend
/// on.
const PACKAGES: [&str; 2] = ["?essential", "git"];

/// Since these folders are links, `/bin/sh` and `/usr/bin/sh` are the same. A package of the base system would make
/// them.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// The user of [`super::USER`], as an image's author would add it.
const USER: &str = "runner:x:1000:1000::/workspace:/bin/sh\n";
const GROUP: &str = "runner:x:1000:\n";

/// The image's folder in the cache, which is made when it is not there.
pub fn find(layout: &Layout) -> Result<PathBuf> {
    // The release that this machine has: what is built here must find its C library there.
    let suite = codename()?;
    let name = format!("image-{suite}-{}", PACKAGES.join("-").replace('?', ""));
    apt::cached(layout, &name, |work| {
        process::announce("making the container's root file system (once)");
        let archive = Archive::open(layout, work, &suite, "image")?;
        let packages = archive.download_with_dependencies(&PACKAGES)?;
        let root = work.join("root");
        unpack(layout, &packages, &root)?;
        add_user(&root)?;
        Ok(root)
    })
    .context(
        "could not make the container's root file system; to leave out what runs in gVisor: \
         cargo xtask test --without-gvisor",
    )
}

/// Lays out the files of packages as a root file system; nothing of them is run.
pub fn unpack(layout: &Layout, packages: &[PathBuf], root: &Path) -> Result<()> {
    for name in MERGED {
        let folder = root.join("usr").join(name);
        fs::create_dir_all(&folder)
            .and_then(|()| symlink(Path::new("usr").join(name), root.join(name)))
            .with_context(|| format!("could not make {}", folder.display()))?;
    }
    // `dpkg -x` would put a folder in the place of such a link.
    let unpack = "for package; do dpkg-deb --fsys-tarfile \"$package\" | tar --extract --keep-directory-symlink; done";
    Run::new("unpacking the image's packages", "sh")
        .args(["-euc", unpack, "sh"])
        .args(packages)
        .dir(root)
        .quiet(&layout.log("image"))
}

/// What the script of base-passwd does, which no one has run, and the user.
fn add_user(root: &Path) -> Result<()> {
    for (name, ours) in [("passwd", USER), ("group", GROUP)] {
        let master = root.join("usr/share/base-passwd").join(name).with_extension("master");
        let mut text = fs::read_to_string(&master).with_context(|| format!("could not read {}", master.display()))?;
        text.push_str(ours);
        let file = root.join("etc").join(name);
        fs::write(&file, text).with_context(|| format!("could not write {}", file.display()))?;
    }
    Ok(())
}

/// The name of the machine's release, as its mirror has it.
pub fn codename() -> Result<String> {
    let path = "/etc/os-release";
    let text = fs::read_to_string(path).with_context(|| format!("could not read {path}"))?;
    let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    // Debian's unstable release has no codename there.
    Ok(name.map_or("sid", |name| name.trim_matches('"')).to_owned())
}
