//! Ways out of the workspace by `wasi:filesystem` itself, under the largest grant: no library is there that would look
//! at a path first. Among them are the reproductions of the advisories of wasmtime-wasi.

use anyhow::Result;
use support::guest::filesystem::{
    CREATE, Calls, DIRECTORY, EXCLUSIVE, FOLLOW, MUTATE, NO_FOLLOW, READ, ROOT, TRUNCATE, WRITE,
};

use super::{Make, NAME, component, tool};
use crate::attack::{Attack, Expect, Plugin};
use crate::scene::Scene;

/// What the workspace holds for these attacks.
pub fn inside(scene: &Scene) -> Result<()> {
    scene.file("inside.txt", "inside\n")?;
    scene.file("folder/inner-file.txt", "inner\n")?;
    scene.link("to-inside", "inside.txt")?;
    scene.link("to-folder", "folder/")
}

pub fn plugin(calls: Calls, grant: &str) -> Result<Plugin> {
    tool(&calls.guest(NAME), &format!("workspace = \"{grant}\""))
}

/// Under the largest grant.
fn write(calls: Calls) -> Result<Plugin> {
    plugin(calls, "read-write")
}

/// An attack that the file system refuses as one that leads outside; its harmless form stays inside.
const fn denied(id: &'static str, what: &'static str, hostile: Make, harmless: Make) -> Attack {
    component(id, what, hostile, harmless)
        .setup(inside)
        .expect(Expect::Denied(&["denied"]))
        .resolving_paths()
}

fn read(path: &str) -> Result<Plugin> {
    write(Calls::new().read_at(path, FOLLOW))
}

/// Reads through a link with this target.
fn read_link(scene: &Scene, target: &str) -> Result<Plugin> {
    scene.link("hostile-link", target)?;
    read("hostile-link")
}

/// Opens a folder by this path, and reads a file in it.
fn through(path: &str, follow: u32, file: &str) -> Calls {
    Calls::new()
        .open(ROOT, path, follow, DIRECTORY, READ)
        .open(1, file, NO_FOLLOW, 0, READ)
        .read(2, 4096)
}

fn absolute(scene: &Scene, path: &str) -> String {
    scene.hidden.join(path).display().to_string()
}

pub const ATTACKS: &[Attack] = &[
    denied(
        "components/open-parent",
        "open_at with `..` at the start",
        |_| read("../secret.txt"),
        |_| read("inside.txt"),
    ),
    denied(
        "components/open-parent-in-the-middle",
        "open_at with more `..` than there are folders",
        |_| read("folder/../../secret.txt"),
        |_| read("folder/../inside.txt"),
    ),
    denied(
        "components/open-absolute",
        "open_at with an absolute path outside",
        |scene| read(&absolute(scene, "secret.txt")),
        |_| read("inside.txt"),
    ),
    denied(
        "components/open-parent-as-a-folder",
        "open_at of `..` itself, and a file in it",
        |_| write(through("..", NO_FOLLOW, "secret.txt")),
        |_| write(through("folder", NO_FOLLOW, "inner-file.txt")),
    ),
    denied(
        "components/open-parent-of-an-inner-folder",
        "open_at of `../..` from the handle of a folder inside",
        |_| {
            let calls = Calls::new().open(ROOT, "folder", NO_FOLLOW, DIRECTORY, READ);
            write(calls.open(1, "../../secret.txt", NO_FOLLOW, 0, READ).read(2, 4096))
        },
        |_| write(through("folder", NO_FOLLOW, "inner-file.txt")),
    ),
    denied(
        "components/open-link-relative",
        "a symbolic link that leads outside by `..`",
        |scene| read_link(scene, "../secret.txt"),
        |scene| read_link(scene, "inside.txt"),
    ),
    denied(
        "components/open-link-absolute",
        "a symbolic link with an absolute target",
        |scene| read_link(scene, &absolute(scene, "secret.txt")),
        |scene| read_link(scene, "inside.txt"),
    ),
    denied(
        "components/open-link-to-the-root",
        "a symbolic link to `/`, as the first part of a path",
        |scene| {
            scene.link("root", "/")?;
            read(&format!("root{}", absolute(scene, "secret.txt")))
        },
        |scene| {
            scene.link("root", ".")?;
            read("root/inside.txt")
        },
    ),
    denied(
        "components/open-link-to-proc",
        "a symbolic link to the runner's own root in /proc",
        |scene| {
            scene.link("root", "/proc/self/root")?;
            read(&format!("root{}", absolute(scene, "secret.txt")))
        },
        |scene| {
            scene.link("root", ".")?;
            read("root/inside.txt")
        },
    ),
    denied(
        "components/open-link-chain",
        "a chain of symbolic links of which the last leads outside",
        |scene| {
            scene.link("third", "../secret.txt")?;
            scene.link("folder/second", "../third")?;
            read_link(scene, "folder/second")
        },
        |scene| {
            scene.link("third", "inside.txt")?;
            scene.link("folder/second", "../third")?;
            read_link(scene, "folder/second")
        },
    ),
    denied(
        "components/open-folder-link",
        "a symbolic link to a folder outside, in the middle of a path",
        |scene| {
            scene.link("out", "../folder")?;
            read("out/inner.txt")
        },
        |_| read("to-folder/inner-file.txt"),
    ),
    // RUSTSEC-2026-0269 (GHSA-vqjp-4c8c-hfgg), four forms: a slash at the end of the path or of a link's target made
    // the last link be followed by the kernel.
    denied(
        "components/trailing-slash-in-the-path",
        "a link to a folder outside, with a `/` behind it and no order to follow (RUSTSEC-2026-0269)",
        |scene| {
            scene.link("out", "../folder")?;
            write(through("out/", NO_FOLLOW, "inner.txt"))
        },
        |_| write(through("folder/", NO_FOLLOW, "inner-file.txt")),
    ),
    denied(
        "components/trailing-slash-and-dot",
        "a link to a folder outside, with `/.` behind it (RUSTSEC-2026-0269)",
        |scene| {
            scene.link("out", "../folder")?;
            write(through("out/.", NO_FOLLOW, "inner.txt"))
        },
        |_| write(through("folder/.", NO_FOLLOW, "inner-file.txt")),
    ),
    denied(
        "components/trailing-slash-in-the-target",
        "a link whose target ends in `/` (RUSTSEC-2026-0269)",
        |scene| {
            scene.link("second", "../folder")?;
            scene.link("out", "second/")?;
            write(through("out", FOLLOW, "inner.txt"))
        },
        |_| write(through("to-folder", FOLLOW, "inner-file.txt")),
    ),
    denied(
        "components/trailing-slash-made-by-itself",
        "links that the component makes itself, with a `/` at the end of each (RUSTSEC-2026-0269)",
        |_| {
            let links = Calls::new().symlink("../folder", "second").symlink("second/", "out");
            write(
                links
                    .open(ROOT, "out/", FOLLOW, DIRECTORY, READ)
                    .open(1, "inner.txt", NO_FOLLOW, 0, READ)
                    .read(2, 4096),
            )
        },
        |_| {
            let links = Calls::new().symlink("folder", "second").symlink("second/", "out");
            write(
                links
                    .open(ROOT, "out/", FOLLOW, DIRECTORY, READ)
                    .open(1, "inner-file.txt", NO_FOLLOW, 0, READ)
                    .read(2, 4096),
            )
        },
    ),
    denied(
        "components/make-folder-by-a-slash",
        "a folder made through a dangling link with a `/` behind it (RUSTSEC-2026-0269)",
        |scene| {
            scene.link("out", "../made")?;
            write(Calls::new().make_folder("out/"))
        },
        |_| write(Calls::new().make_folder("made/")),
    )
    .expect(Expect::Denied(&["denied", "failed"])),
    denied(
        "components/make-link-and-follow",
        "symlink_at to a place outside, and open_at through it",
        |_| write(Calls::new().symlink("../secret.txt", "made").read_at("made", FOLLOW)),
        |_| write(Calls::new().symlink("inside.txt", "made").read_at("made", FOLLOW)),
    ),
    denied(
        "components/make-link-absolute",
        "symlink_at with an absolute target",
        |scene| {
            write(
                Calls::new()
                    .symlink(&absolute(scene, "secret.txt"), "made")
                    .read_at("made", FOLLOW),
            )
        },
        |_| write(Calls::new().symlink("inside.txt", "made").read_at("made", FOLLOW)),
    ),
    denied(
        "components/make-link-outside",
        "symlink_at that puts a link outside",
        |_| write(Calls::new().symlink("workspace", "../planted")),
        |_| write(Calls::new().symlink("inside.txt", "planted")),
    ),
    denied(
        "components/hard-link-from-outside",
        "link_at of a file outside, and the file read by its new name",
        |_| {
            write(
                Calls::new()
                    .link("../secret.txt", NO_FOLLOW, "made")
                    .read_at("made", NO_FOLLOW),
            )
        },
        |_| {
            write(
                Calls::new()
                    .link("inside.txt", NO_FOLLOW, "made")
                    .read_at("made", NO_FOLLOW),
            )
        },
    ),
    denied(
        "components/hard-link-to-outside",
        "link_at that puts a file of the workspace outside",
        |_| write(Calls::new().link("inside.txt", NO_FOLLOW, "../planted")),
        |_| write(Calls::new().link("inside.txt", NO_FOLLOW, "planted")),
    ),
    denied(
        "components/hard-link-through-a-link",
        "link_at that follows a link to a file outside",
        |scene| {
            scene.link("out", "../secret.txt")?;
            write(Calls::new().link("out", FOLLOW, "made").read_at("made", NO_FOLLOW))
        },
        |_| {
            write(
                Calls::new()
                    .link("inside.txt", NO_FOLLOW, "made")
                    .read_at("made", NO_FOLLOW),
            )
        },
    )
    .expect(Expect::Denied(&["denied", "failed"])),
    denied(
        "components/rename-to-outside",
        "rename_at of a file of the workspace to a place outside",
        |_| write(Calls::new().rename("inside.txt", "../planted")),
        |_| write(Calls::new().rename("inside.txt", "planted")),
    ),
    denied(
        "components/rename-from-outside",
        "rename_at of a file outside into the workspace",
        |_| write(Calls::new().rename("../secret.txt", "stolen")),
        |_| write(Calls::new().rename("inside.txt", "stolen")),
    ),
    denied(
        "components/rename-over-the-root",
        "rename_at of a folder over the workspace itself",
        |_| write(Calls::new().rename("folder", "../workspace")),
        |_| write(Calls::new().rename("folder", "renamed")),
    ),
    denied(
        "components/rename-the-root",
        "rename_at of the workspace itself, by `.`",
        |_| write(Calls::new().rename(".", "folder/workspace")),
        |_| write(Calls::new().rename("inside.txt", "folder/workspace")),
    )
    .expect(Expect::Denied(&["denied", "failed"])),
    denied(
        "components/remove-outside",
        "unlink_file_at of a file outside",
        |_| write(Calls::new().unlink("../secret.txt")),
        |_| write(Calls::new().unlink("inside.txt")),
    ),
    denied(
        "components/remove-folder-outside",
        "remove_directory_at of a folder outside",
        |_| write(Calls::new().remove_folder("../workspace-evil/folder/deeper")),
        |_| write(Calls::new().make_folder("empty").remove_folder("empty")),
    ),
    denied(
        "components/remove-the-root",
        "remove_directory_at of the workspace itself",
        |_| write(Calls::new().remove_folder(".")),
        |_| write(Calls::new().make_folder("empty").remove_folder("empty")),
    )
    .expect(Expect::Denied(&["denied", "failed"])),
    denied(
        "components/make-folder-outside",
        "create_directory_at outside",
        |_| write(Calls::new().make_folder("../planted")),
        |_| write(Calls::new().make_folder("planted")),
    ),
    denied(
        "components/create-outside",
        "open_at that creates a file outside",
        |_| write(Calls::new().open(ROOT, "../planted", NO_FOLLOW, CREATE | EXCLUSIVE, READ | WRITE)),
        |_| write(Calls::new().open(ROOT, "planted", NO_FOLLOW, CREATE | EXCLUSIVE, READ | WRITE)),
    ),
    denied(
        "components/create-through-a-dangling-link",
        "open_at that creates a file through a link to a place that is not there yet",
        |scene| {
            scene.link("out", "../planted")?;
            write(
                Calls::new()
                    .open(ROOT, "out", FOLLOW, CREATE, READ | WRITE)
                    .write(1, "planted"),
            )
        },
        |_| {
            write(
                Calls::new()
                    .open(ROOT, "planted", FOLLOW, CREATE, READ | WRITE)
                    .write(1, "planted"),
            )
        },
    ),
    denied(
        "components/truncate-outside",
        "open_at that cuts a file outside to nothing",
        |scene| {
            scene.link("out", "../secret.txt")?;
            write(Calls::new().open(ROOT, "out", FOLLOW, TRUNCATE, READ | WRITE))
        },
        |_| write(Calls::new().open(ROOT, "to-inside", FOLLOW, TRUNCATE, READ | WRITE)),
    ),
    denied(
        "components/times-outside",
        "set_times_at of a file outside, through a link",
        |scene| {
            scene.link("out", "../secret.txt")?;
            write(Calls::new().set_times_at("out", FOLLOW))
        },
        |_| write(Calls::new().set_times_at("to-inside", FOLLOW)),
    ),
    denied(
        "components/times-outside-by-a-path",
        "set_times_at of a file outside, by `..`",
        |_| write(Calls::new().set_times_at("../secret.txt", NO_FOLLOW)),
        |_| write(Calls::new().set_times_at("inside.txt", NO_FOLLOW)),
    ),
    denied(
        "components/stat-outside",
        "stat_at of a file outside: its size and times",
        |_| write(Calls::new().stat("../secret.txt", NO_FOLLOW)),
        |_| write(Calls::new().stat("inside.txt", NO_FOLLOW)),
    ),
    denied(
        "components/stat-outside-through-a-link",
        "stat_at of a file outside, through a link",
        |scene| {
            scene.link("out", "../secret.txt")?;
            write(Calls::new().stat("out", FOLLOW))
        },
        |_| write(Calls::new().stat("to-inside", FOLLOW)),
    ),
    denied(
        "components/hash-outside",
        "metadata_hash_at of a file outside, which tells whether it is there",
        |_| write(Calls::new().hash("../secret.txt", NO_FOLLOW)),
        |_| write(Calls::new().hash("inside.txt", NO_FOLLOW)),
    ),
    denied(
        "components/read-link-outside",
        "readlink_at of a link that lies outside",
        |_| write(Calls::new().read_link("../link")),
        |_| write(Calls::new().read_link("to-inside")),
    ),
    denied(
        "components/read-link-absolute",
        "readlink_at of a link in the workspace that names a place outside",
        |scene| {
            scene.link("out", absolute(scene, "secret.txt"))?;
            write(Calls::new().read_link("out"))
        },
        |_| write(Calls::new().read_link("to-inside")),
    ),
    denied(
        "components/nul-in-a-path",
        "a path with a NUL, of which the kernel would see the beginning only",
        |_| read("inside.txt\0/../../secret.txt"),
        |_| read("inside.txt"),
    )
    .expect(Expect::Denied(&["denied", "failed", "not_found"])),
    denied(
        "components/link-to-itself",
        "a symbolic link to itself",
        |scene| read_link(scene, "hostile-link"),
        |scene| read_link(scene, "inside.txt"),
    )
    .expect(Expect::Denied(&["failed"])),
    component(
        "components/read-of-all-there-is",
        "a read of 2^64 bytes at once, for which the host would need memory first",
        |_| {
            let all = Calls::new().open(ROOT, "inside.txt", NO_FOLLOW, 0, READ);
            write(all.read(1, u64::MAX))
        },
        |_| read("inside.txt"),
    )
    .setup(inside)
    .expect(Expect::Answers("inside\n")),
    denied(
        "components/size-beyond-the-kernels",
        "set_size to 2^63 bytes and more",
        |_| {
            let open = Calls::new().open(ROOT, "inside.txt", NO_FOLLOW, 0, READ | WRITE);
            write(open.set_size(1, u64::MAX))
        },
        |_| {
            let open = Calls::new().open(ROOT, "inside.txt", NO_FOLLOW, 0, READ | WRITE);
            write(open.set_size(1, 1000))
        },
    )
    .expect(Expect::Denied(&["denied", "failed"])),
    denied(
        "components/workspace-that-is-not-given",
        "wasi:filesystem without any grant",
        |_| tool(&Calls::new().read_at("inside.txt", NO_FOLLOW).guest(NAME), ""),
        |_| read("inside.txt"),
    )
    .falls_without(&[plue_sandbox::mutation::Protection::Grant]),
    denied(
        "components/write-with-a-read-handle",
        "a write with a handle that was opened for reading",
        |_| {
            write(
                Calls::new()
                    .open(ROOT, "inside.txt", NO_FOLLOW, 0, READ)
                    .write(1, "written"),
            )
        },
        |_| {
            write(
                Calls::new()
                    .open(ROOT, "inside.txt", NO_FOLLOW, 0, READ | WRITE)
                    .write(1, "written"),
            )
        },
    )
    .expect(Expect::Denied(&["denied", "failed"])),
    denied(
        "components/folder-handle-that-may-not-change",
        "a file created by the handle of a folder that was opened for reading",
        |_| {
            let folder = Calls::new().open(ROOT, "folder", NO_FOLLOW, DIRECTORY, READ);
            write(folder.open(1, "../../planted", NO_FOLLOW, CREATE, READ | WRITE))
        },
        |_| {
            let folder = Calls::new().open(ROOT, "folder", NO_FOLLOW, DIRECTORY, READ | MUTATE);
            write(folder.open(1, "planted", NO_FOLLOW, CREATE, READ | WRITE))
        },
    ),
];
