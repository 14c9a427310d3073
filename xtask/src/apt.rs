//! Debian's packages: installed on this machine, or fetched from any release of Debian into the cache, with lists of
//! our own, so that the machine itself is not changed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::layout::Layout;
use crate::process::{self, Run};

/// Checks the packages of every release; a part of every Debian.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

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
    // apt waits for another one that installs, but not for one that reads the lists, as another stage may do now.
    let file = layout.cache.join("apt.lock");
    let lock = fs::create_dir_all(&layout.cache)
        .and_then(|()| File::create(&file))
        .and_then(|lock| lock.lock().map(|()| lock));
    let _lock = lock.with_context(|| format!("could not lock {}", file.display()))?;
    apt_get("reading the package lists")?
        .arg("update")
        .quiet(&layout.log("apt-update"))
}

/// An apt-get that may change the machine.
fn apt_get(purpose: &str) -> Result<Run> {
    // By env, since sudo passes no variables on.
    let run = process::as_root(purpose, "env")?.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    Ok(run.args(["-o", "DPkg::Lock::Timeout=300"]))
}

fn is_installed(package: &str) -> bool {
    let status = Run::new("asking for installed packages", "dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status}", package])
        .read();
    status.is_ok_and(|status| status == "installed")
}

/// The folder in the cache with the files of one package of the release `suite`, which is fetched when it is not there.
pub fn unpacked(layout: &Layout, package: &str, suite: &str) -> Result<PathBuf> {
    cached(layout, package, |work| {
        let archive = Archive::open(layout, work, suite, package)?;
        archive.apt(&format!("downloading {package}"), &["download", package])?;
        let [file] = &packages(work)?[..] else {
            bail!("apt-get download did not leave one package in {}", work.display());
        };
        let unpacked = work.join("unpacked");
        Run::new(format!("unpacking {package}"), "dpkg")
            .arg("-x")
            .args([file, &unpacked])
            .read()?;
        Ok(unpacked)
    })
    .with_context(|| format!("could not get {package} of Debian {suite}"))
}

/// The folder `name` in the cache. When it is not there, `fill` makes it inside of a folder for its work, and says
/// where.
pub fn cached(layout: &Layout, name: &str, fill: impl FnOnce(&Path) -> Result<PathBuf>) -> Result<PathBuf> {
    let home = layout.cache.join(name);
    if home.is_dir() {
        return Ok(home);
    }
    let work = layout.cache.join(format!("{name}.{}", std::process::id()));
    // Whoever finds the folder finds all of it: it gets its name when it is complete. Another one may be quicker.
    let moved = fill(&work).and_then(|filled| match fs::rename(&filled, &home) {
        Err(error) if !home.is_dir() => Err(error).with_context(|| format!("could not make {}", home.display())),
        _ => Ok(()),
    });
    // What is left is rubbish, and no reason to fail.
    let _ = fs::remove_dir_all(&work);
    moved.map(|()| home)
}

/// One release of Debian behind the machine's own mirror, with lists and a cache that are ours.
pub struct Archive {
    work: PathBuf,
    configuration: PathBuf,
    log: PathBuf,
}

impl Archive {
    /// Reads the release's package lists. `what` is the name of the log.
    pub fn open(layout: &Layout, work: &Path, suite: &str, what: &str) -> Result<Self> {
        ensure!(
            process::find_program("apt-get").is_some(),
            "this needs Debian's packages, and there is no apt-get here"
        );
        let archive = Self {
            work: work.to_owned(),
            configuration: work.join("apt.conf"),
            log: layout.log(&format!("apt-{what}")),
        };
        for folder in ["lists/partial", "cache/archives/partial"] {
            let folder = work.join(folder);
            fs::create_dir_all(&folder).with_context(|| format!("could not make the folder {}", folder.display()))?;
        }
        let mirror = mirror(layout)?;
        write(
            &work.join("debian.sources"),
            &format!("Types: deb\nURIs: {mirror}\nSuites: {suite}\nComponents: main\nSigned-By: {KEYRING}\n"),
        )?;
        // Nothing is installed for this apt, so that it fetches all that a package needs.
        write(&work.join("status"), "")?;
        let place = work.display();
        // The machine's configuration (mirrors, proxies, keys) holds; only lists, cache and status are ours, and no one
        // else uses them, so nothing is locked. Hooks of the machine's own updates are not wanted: some images empty
        // the package cache in them, under a running installation.
        write(
            &archive.configuration,
            &format!(
                "#clear APT::Update::Pre-Invoke;\n#clear APT::Update::Post-Invoke;\n\
                 #clear APT::Update::Post-Invoke-Success;\n\
                 Dir::Etc::SourceList \"{place}/debian.sources\";\nDir::Etc::SourceParts \"/dev/null\";\n\
                 Dir::State::Lists \"{place}/lists\";\nDir::State::Status \"{place}/status\";\n\
                 Dir::Cache \"{place}/cache\";\nDebug::NoLocking \"true\";\n\
                 Acquire::Languages \"none\";\nAPT::Sandbox::User \"root\";\n\
                 Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n"
            ),
        )?;
        archive.apt(&format!("reading the package lists of Debian {suite}"), &["update"])?;
        Ok(archive)
    }

    /// An apt-get of this release, which works in the archive's folder.
    fn apt(&self, purpose: &str, arguments: &[&str]) -> Result<()> {
        Run::new(purpose, "apt-get")
            .arg("-c")
            .arg(&self.configuration)
            .args(arguments)
            .dir(&self.work)
            .quiet(&self.log)
    }

    /// Downloads packages (names, or patterns of apt) and all that they depend on, and gives the files.
    pub fn download_with_dependencies(&self, wanted: &[&str]) -> Result<Vec<PathBuf>> {
        let arguments = ["install", "--yes", "--no-install-recommends", "--download-only"];
        self.apt(
            &format!("downloading {}", wanted.join(" ")),
            &[&arguments[..], wanted].concat(),
        )?;
        packages(&self.work.join("cache/archives"))
    }
}

/// The mirror that this machine takes Debian from.
pub fn mirror(layout: &Layout) -> Result<String> {
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

/// The packages in a folder.
fn packages(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("could not read the folder {}", folder.display()))? {
        let path = entry
            .with_context(|| format!("could not read the folder {}", folder.display()))?
            .path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            found.push(path);
        }
    }
    Ok(found)
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("could not write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_that_of_the_archive_and_not_of_security_updates() {
        let targets =
            "Elsewhere|Tools|file:/other/\nDebian|Debian-Security|file:/security/\nDebian|Debian|file:/archive/\n";
        assert_eq!(debian_archive(targets), Some("file:/archive/"));
        assert_eq!(debian_archive("Elsewhere|Tools|file:/other/\n"), None);
    }
}
