//! What commands see of /sys: the processors, and their own bounds as a control group of the second version shows them.
//!
//! Programs that fit themselves to a machine look there, and find the machine's memory otherwise: Node's and Java's
//! heaps then grow until their command is ended, where they could have collected garbage.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::mount::{MountFlags, mount};

use super::place::{Source, folder_below, tmpfs};
use super::plan::Plan;
use super::pod;
use super::rights::{Right, restrict};

/// Where they are.
pub(super) const FOLDER: &str = "/sys";
/// The processors, as the kernel shows them.
pub(super) const PROCESSORS: &str = "/sys/devices/system/cpu";
/// Where a control group is looked for.
pub(super) const GROUP: &str = "/sys/fs/cgroup";

/// Which controllers there are. On a machine that has groups of the first version, too, Java would look for those.
pub(super) const CONTROLLERS: (&str, &str) = (
    "cgroups",
    "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpuset\t0\t1\t1\ncpu\t0\t1\t1\ncpuacct\t0\t1\t1\nmemory\t0\t1\t1\n\
     blkio\t0\t1\t1\npids\t0\t1\t1\n",
);

/// Puts them into the folder of commands, which is empty and can be written still.
pub(super) fn show(stage: &Path, plan: &Plan, processors: Option<&Source>) -> io::Result<()> {
    if let Some(processors) = processors {
        let place = folder_below(stage, Path::new(PROCESSORS));
        fs::create_dir_all(&place)?;
        processors.bind(&place)?;
        restrict(&place, Right::Read, true)?;
    }
    let place = folder_below(stage, Path::new(GROUP));
    fs::create_dir_all(&place)?;
    // Some look in the table of mounts for the kind of what is mounted there. The files of the real one would be the
    // pod's: ours lie over them. Where a process may not have it mounted, those programs see what the kernel tells.
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RDONLY;
    let _ = mount("cgroup2", &place, "cgroup2", flags, None);
    tmpfs(&place, c"mode=755,size=64k")?;
    fs::create_dir(place.join("memory"))?;
    for (name, content) in files(plan) {
        let file = place.join(name);
        fs::write(&file, content + "\n")?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o444))?;
    }
    restrict(&place, Right::Read, false)
}

/// What is known of the bounds. What is used now is not told: a file that stands still would lie.
///
/// Those in a folder are for older programs, which look where the first version has them, and for those that take that
/// place from the machine's table of mounts when it has both versions.
fn files(plan: &Plan) -> [(&'static str, String); 9] {
    let processors = plan.processor_share.as_ref();
    [
        ("cgroup.controllers", "cpu memory pids".to_owned()),
        ("memory.max", plan.memory.to_string()),
        ("memory.high", "max".to_owned()),
        ("memory.swap.max", "max".to_owned()),
        (
            "cpu.max",
            processors.map_or_else(|| pod::ALL_PROCESSORS.to_owned(), Clone::clone),
        ),
        ("pids.max", plan.processes.to_string()),
        ("memory/memory.max", plan.memory.to_string()),
        ("memory/memory.limit_in_bytes", plan.memory.to_string()),
        ("memory/memory.soft_limit_in_bytes", plan.memory.to_string()),
    ]
}
