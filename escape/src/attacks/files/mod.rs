//! Ways out of the workspace by files.

use crate::attack::{Attack, Kind};

mod image;
pub mod kinds;
mod links;
mod paths;
mod races;

pub const ATTACKS: &[&[Attack]] = &[
    paths::ATTACKS,
    links::ATTACKS,
    kinds::ATTACKS,
    races::ATTACKS,
    image::ATTACKS,
];

/// A file or a folder of the canaries, below a place that leads there.
fn canary(place: &str, kind: Kind) -> String {
    match kind {
        Kind::File => format!("{place}/secret.txt"),
        Kind::Folder => format!("{place}/folder"),
    }
}
