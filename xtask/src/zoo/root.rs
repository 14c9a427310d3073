//! The root file system of the zoo: the image of the Dockerfile, as far as it is Debian's, and the packages of all
//! rows. It is made as an image for a language is that derives from ours, and kept in the cache.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Row;
use crate::apt;
use crate::gvisor::image;
use crate::layout::Layout;
use crate::process;

/// What npm's registry gives for the row `vite`: the last that Node of Debian 12 runs.
const NPM_PACKAGE: &str = "vite@5.4.21";

/// What is done in the root file system, as root of this machine, in a mount namespace of its own. Services are not
/// started, and PostgreSQL makes no cluster: the row makes its own. When the mirror has not got all, each row is asked
/// for alone, and those that lack something are written down.
const INSTALL: &str = r#"
root=$1 base=$2 npm=$3
shift 3
mount --make-rprivate /
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
mkdir -p "$root/opt/zoo" "$root/opt/plue" "$root/etc/postgresql-common"
echo 'create_main_cluster = false' >"$root/etc/postgresql-common/createcluster.conf"
: >"$root/opt/zoo/missing"
within() { chroot "$root" env DEBIAN_FRONTEND=noninteractive "$@"; }
install() { within apt-get install --yes --no-install-recommends "$@"; }
within sh -euc "$base"
within apt-get update
all= some=
for row; do
    all="$all ${row#*:}"
done
if ! install --simulate $all >/dev/null; then
    for row; do
        if install --simulate ${row#*:} >/dev/null; then
            some="$some ${row#*:}"
        else
            echo "${row%%:*}: the mirror has not got all of its packages (${row#*:})" >>"$root/opt/zoo/missing"
        fi
    done
    all=$some
fi
install $all
within apt-get clean
rm "$root/usr/sbin/policy-rc.d"
if [ -x "$root/usr/bin/npm" ]; then
    # With this machine's certificates and settings: a network may have an authority of its own, and a registry, too.
    certificates=/etc/ssl/certs/ca-certificates.crt
    if [ -f $certificates ]; then mount --bind $certificates "$root$certificates"; fi
    if [ -f "${HOME:-/root}/.npmrc" ]; then
        : >"$root/root/.npmrc"
        mount --bind "${HOME:-/root}/.npmrc" "$root/root/.npmrc"
    fi
    within env HOME=/root NODE_EXTRA_CA_CERTS=$certificates npm install --prefix /opt/zoo --no-save "$npm" ||
        echo "vite: npm could not fetch $npm" >>"$root/opt/zoo/missing"
fi"#;

/// The root file system. While the value lives, no other run makes it anew.
pub struct Root {
    path: PathBuf,
    _lock: File,
}

impl Root {
    /// The one in the cache, which is made when it is not there, or was made of something else. `base` is the command
    /// that makes our image of a Debian.
    pub fn find(layout: &Layout, base: &str, rows: &[Row]) -> Result<Self> {
        let home = layout.cache.join("zoo");
        fs::create_dir_all(&home).with_context(|| format!("could not make the folder {}", home.display()))?;
        let file = home.join("lock");
        let lock = File::create(&file).with_context(|| format!("could not make {}", file.display()))?;
        if lock.try_lock().is_err() {
            process::note("waiting for another run, which has the zoo");
            lock.lock()
                .with_context(|| format!("could not lock {}", file.display()))?;
        }
        let root = Self {
            path: home.join("root"),
            _lock: lock,
        };
        let suite = image::codename()?;
        let rows: Vec<String> = rows.iter().map(packages).collect();
        let made_of = [&[&*suite, INSTALL, base, NPM_PACKAGE], &*texts(&rows)]
            .concat()
            .join("\n");
        let known = home.join("made-of");
        if fs::read_to_string(&known).is_ok_and(|known| known == made_of) {
            return Ok(root);
        }
        // Until it is there as a whole, nobody may take it.
        let _ = fs::remove_file(&known);
        process::remove_as_root(&root.path)?;
        root.make(layout, &suite, base, &rows).context(
            "could not make the zoo's root file system; the other stages need none: cargo xtask test --help",
        )?;
        fs::write(&known, made_of).with_context(|| format!("could not write {}", known.display()))?;
        Ok(root)
    }

    fn make(&self, layout: &Layout, suite: &str, base: &str, rows: &[String]) -> Result<()> {
        process::announce("making the zoo's root file system of Debian's packages (once: some minutes, 3.5 GB)");
        apt::install(layout, &["debootstrap"])?;
        let mirror = apt::mirror(layout)?;
        process::as_root("making a Debian", "debootstrap")?
            .args(["--variant=minbase", suite])
            .arg(&self.path)
            .arg(mirror)
            .quiet(&layout.log("zoo-debootstrap"))?;
        process::as_root("installing the zoo's packages", "unshare")?
            .args(["--mount", "--", "sh", "-euc", INSTALL, "sh"])
            .arg(&self.path)
            .args([base, NPM_PACKAGE])
            .args(rows)
            .quiet(&layout.log("zoo"))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What could not be had for it: a line for each row.
    pub fn missing(&self) -> Result<Vec<String>> {
        let file = self.path.join("opt/zoo/missing");
        let text = fs::read_to_string(&file).with_context(|| format!("could not read {}", file.display()))?;
        let home = self.path.parent().unwrap_or(&self.path).display();
        let line = |line: &str| format!("THE ZOO WENT WITHOUT {line}; to try again, remove {home}");
        Ok(text.lines().map(line).collect())
    }
}

fn texts(lines: &[String]) -> Vec<&str> {
    lines.iter().map(String::as_str).collect()
}

/// A row and its packages, each once, in one word.
fn packages(row: &Row) -> String {
    let packages: BTreeSet<&str> = row.packages.iter().map(String::as_str).collect();
    let packages: Vec<&str> = packages.into_iter().collect();
    format!("{}:{}", row.name, packages.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_names_each_package_once() {
        let row = Row {
            name: "both".to_owned(),
            packages: ["b", "a", "b"].map(str::to_owned).to_vec(),
        };
        assert_eq!(packages(&row), "both:a b");
    }
}
