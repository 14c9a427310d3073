//! The image, built from the Dockerfile by Debian's `buildah`: no daemon, no container registry.
//!
//! The bases that the Dockerfile names come from registries of images, which are not to be had everywhere; its build
//! arguments put others in their place, which are made here of Debian's packages.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use super::oci::Image;
use crate::apt;
use crate::gvisor::image;
use crate::layout::Layout;
use crate::process::{self, Run};

/// A target of the Dockerfile.
#[derive(Clone, Copy, PartialEq)]
pub enum Target {
    Full,
    Slim,
}

impl Target {
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Slim => "slim",
        }
    }

    fn tag(self) -> String {
        format!("localhost/plue-runner:{}", self.name())
    }
}

/// What the bases are called here.
const BASE: &str = "localhost/plue-base";
const SLIM_BASE: &str = "localhost/plue-slim-base";
const RUST_BASE: &str = "localhost/plue-rust-base";

/// What a distroless base with a C library has.
const SLIM_PACKAGES: [&str; 5] = ["base-files", "ca-certificates", "libc6", "libgcc-s1", "tzdata"];

/// Where the certificates of all authorities stand in one file, in every image and on this machine.
const CERTIFICATES: &str = "etc/ssl/certs/ca-certificates.crt";

/// buildah, with a place for images that is ours.
pub struct Buildah<'a> {
    layout: &'a Layout,
    suite: String,
    /// Another checkout of the same user has the same images, and would take an unpacked one away while its pod runs.
    _lock: File,
}

impl<'a> Buildah<'a> {
    pub fn open(layout: &'a Layout) -> Result<Self> {
        apt::install(layout, &["buildah", "debootstrap"])?;
        let suite = image::codename()?;
        let file = layout.cache.join("images.lock");
        let lock = File::create(&file).with_context(|| format!("could not make {}", file.display()))?;
        if lock.try_lock().is_err() {
            process::note("waiting for another run, which has the images");
            lock.lock()
                .with_context(|| format!("could not lock {}", file.display()))?;
        }
        Ok(Self {
            layout,
            suite,
            _lock: lock,
        })
    }

    /// Builds a target of what `cargo xtask build` and `sbom` made, and unpacks it for a container. One that was built
    /// of the same is taken as it is: its packages come from a mirror, and it is a copy of all its files.
    pub fn image(&self, target: Target) -> Result<Image> {
        self.bases(target)?;
        let made_of = self.made_of(target)?;
        let known = self.layout.cache.join(format!("image-{}.made-of", target.name()));
        if fs::read_to_string(&known).is_ok_and(|known| known == made_of)
            && let Ok(image) = self.unpacked(target)
        {
            process::note(&format!("the Dockerfile's target `{}` is built already", target.name()));
            return Ok(image);
        }
        // Until it is there as a whole, nobody may take it.
        let _ = fs::remove_file(&known);
        let image = self.build_and_unpack(target)?;
        fs::write(&known, made_of).with_context(|| format!("could not write {}", known.display()))?;
        Ok(image)
    }

    /// Hashes of all that an image is made of. What is said of dependencies has the time in it, and does not change
    /// unless programs do.
    fn made_of(&self, target: Target) -> Result<String> {
        let dockerfile = self.layout.root.join("Dockerfile");
        let mut made_of =
            fs::read_to_string(&dockerfile).with_context(|| format!("could not read {}", dockerfile.display()))?;
        let files = Run::new("hashing what the image is made of", "find")
            .args([".", "-path", "./sbom", "-prune", "-o", "-type", "f"])
            .args(["-exec", "sha256sum", "{}", "+"])
            .dir(&self.layout.dist())
            .read()?;
        let mut lines: Vec<&str> = files.lines().collect();
        lines.sort_unstable();
        made_of.push_str(&lines.join("\n"));
        for base in [BASE, SLIM_BASE] {
            // Debian's is in both targets.
            if base == BASE || target == Target::Slim {
                made_of.push('\n');
                made_of.push_str(
                    &self
                        .buildah("asking for a base")?
                        .args(["images", "--no-trunc", "--quiet", base])
                        .read()?,
                );
            }
        }
        Ok(made_of)
    }

    fn build_and_unpack(&self, target: Target) -> Result<Image> {
        process::announce(&format!("building the Dockerfile's target `{}`", target.name()));
        self.build(target)?
            .arg(format!("--build-arg=RUST_IMAGE={BASE}"))
            // Compiled already: nothing of it is built twice.
            .arg(format!("--build-context=dist={}", self.layout.dist().display()))
            .arg(&self.layout.root)
            .quiet(&self.layout.log(&format!("image-{}", target.name())))?;
        self.unpack(target)
    }

    /// Builds the whole Dockerfile, compilation included.
    pub fn build_all(&self) -> Result<()> {
        self.bases(Target::Full)?;
        self.rust_base()?;
        process::announce("building the whole Dockerfile (compiles everything: a quarter of an hour on two cores)");
        self.build(Target::Full)?
            .arg(format!("--build-arg=RUST_IMAGE={RUST_BASE}"))
            .arg(&self.layout.root)
            .quiet(&self.layout.log("image-from-source"))
    }

    fn build(&self, target: Target) -> Result<Run> {
        let revision = Run::new("asking for the commit", "git")
            .args(["rev-parse", "HEAD"])
            .dir(&self.layout.root)
            .read();
        Ok(self
            .buildah(&format!("building the image `{}`", target.name()))?
            .args(["bud", "--isolation", "chroot", "--pull-never", "--layers=false"])
            // The format that has a HEALTHCHECK.
            .args(["--format", "docker", "--target", target.name(), "--tag", &target.tag()])
            .arg(format!("--build-arg=BASE_IMAGE={BASE}"))
            .arg(format!("--build-arg=SLIM_IMAGE={SLIM_BASE}"))
            .arg(format!(
                "--build-arg=REVISION={}",
                revision.as_deref().map_or("unknown", str::trim)
            )))
    }

    /// The root file system of an image and its settings. The one of an earlier time goes.
    fn unpack(&self, target: Target) -> Result<Image> {
        let name = format!("plue-{}", target.name());
        // There may be none.
        let _ = self.buildah("removing the last container")?.args(["rm", &name]).read();
        self.buildah("removing images that have no name any more")?
            .args(["rmi", "--prune", "--force"])
            .read()?;
        self.buildah("making a container of the image")?
            .args(["from", "--pull-never", "--name", &name, &target.tag()])
            .read()?;
        self.unpacked(target)
    }

    /// The one that is unpacked, with its settings.
    fn unpacked(&self, target: Target) -> Result<Image> {
        let name = format!("plue-{}", target.name());
        let root = self.buildah("unpacking the image")?.args(["mount", &name]).read()?;
        let settings = self
            .buildah("reading the image's settings")?
            .args(["inspect", "--type", "image", &target.tag()])
            .read()?;
        let settings: Value = serde_json::from_str(&settings).context("`buildah inspect` gave no JSON")?;
        let config = &settings["Docker"]["config"];
        let words = |value: &Value| -> Vec<String> {
            let words = value.as_array().into_iter().flatten();
            words.filter_map(|word| word.as_str().map(str::to_owned)).collect()
        };
        Ok(Image {
            root: PathBuf::from(root.trim()),
            entrypoint: words(&config["Entrypoint"]),
            env: words(&config["Env"]),
            user: config["User"].as_str().unwrap_or_default().to_owned(),
            working_dir: config["WorkingDir"].as_str().unwrap_or("/").to_owned(),
            health: words(&config["Healthcheck"]["Test"]).into_iter().skip(1).collect(),
        })
    }

    fn bases(&self, target: Target) -> Result<()> {
        self.base(BASE, |root| {
            process::announce("making the image's base of Debian's packages (once)");
            let mirror = apt::mirror(self.layout)?;
            process::as_root("making a Debian", "debootstrap")?
                .args(["--variant=minbase", &self.suite])
                .arg(root)
                .arg(mirror)
                .quiet(&self.layout.log("debootstrap"))
        })?;
        match target {
            Target::Full => Ok(()),
            Target::Slim => self.base(SLIM_BASE, |root| self.slim_base(root)),
        }
    }

    /// What `gcr.io/distroless/cc-debian12` is: files of a few packages, and nothing that could run a command.
    fn slim_base(&self, root: &Path) -> Result<()> {
        process::announce("making the slim image's base of Debian's packages (once)");
        let work = root.with_extension("packages");
        let archive = apt::Archive::open(self.layout, &work, &self.suite, "slim")?;
        // Those themselves, and not what their scripts need.
        let is_wanted = |file: &PathBuf| {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            let package = name.split('_').next().unwrap_or_default();
            SLIM_PACKAGES.contains(&package) || package.starts_with("gcc-")
        };
        let files: Vec<PathBuf> = archive
            .download_with_dependencies(&SLIM_PACKAGES)?
            .into_iter()
            .filter(is_wanted)
            .collect();
        image::unpack(self.layout, &files, root)?;
        // What the script of ca-certificates does.
        let authorities = root.join("usr/share/ca-certificates/mozilla");
        let mut all = String::new();
        let entries =
            fs::read_dir(&authorities).with_context(|| format!("could not read {}", authorities.display()))?;
        for entry in entries.flatten() {
            all.push_str(&fs::read_to_string(entry.path()).unwrap_or_default());
        }
        let file = root.join(CERTIFICATES);
        fs::write(&file, all).with_context(|| format!("could not write {}", file.display()))?;
        let _ = fs::remove_dir_all(work);
        Ok(())
    }

    /// What `docker.io/library/rust` is: a Debian with a C compiler and the Rust of this machine.
    fn rust_base(&self) -> Result<()> {
        let sysroot = Run::new("asking where Rust is", "rustc")
            .args(["--print", "sysroot"])
            .read()?;
        let name = "plue-rust";
        let _ = self.buildah("removing the last container")?.args(["rm", name]).read();
        self.buildah("making a container of the base")?
            .args(["from", "--pull-never", "--name", name, BASE])
            .read()?;
        let install = "apt-get update && apt-get install --yes --no-install-recommends ca-certificates gcc libc6-dev";
        self.buildah("installing a C compiler")?
            .args(["run", "--isolation", "chroot", name, "--", "sh", "-c", install])
            .quiet(&self.layout.log("rust-base"))?;
        self.buildah("copying the Rust of this machine")?
            .args(["copy", "--quiet", name, sysroot.trim(), "/usr/local"])
            .read()?;
        // Networks that look into what passes them have an authority of their own.
        let certificates = format!("/{CERTIFICATES}");
        self.buildah("copying this machine's certificates")?
            .args(["copy", "--quiet", name, &certificates, &certificates])
            .read()?;
        self.buildah("naming the base")?
            .args(["commit", "--rm", "--quiet", "--format", "docker", name, RUST_BASE])
            .read()
            .map(drop)
    }

    /// The image `name`, which is made of a folder that `fill` fills when it is not there.
    fn base(&self, name: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let known = self
            .buildah("asking for a base")?
            .args(["images", "--quiet", name])
            .read();
        if known.is_ok_and(|id| !id.trim().is_empty()) {
            return Ok(());
        }
        // Not beside the images, which are root's.
        let root = self
            .layout
            .target
            .join("images")
            .join(name.rsplit('/').next().unwrap_or(name));
        process::remove_as_root(&root)?;
        fs::create_dir_all(&root).with_context(|| format!("could not make {}", root.display()))?;
        fill(&root)?;
        let container = self.buildah("making a base")?.args(["from", "scratch"]).read()?;
        let container = container.trim();
        let source = format!("{}/", root.display());
        self.buildah("filling a base")?
            .args(["add", "--quiet", container, &source, "/"])
            .read()?;
        self.buildah("naming a base")?
            .args(["commit", "--rm", "--quiet", "--format", "docker", container, name])
            .read()?;
        process::remove_as_root(&root)
    }

    fn storage(&self) -> PathBuf {
        self.layout.cache.join("images")
    }

    fn buildah(&self, purpose: &str) -> Result<Run> {
        let storage = self.storage();
        Ok(process::as_root(purpose, "buildah")?
            .args(["--storage-driver", "vfs", "--root"])
            .arg(storage.join("storage"))
            .arg("--runroot")
            .arg(storage.join("run")))
    }
}
