//! Ways from a read grant to a change: each function of `wasi:filesystem` that changes something.

use plue_sandbox::mutation::Protection;
use support::guest::filesystem::{CREATE, Calls, DIRECTORY, FOLLOW, MUTATE, NO_FOLLOW, READ, ROOT, TRUNCATE, WRITE};

use super::filesystem::{inside, plugin};
use super::{Make, component};
use crate::attack::{Attack, Expect};

/// What a read grant refuses, and a read-write grant allows; so the grant is all that holds it.
const fn denied(id: &'static str, what: &'static str, hostile: Make, harmless: Make) -> Attack {
    component(id, what, hostile, harmless)
        .setup(inside)
        .expect(Expect::Denied(&["denied", "failed"]))
        .resolving_paths()
        .falls_without(&[Protection::Grant])
}

/// One row: the same calls under both grants.
macro_rules! change {
    ($id:literal, $what:literal, $calls:expr) => {
        denied(
            concat!("components/read-only-", $id),
            $what,
            |_| plugin($calls, "read"),
            |_| plugin($calls, "read-write"),
        )
    };
}

/// Opens the file of the workspace as far as a read grant lets it.
fn opened(flags: u32) -> Calls {
    Calls::new().open(ROOT, "inside.txt", NO_FOLLOW, 0, flags)
}

pub const ATTACKS: &[Attack] = &[
    change!(
        "create",
        "open_at that creates a file, under a read grant",
        Calls::new().open(ROOT, "made", NO_FOLLOW, CREATE, READ)
    ),
    change!(
        "open-for-writing",
        "open_at for writing, under a read grant",
        opened(READ | WRITE)
    ),
    change!(
        "truncate",
        "open_at that only cuts a file to nothing, under a read grant (GHSA-2r75-cxrj-cmph)",
        Calls::new().open(ROOT, "inside.txt", NO_FOLLOW, TRUNCATE, READ)
    ),
    change!(
        "truncate-for-writing",
        "open_at for writing alone that cuts a file to nothing, under a read grant",
        Calls::new().open(ROOT, "to-inside", FOLLOW, TRUNCATE, WRITE)
    ),
    change!(
        "write",
        "a write by descriptor, under a read grant",
        opened(READ | WRITE).write(1, "written")
    ),
    change!(
        "write-stream",
        "a stream that writes, under a read grant",
        opened(READ | WRITE).write_stream(1)
    ),
    change!(
        "append-stream",
        "a stream that appends, under a read grant",
        opened(READ | WRITE).append_stream(1)
    ),
    change!(
        "set-size",
        "set_size, under a read grant",
        opened(READ | WRITE).set_size(1, 0)
    ),
    change!(
        "set-times",
        "set_times by descriptor, under a read grant",
        opened(READ).set_times(1)
    ),
    change!(
        "set-times-at",
        "set_times_at by a path, under a read grant",
        Calls::new().set_times_at("inside.txt", FOLLOW)
    ),
    change!(
        "make-folder",
        "create_directory_at, under a read grant",
        Calls::new().make_folder("made")
    ),
    change!("remove-folder", "remove_directory_at, under a read grant", {
        Calls::new().unlink("folder/inner-file.txt").remove_folder("folder")
    }),
    change!(
        "unlink",
        "unlink_file_at, under a read grant",
        Calls::new().unlink("inside.txt")
    ),
    change!(
        "symlink",
        "symlink_at, under a read grant",
        Calls::new().symlink("inside.txt", "made")
    ),
    change!(
        "hard-link",
        "link_at, under a read grant (RUSTSEC-2026-0188)",
        Calls::new().link("inside.txt", NO_FOLLOW, "made")
    ),
    change!(
        "rename",
        "rename_at, under a read grant (RUSTSEC-2026-0188)",
        Calls::new().rename("inside.txt", "made")
    ),
    change!(
        "folder-for-changing",
        "a folder opened for changes in it, under a read grant, and a file made there",
        Calls::new()
            .open(ROOT, "folder", NO_FOLLOW, DIRECTORY, READ | MUTATE)
            .open(1, "made", NO_FOLLOW, CREATE, READ | WRITE)
    ),
];
