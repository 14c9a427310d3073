//! `cargo xtask capacity`: how large a pool of warm runners must be, by simulation.
//!
//! A crate of its own and no default member: what it draws and rolls dice with is not built for `cargo xtask demo`.
#![forbid(unsafe_code)]

mod calendar;
mod draws;
mod erlang;
mod options;
mod plot;
mod poll_schedule;
mod pool;
mod simulation;
mod table;

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;

use options::Options;
use pool::Pool;
use simulation::{Load, Measured};

/// What a pool is to hold: so many percent of the tasks wait no longer than so many seconds.
#[derive(Clone, Copy, Debug)]
struct Aim {
    percent: f64,
    seconds: f64,
}

impl Aim {
    fn is_held(self, measured: &Measured) -> bool {
        measured.wait(self.percent) <= self.seconds
    }
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let load = options.load()?;
    let scaling = options.scaling()?;
    if let Some(file) = &options.plot {
        eprintln!("==> drawing the plot");
        plot::draw(options, &load, file)?;
        eprintln!("    written to {}", file.display());
        return Ok(());
    }
    let pool = |size| match scaling {
        Some(scaling) => Pool::Scaled { idle: size, scaling },
        None => Pool::Fixed(size),
    };
    let mut found = BTreeMap::new();
    let mut smallest = None;
    if options.runners.is_empty() {
        // The idle ones of an autoscaled pool come on top of those that are busy.
        let least = if scaling.is_some() { 0 } else { least_pool(&load) };
        smallest = Some(search(&load, options.aim()?, least, pool, &mut found)?);
    }
    for size in &options.runners {
        found.insert(*size, simulation::run(&load, pool(*size)));
    }
    table::print(options, &load, &found, smallest)?;
    Ok(())
}

/// The smallest pool that keeps up.
fn least_pool(load: &Load) -> u32 {
    load.busy().floor() as u32 + 1
}

/// The smallest size from `least` on that holds the aim. What was simulated on the way goes into `found`.
fn search(
    load: &Load,
    aim: Aim,
    least: u32,
    pool: impl Fn(u32) -> Pool,
    found: &mut BTreeMap<u32, Measured>,
) -> Result<u32> {
    let mut holds = |size: u32| {
        let measured = found.entry(size).or_insert_with(|| simulation::run(load, pool(size)));
        aim.is_held(measured)
    };
    // What a pool needs beyond its load grows with the root of it.
    let step = load.busy().sqrt() / 2.0;
    let (mut too_small, mut enough) = (least.saturating_sub(1), None);
    for factor in [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 64.0, 128.0] {
        let size = least + (factor * step.max(1.0)).ceil() as u32;
        if holds(size) {
            enough = Some(size);
            break;
        }
        too_small = size;
    }
    let Some(mut enough) = enough else {
        bail!(
            "no pool of up to {too_small} holds the aim of {} s for {} % of the tasks: take a longer wait, or \
                --held-open",
            aim.seconds,
            aim.percent
        );
    };
    while enough - too_small > 1 {
        let middle = too_small + (enough - too_small) / 2;
        if holds(middle) {
            enough = middle;
        } else {
            too_small = middle;
        }
    }
    // The next ones show what a runner more is worth.
    for more in 1..=2 {
        holds(enough + more);
    }
    Ok(enough)
}

#[cfg(test)]
mod tests {
    use super::draws::Length;
    use super::*;

    fn load() -> Load {
        Load {
            arrivals_per_second: 1.0,
            length: Length::Exponential { mean: 10.0 },
            turnaround: 0.0,
            polls: false,
            tasks: 40_000,
            seed: 1,
        }
    }

    #[test]
    fn the_smallest_pool_is_found_and_one_smaller_does_not_hold_the_aim() {
        let aim = Aim {
            percent: 95.0,
            seconds: 1.0,
        };
        let mut found = BTreeMap::new();
        let smallest = search(&load(), aim, least_pool(&load()), Pool::Fixed, &mut found).unwrap();
        assert!((13..=18).contains(&smallest), "{smallest}");
        assert!(aim.is_held(&simulation::run(&load(), Pool::Fixed(smallest))));
        assert!(!aim.is_held(&simulation::run(&load(), Pool::Fixed(smallest - 1))));
        assert!(found.contains_key(&(smallest + 2)));
    }

    #[test]
    fn an_aim_that_no_pool_holds_is_an_error_that_says_what_to_do() {
        let aim = Aim {
            percent: 100.0,
            seconds: 0.0,
        };
        let polling = Load {
            polls: true,
            tasks: 1000,
            ..load()
        };
        let error = search(&polling, aim, 11, Pool::Fixed, &mut BTreeMap::new()).unwrap_err();
        assert!(error.to_string().contains("--held-open"), "{error}");
    }
}
