//! Files that are no plain files, as a component meets them that asks `wasi:filesystem` itself.

use anyhow::Result;
use support::guest::filesystem::{CREATE, Calls, FOLLOW, NO_FOLLOW, READ, ROOT, WRITE};

use super::filesystem::inside;
use super::{Make, NAME, component, tool};
use crate::attack::{Attack, Expect, Plugin};
use crate::attacks::files::kinds;
use crate::scene::Scene;

/// Under the largest grant, and with little time.
fn write(calls: Calls) -> Result<Plugin> {
    tool(&calls.guest(NAME), "workspace = \"read-write\"\nlimits.deadline = 2")
}

/// The same calls on a plain file.
fn plain(_: &Scene) -> Result<Plugin> {
    write(Calls::new().read_at("inside.txt", FOLLOW))
}

/// It is refused, or it ends by its deadline: neither the runner nor the next call waits for it.
const fn ends(id: &'static str, what: &'static str, hostile: Make) -> Attack {
    component(id, what, hostile, plain)
        .setup(inside)
        .expect(Expect::Denied(&["denied", "failed", "timeout"]))
        .differing()
}

/// Reads as much as it gets of a file that has more than anybody wants.
const fn bounded(id: &'static str, what: &'static str, hostile: Make) -> Attack {
    component(id, what, hostile, plain)
        .setup(inside)
        .expect(Expect::Contained)
        .differing()
}

fn all_of(name: &str) -> Result<Plugin> {
    write(Calls::new().open(ROOT, name, NO_FOLLOW, 0, READ).read(1, u64::MAX))
}

pub const ATTACKS: &[Attack] = &[
    ends(
        "components/fifo",
        "open_at of a FIFO that nobody writes, which takes for ever",
        |scene| {
            kinds::fifo(scene)?;
            write(Calls::new().read_at("fifo", NO_FOLLOW))
        },
    ),
    ends(
        "components/fifo-for-writing",
        "open_at for writing of a FIFO that nobody reads",
        |scene| {
            kinds::fifo(scene)?;
            write(Calls::new().open(ROOT, "fifo", NO_FOLLOW, CREATE, WRITE).write(1, "x"))
        },
    ),
    ends("components/socket-file", "open_at of a socket file", |scene| {
        kinds::socket(scene)?;
        write(Calls::new().read_at("socket", NO_FOLLOW))
    }),
    ends(
        "components/dev-zero-by-link",
        "open_at of a link to /dev/zero, of which there is no end",
        |scene| {
            scene.link("zero", "/dev/zero")?;
            write(Calls::new().read_at("zero", FOLLOW))
        },
    ),
    bounded(
        "components/sparse-file",
        "a read of 2^64 bytes of a file of 1 TiB that holds nothing",
        |scene| {
            kinds::sparse(scene)?;
            all_of("sparse")
        },
    ),
    bounded(
        "components/growing-file",
        "a read of 2^64 bytes of a file that grows meanwhile",
        |scene| {
            kinds::growing(scene)?;
            all_of("growing")
        },
    ),
];
