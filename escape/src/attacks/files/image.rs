//! What a command does to files that it may see and not change: the image. And what it does to the workspace's own
//! place.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use plue_sandbox::mutation::Protection;

use crate::attack::{Attack, Baseline, Class};
use crate::sys;
use crate::target::{Outcome, Target};

const MOUNT: &[Protection] = &[Protection::Mount];
const NO_PLACE: Baseline = Baseline::Unless(&[libc::ENODATA], "no folder of the image takes files of ours");

/// What only gVisor has.
const GVISOR: &str = "/proc/sentry-meminfo";

/// Does something to a canary in the image.
fn in_the_image(target: &Target, what: &str, action: impl FnOnce(&Path) -> io::Result<()>) -> Outcome {
    let Some(folder) = &target.visible else {
        return Outcome::refused(
            "find a canary in the image",
            &io::Error::from_raw_os_error(libc::ENODATA),
        );
    };
    // What is not there cannot be changed, whoever holds what: that would say nothing about the mount.
    if !target.baseline
        && let Err(error) = fs::symlink_metadata(secret(folder))
    {
        if Path::new(GVISOR).exists() {
            return Outcome::held(
                "writable volumes are hidden in gVisor, where a read-only mount lets who may write truncate",
            );
        }
        return Outcome::Broken(format!("a command does not see {}: {error}", folder.display()));
    }
    Outcome::of(what, action(folder))
}

const fn image(id: &'static str, what: &'static str, run: fn(&Target) -> Outcome) -> Attack {
    Attack::program(id, Class::Files, what, run)
        .baseline(NO_PLACE)
        .falls_without(MOUNT)
}

/// Does something with the workspace's own folder.
const fn place(id: &'static str, what: &'static str, run: fn(&Target) -> Outcome) -> Attack {
    Attack::program(id, Class::Files, what, run).falls_without(MOUNT)
}

fn secret(folder: &Path) -> PathBuf {
    folder.join("secret.txt")
}

pub const ATTACKS: &[Attack] = &[
    image("files/image-write", "opens a file of the image for writing", |target| {
        in_the_image(target, "write", |folder| {
            fs::write(secret(folder), "written by an attack")
        })
    }),
    image(
        "files/image-append",
        "opens a file of the image for appending",
        |target| {
            in_the_image(target, "append", |folder| {
                let mut file = fs::File::options().append(true).open(secret(folder))?;
                io::Write::write_all(&mut file, b"more")
            })
        },
    ),
    image(
        "files/image-truncate-by-open",
        "truncates a file of the image by an open for reading",
        |target| {
            in_the_image(target, "truncate", |folder| {
                let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::TRUNC;
                Ok(rustix::fs::open(secret(folder), flags, rustix::fs::Mode::empty()).map(drop)?)
            })
        },
    ),
    image(
        "files/image-truncate-by-path",
        "truncate(2) on a file of the image",
        |target| in_the_image(target, "truncate", |folder| sys::truncate(&secret(folder), 0)),
    ),
    image(
        "files/image-reopen-by-descriptor",
        "opens a file for reading, and again for writing by /proc/self/fd",
        |target| {
            in_the_image(target, "open again for writing", |folder| {
                let file = fs::File::open(secret(folder))?;
                fs::write(format!("/proc/self/fd/{}", file.as_raw_fd()), "written by an attack")
            })
        },
    ),
    place(
        "files/times-of-a-device",
        "leaves a word for others in the times of a device, which is the machine's",
        |_| {
            if Path::new(GVISOR).exists() {
                // There it is the pod's own, which goes with it.
                return Outcome::refused(
                    "find a device of the machine",
                    &io::Error::from_raw_os_error(libc::EROFS),
                );
            }
            Outcome::of("utimensat", sys::touch(Path::new("/dev/null")))
        },
    )
    .baseline(Baseline::Unless(
        &[libc::EROFS, libc::EACCES],
        "this user may not even do that, or the device is the pod's own",
    )),
    image("files/image-create", "creates a file in the image", |target| {
        in_the_image(target, "create", |folder| {
            fs::File::create_new(folder.join("new")).map(drop)
        })
    }),
    image(
        "files/image-unnamed-file",
        "makes an unnamed file in the image (O_TMPFILE)",
        |target| {
            in_the_image(target, "O_TMPFILE", |folder| {
                let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::TMPFILE;
                Ok(rustix::fs::open(folder, flags, rustix::fs::Mode::RUSR).map(drop)?)
            })
        },
    )
    .baseline(Baseline::Unless(
        &[libc::ENODATA, libc::EOPNOTSUPP, libc::EISDIR, libc::EINVAL],
        "no canary in the image, or no unnamed files there",
    )),
    image("files/image-mkdir", "makes a folder in the image", |target| {
        in_the_image(target, "mkdir", |folder| fs::create_dir(folder.join("new")))
    }),
    image("files/image-unlink", "removes a file of the image", |target| {
        in_the_image(target, "unlink", |folder| fs::remove_file(secret(folder)))
    }),
    image("files/image-rmdir", "removes a folder of the image", |target| {
        in_the_image(target, "rmdir", |folder| fs::remove_dir_all(folder.join("folder")))
    }),
    image("files/image-rename", "renames a file of the image", |target| {
        in_the_image(target, "rename", |folder| {
            fs::rename(secret(folder), folder.join("renamed"))
        })
    }),
    image(
        "files/image-rename-over",
        "renames a file of the workspace over one of the image",
        |target| {
            in_the_image(target, "rename", |folder| {
                let ours = target.workspace.join("ours");
                fs::write(&ours, "written by an attack")?;
                fs::rename(&ours, secret(folder))
            })
        },
    )
    .baseline(Baseline::Unless(
        &[libc::ENODATA, libc::EXDEV],
        "no canary in the image, or on another file system",
    ))
    // The workspace is a mount of its own even then, and no link leads from one mount to another.
    .falls_without(&[])
    .beside_image(),
    image(
        "files/image-rename-into-the-workspace",
        "renames a read-only file into the workspace, to write it there",
        |target| {
            in_the_image(target, "rename", |folder| {
                fs::rename(secret(folder), target.workspace.join("taken"))
            })
        },
    )
    .baseline(Baseline::Unless(
        &[libc::ENODATA, libc::EXDEV],
        "no canary in the image, or on another file system",
    ))
    // The workspace is a mount of its own even then, and no link leads from one mount to another.
    .falls_without(&[])
    .beside_image(),
    image(
        "files/image-link-into-the-workspace",
        "links a read-only file into the workspace, to write it there (RUSTSEC-2026-0188)",
        |target| {
            in_the_image(target, "link and write", |folder| {
                let ours = target.workspace.join("linked");
                fs::hard_link(secret(folder), &ours)?;
                fs::write(ours, "written by an attack")
            })
        },
    )
    .baseline(Baseline::Unless(
        &[libc::ENODATA, libc::EXDEV, libc::EPERM],
        "no canary in the image, or on another file system, or links are protected",
    ))
    // The workspace is a mount of its own even then, and no link leads from one mount to another.
    .falls_without(&[])
    .beside_image(),
    image(
        "files/image-link",
        "makes a second name for a file of the image",
        |target| {
            in_the_image(target, "link", |folder| {
                fs::hard_link(secret(folder), folder.join("linked"))
            })
        },
    )
    .baseline(Baseline::Unless(
        &[libc::ENODATA, libc::EPERM],
        "no canary in the image, or links are protected",
    )),
    image("files/image-symlink", "makes a link in the image", |target| {
        in_the_image(target, "symlink", |folder| symlink("/", folder.join("new")))
    }),
    image(
        "files/image-chmod",
        "changes the mode of a file of the image",
        |target| {
            in_the_image(target, "chmod", |folder| {
                fs::set_permissions(secret(folder), fs::Permissions::from_mode(0o4755))
            })
        },
    )
    // Without the mount it is still the owner's to do.
    .falls_without(&[]),
    image(
        "files/image-times",
        "changes the times of a file of the image",
        |target| in_the_image(target, "utimensat", |folder| sys::touch(&secret(folder))),
    ),
    image(
        "files/image-attributes",
        "sets an extended attribute on a file of the image",
        |target| {
            in_the_image(target, "setxattr", |folder| {
                Ok(rustix::fs::setxattr(
                    secret(folder),
                    "user.plue",
                    b"x",
                    rustix::fs::XattrFlags::empty(),
                )?)
            })
        },
    )
    .baseline(Baseline::Unless(
        &[libc::ENODATA, libc::EOPNOTSUPP],
        "no canary in the image, or no attributes there",
    )),
    image("files/image-fifo", "makes a FIFO in the image", |target| {
        in_the_image(target, "mknod", |folder| {
            let kind = rustix::fs::FileType::Fifo;
            Ok(rustix::fs::mknodat(
                rustix::fs::CWD,
                folder.join("fifo"),
                kind,
                rustix::fs::Mode::RUSR,
                0,
            )?)
        })
    }),
    image("files/image-socket", "binds a socket file in the image", |target| {
        in_the_image(target, "bind", |folder| {
            std::os::unix::net::UnixListener::bind(folder.join("socket")).map(drop)
        })
    }),
    image(
        "files/image-file-handle",
        "opens a file of the image by its handle (the shocker of 2014)",
        |target| {
            in_the_image(target, "open_by_handle_at", |folder| {
                sys::open_by_handle(&secret(folder))
            })
        },
    )
    .baseline(Baseline::Unless(
        &[libc::ENODATA, libc::EPERM, libc::ENOSYS, libc::EOPNOTSUPP, libc::ESTALE],
        "no canary in the image, or no file handles for this user",
    ))
    .falls_without(&[]),
    image(
        "files/image-map-for-writing",
        "maps a file of the image, shared and writable",
        |target| {
            in_the_image(target, "mmap", |folder| {
                let file = fs::File::options().read(true).write(true).open(secret(folder))?;
                sys::map_and_write(&file)
            })
        },
    ),
    place(
        "files/hard-link-to-the-outside",
        "links a file from outside into the workspace and writes it",
        |target| {
            let ours = target.workspace.join("linked");
            let result = fs::hard_link(target.hidden.join("secret.txt"), &ours);
            Outcome::of(
                "link and write",
                result.and_then(|()| fs::write(ours, "written by an attack")),
            )
        },
    )
    // The workspace is a mount of its own even then, and no link leads from one mount to another.
    .falls_without(&[]),
    place("files/rename-the-workspace", "renames the workspace itself", |target| {
        Outcome::of(
            "rename",
            fs::rename(&target.workspace, target.workspace.with_extension("moved")),
        )
    })
    .not_live()
    // The workspace is a mount of its own even then, which nobody can move.
    .falls_without(&[]),
    place(
        "files/rename-over-the-workspace",
        "renames a folder over the workspace",
        |target| {
            let new = target.hidden.join("new");
            let result = fs::create_dir(&new).and_then(|()| fs::rename(&target.workspace, new.join("workspace")));
            match result {
                // In its own /tmp a command may make what it likes: it counts when the outside sees it.
                Ok(()) => Outcome::GotThrough("the workspace has another place".to_owned()),
                Err(error) => Outcome::refused("rename", &error),
            }
        },
    )
    .not_live()
    // The workspace is a mount of its own even then, which nobody can move.
    .falls_without(&[]),
    place(
        "files/remove-the-workspace",
        "removes the workspace itself and puts a link in its place",
        |target| {
            let result = fs::rename(&target.workspace, target.workspace.with_extension("gone"));
            Outcome::of(
                "replace",
                result.and_then(|()| symlink(target.hidden.join("folder"), &target.workspace)),
            )
        },
    )
    .not_live()
    // The workspace is a mount of its own even then, which nobody can move.
    .falls_without(&[]),
    Attack::program(
        "files/private-places",
        Class::Files,
        "reads what lies in homes and among what runs",
        |target| {
            if target.private.is_empty() {
                return Outcome::refused("find such a place", &io::Error::from_raw_os_error(libc::ENODATA));
            }
            Outcome::any(
                target
                    .private
                    .iter()
                    .map(|folder| Outcome::of("read", fs::read(secret(folder)))),
            )
        },
    )
    .baseline(Baseline::Unless(
        &[libc::ENODATA],
        "no home and no /run takes files of ours",
    ))
    .falls_without(MOUNT),
];
