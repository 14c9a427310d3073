//! A folder that is swapped for a link while a tool opens it: what was checked is not what is used.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::fs::{CWD, RenameFlags};
use serde_json::json;

use crate::attack::{Attack, Baseline, Surface};
use crate::scene::Scene;
use crate::secrets;

/// How many folders are swapped: a walk opens all of them.
const FOLDERS: usize = 100;
/// How often one call is repeated in one turn.
const CALLS: usize = 300;

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
        fs::write(inside.join("secret.txt"), "inside\n")?;
        symlink(&scene.hidden, link)?;
    }
    let swap =
        |(one, other): &(PathBuf, PathBuf)| rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE);
    // Once here, so that a file system that cannot do it is noticed.
    swap(&pairs[0]).context("exchange two names")?;
    scene.meanwhile(move || pairs.iter().all(|pair| swap(pair).is_ok()));
    Ok(())
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
    .repeat(30)
    .baseline(Baseline::Bounded(is_won)),
];
