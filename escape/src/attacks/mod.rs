//! The table of attacks, one file a chapter.

use crate::attack::Attack;

mod components;
mod files;
mod input;
mod network;
mod processes;

/// All attacks, in the order of the threat model.
pub fn all() -> Vec<Attack> {
    let tables = [
        files::ATTACKS,
        processes::ATTACKS,
        network::ATTACKS,
        components::ATTACKS,
        input::ATTACKS,
    ];
    tables.concat().concat()
}
