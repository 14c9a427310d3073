//! What the command line says of the load, the pool and the API server.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Parser;

use super::Aim;
use super::draws::Length;
use super::pool::Scaling;
use super::simulation::Load;

/// More than this takes minutes to simulate, and more than one cluster to run.
const MAX_BUSY: f64 = 5000.0;

/// Simulates a pool of warm runners: how many there must be, so that tasks do not wait
#[derive(Debug, Parser)]
#[command(name = "cargo xtask capacity")]
pub struct Options {
    /// How many tasks come in a minute, on average
    #[arg(long, default_value_t = 10.0, value_parser = positive)]
    pub rate: f64,
    /// How long half of the tasks take at most, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120.0, value_parser = positive)]
    pub median: f64,
    /// How long 95 % of the tasks take at most, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600.0, value_parser = positive)]
    pub p95: f64,
    /// In place of both: exponential lengths with this mean, in seconds
    #[arg(long, value_name = "SECONDS", value_parser = positive, conflicts_with_all = ["median", "p95"])]
    pub exponential: Option<f64>,
    /// From the end of a task until its runner asks for the next one, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 0.02, value_parser = not_negative)]
    pub turnaround: f64,
    /// The API server keeps a runner's question open until it has a task; today's answers at once, and runners ask
    /// again after 0.25 s … 5 s
    #[arg(long)]
    pub held_open: bool,
    /// How long a task may wait for a runner, in seconds …
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = not_negative)]
    pub aim: f64,
    /// … for so many percent of the tasks
    #[arg(long, value_name = "PERCENT", default_value_t = 99.0, value_parser = positive)]
    pub aim_percent: f64,
    /// Only these sizes (with --autoscale: idle runners), separated by commas; otherwise the smallest one is looked for
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub runners: Vec<u32>,
    /// An autoscaler keeps so many runners idle, and adds those that are busy
    #[arg(long)]
    pub autoscale: bool,
    /// How long a new pod takes until its runner asks for its first task, in seconds; the image is on the node
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = not_negative, requires = "autoscale")]
    pub pod_start: f64,
    /// How often the autoscaler looks, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 15.0, value_parser = positive, requires = "autoscale")]
    pub look_every: f64,
    /// For how long fewer runners must have been wanted before one goes, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600.0, value_parser = not_negative, requires = "autoscale")]
    pub stabilization: f64,
    /// How many runners there may be at most
    #[arg(long, value_name = "N", default_value_t = 20_000, requires = "autoscale")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub max_runners: u32,
    /// How many events a second the runner of a task would send to an API server that answers at once
    #[arg(long, value_name = "N", default_value_t = 80.0, value_parser = not_negative)]
    pub events: f64,
    /// How long the API server takes for one event, in milliseconds; a runner has one request in flight
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 5.0, value_parser = not_negative)]
    pub callback_ms: f64,
    /// How many tasks are simulated: waits that are rare need many
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1_000..=5_000_000))]
    pub tasks: u32,
    /// Another number gives other random tasks; the same gives the same
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Draw the waits of pools of many sizes, for a third of the rate, the rate, and three times as much, into this SVG
    /// file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["autoscale", "runners"])]
    pub plot: Option<PathBuf>,
}

impl Options {
    pub fn load(&self) -> Result<Load> {
        let length = match self.exponential {
            Some(mean) => Length::Exponential { mean },
            None => {
                ensure!(
                    self.p95 >= self.median,
                    "--p95 ({}) is less than --median ({}): half of the tasks cannot take longer than 95 % of them",
                    self.p95,
                    self.median
                );
                Length::Lognormal {
                    median: self.median,
                    p95: self.p95,
                }
            }
        };
        let load = Load {
            arrivals_per_second: self.rate / 60.0,
            length,
            turnaround: self.turnaround,
            polls: !self.held_open,
            tasks: self.tasks as usize,
            seed: self.seed,
        };
        ensure!(
            load.busy() <= MAX_BUSY,
            "{} tasks a minute of {:.1} s on average keep {:.0} runners busy: this simulation goes to {MAX_BUSY}",
            self.rate,
            length.mean(),
            load.busy()
        );
        Ok(load)
    }

    pub fn scaling(&self) -> Result<Option<Scaling>> {
        if !self.autoscale {
            return Ok(None);
        }
        let busy = self.load()?.busy();
        ensure!(
            f64::from(self.max_runners) > busy,
            "--max-runners {} cannot keep up: {busy:.1} runners are busy on average",
            self.max_runners
        );
        Ok(Some(Scaling {
            start: self.pod_start,
            every: self.look_every,
            keep: self.stabilization,
            most: self.max_runners,
        }))
    }

    pub(super) fn aim(&self) -> Result<Aim> {
        ensure!(
            self.aim_percent <= 100.0,
            "--aim-percent {} is more than 100",
            self.aim_percent
        );
        Ok(Aim {
            percent: self.aim_percent,
            seconds: self.aim,
        })
    }

    /// How many events a second a runner at work sends: what waits while a request is in flight goes together in the
    /// next.
    pub fn events_of_one(&self) -> f64 {
        self.events.min(1000.0 / self.callback_ms)
    }
}

fn not_negative(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number >= 0.0 => Ok(number),
        _ => Err("this has to be a number from 0 on".to_owned()),
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match not_negative(text) {
        Ok(number) if number > 0.0 => Ok(number),
        _ => Err("this has to be a number above 0".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, clap::Error> {
        let words = std::iter::once("capacity").chain(line.split_whitespace());
        Options::try_parse_from(words)
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_argument_and_the_reason() {
        for (line, part) in [
            ("--rate 0", "above 0"),
            ("--rate nan", "above 0"),
            ("--turnaround -1", "unexpected argument"),
            ("--turnaround=-1", "from 0 on"),
            ("--median x", "above 0"),
            ("--exponential 5 --median 3", "cannot be used with"),
            ("--runners 0", "0 is not in"),
            ("--tasks 10", "10 is not in"),
            ("--pod-start 5", "--autoscale"),
            ("--plot a.svg --autoscale", "cannot be used with"),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(part), "{line}: {error}");
        }
        for (line, part) in [
            ("--median 100 --p95 50", "--p95 (50) is less"),
            ("--rate 100000", "runners busy"),
            ("--autoscale --max-runners 3", "cannot keep up"),
        ] {
            let options = parse(line).unwrap();
            let error = options.load().and_then(|_| options.scaling()).unwrap_err().to_string();
            assert!(error.contains(part), "{line}: {error}");
        }
        assert!(parse("--aim-percent 101").unwrap().aim().is_err());
    }

    #[test]
    fn the_defaults_are_a_load_that_can_be_simulated() {
        let load = parse("").unwrap().load().unwrap();
        assert!((30.0..35.0).contains(&load.busy()), "{}", load.busy());
        assert!(load.polls && parse("").unwrap().scaling().unwrap().is_none());
    }

    #[test]
    fn one_request_in_flight_bounds_the_events_of_a_runner() {
        for (line, expected) in [
            ("--events 80 --callback-ms 5", 80.0),
            ("--events 80 --callback-ms 50", 20.0),
            ("--events 80 --callback-ms 0", 80.0),
        ] {
            assert!((parse(line).unwrap().events_of_one() - expected).abs() < 1e-9, "{line}");
        }
    }
}
