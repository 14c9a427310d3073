//! A folder that is swapped for a link while a tool opens it: what was checked is not what is used.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;
use serde_json::json;

use crate::attack::{Attack, Baseline, Expect, Surface};
use crate::scene::Scene;
use crate::secrets;

/// How many folders are swapped: a walk opens all of them.
const FOLDERS: usize = 100;
/// How often one call is repeated in one turn, of which there are more where the race is not met. Four tools make it.
const CALLS: usize = 300;
/// How often the walk is repeated. Two tools make it: with the calls, folders are opened 11,200 times while they are
/// swapped.
const WALKS: usize = 50;

fn folder(index: usize) -> String {
    format!("race-{index}")
}

/// Folders with a harmless file, and links to the canaries that change places with them as fast as it goes.
fn swapping(scene: &Scene) -> Result<()> {
    let pairs: Vec<(PathBuf, PathBuf)> = (0..FOLDERS)
        .map(|index| {
            (
                scene.workspace.join(folder(index)),
                scene.workspace.join(format!(".swap-{index}")),
            )
        })
        .collect();
    for (inside, link) in &pairs {
        fs::create_dir(inside)?;
        fs::write(inside.join("secret.txt"), "plue-canary inside\n")?;
        symlink(&scene.hidden, link)?;
    }
    // Once here, so that a file system that cannot do it is noticed.
    swap(&pairs[0].0, &pairs[0].1).context("exchange two names")?;
    scene.meanwhile(move || pairs.iter().all(|(one, other)| swap(one, other).is_ok()));
    Ok(())
}

/// Lets two names change places: at once, or in three steps where the kernel (gVisor's) cannot do that.
fn swap(one: &Path, other: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE) {
        Err(Errno::INVAL | Errno::NOSYS) => {
            let aside = other.with_extension("aside");
            fs::rename(one, &aside)?;
            // A tool that writes a file makes a folder for it, when it comes at this moment.
            fs::rename(other, one).or_else(|_| fs::remove_dir_all(one).and_then(|()| fs::rename(other, one)))?;
            fs::rename(&aside, other)
        }
        result => Ok(result?),
    }
}

/// Somebody who opens by path comes to the canary sooner or later.
fn is_won(scene: &Scene) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(10);
    let path = scene.workspace.join(folder(0)).join("secret.txt");
    let mut won = [false, false];
    while Instant::now() < end && won != [true, true] {
        if let Ok(bytes) = fs::read(&path) {
            won[usize::from(secrets::secret_in(&bytes, &scene.secrets.prefix).is_some())] = true;
        }
    }
    ensure!(won == [true, true], "the race is never won: {won:?}");
    Ok(())
}

pub const ATTACKS: &[Attack] = &[
    Attack::call(
        "files/swapped-while-it-is-opened",
        "a folder is swapped for a link out while a tool opens a file in it",
        |_, surface| match surface {
            Surface::WriteFile => json!({ "path": "race-1/secret.txt", "content": "written by an attack" }),
            Surface::ListFiles => json!({ "path": "race-1" }),
            Surface::Grep => json!({ "path": "race-1", "pattern": "plue-canary" }),
            _ => json!({ "path": "race-1/secret.txt" }),
        },
    )
    .setup(swapping)
    .repeat(CALLS)
    .expect(Expect::Raced(&["denied"]))
    .baseline(Baseline::Bounded(is_won)),
    Attack::call(
        "files/swapped-while-it-is-walked",
        "a hundred such folders are walked again and again",
        |_, surface| match surface {
            Surface::Grep => json!({ "pattern": "plue-canary" }),
            _ => json!({ "recursive": true, "include_hidden": true, "max_results": 1000 }),
        },
    )
    .on(&[Surface::ListFiles, Surface::Grep])
    .setup(swapping)
    .repeat(WALKS)
    .expect(Expect::Raced(&[]))
    .baseline(Baseline::Bounded(is_won)),
];
