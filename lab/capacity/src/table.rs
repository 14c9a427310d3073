//! What was simulated, for people.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::{self, Write as _};

use super::erlang;
use super::options::Options;
use super::poll_schedule::PollSchedule;
use super::simulation::{Load, Measured};

/// How often a runner says that it lives, by default.
const HEARTBEATS_PER_SECOND: f64 = 1.0 / 15.0;

/// How long a server may keep a question, in seconds: a runner gives up after 30 (`CALLBACK_TIMEOUT`).
const HELD_OPEN: f64 = 25.0;

/// Prints the table. A reader that has gone (`… | head`) had what it wanted.
pub fn print(options: &Options, load: &Load, found: &BTreeMap<u32, Measured>, smallest: Option<u32>) -> io::Result<()> {
    let text = text(options, load, found, smallest);
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

fn text(options: &Options, load: &Load, found: &BTreeMap<u32, Measured>, smallest: Option<u32>) -> String {
    let size = if options.autoscale { "idle" } else { "runners" };
    let mut text = format!(
        "{} tasks a minute of {:.1} s on average, and {} s between two: {:.1} runners are busy on average\n\n",
        options.rate,
        load.length.mean(),
        load.turnaround,
        load.busy()
    );
    let _ = writeln!(
        text,
        "{size:>7}  {:>9}  {:>8}  {:>8}  {:>8}  {:>8}  {:>6}  {:>8}  {:>8}  {:>8}",
        "none free", "Erlang C", "p50 wait", "p95 wait", "p99 wait", "in use", "pods", "events/s", "at most"
    );
    for (runners, measured) in found {
        let reference = if options.autoscale {
            "-".to_owned()
        } else {
            percent(erlang::waiting_probability(load.busy(), *runners))
        };
        let mark = if smallest == Some(*runners) {
            "  <- smallest"
        } else {
            ""
        };
        let _ = writeln!(
            text,
            "{runners:>7}  {:>9}  {reference:>8}  {:>8}  {:>8}  {:>8}  {:>8}  {:>6.1}  {:>8.0}  {:>8.0}{mark}",
            percent(measured.none_free),
            seconds(measured.wait(50.0)),
            seconds(measured.wait(95.0)),
            seconds(measured.wait(99.0)),
            percent(measured.utilisation()),
            measured.runners,
            measured.busy * options.events_of_one(),
            f64::from(measured.most_busy) * options.events_of_one(),
        );
    }
    let _ = writeln!(text, "\n{}", rest(options, load, found, smallest));
    text
}

/// What stands below the table.
fn rest(options: &Options, load: &Load, found: &BTreeMap<u32, Measured>, smallest: Option<u32>) -> String {
    let mut text = String::new();
    if let Some((runners, measured)) = smallest.and_then(|size| found.get_key_value(&size)) {
        let what = if options.autoscale {
            format!(
                "{runners} idle runners, {:.1} pods on average and {} at most,",
                measured.runners, measured.most_runners
            )
        } else {
            format!("{runners} runners")
        };
        let _ = writeln!(
            text,
            "{what} are the smallest pool where {} % of the tasks wait at most {} s.",
            options.aim_percent, options.aim
        );
        let between = PollSchedule::mean_of_last() + if load.polls { 0.0 } else { HELD_OPEN };
        let polls = (measured.runners - measured.busy) / between;
        let _ = writeln!(
            text,
            "Besides events the API server gets about {:.1} heartbeats and {polls:.1} registrations a second from it.",
            measured.runners * HEARTBEATS_PER_SECOND
        );
    }
    let keeps_up = |size: &u32| options.autoscale || f64::from(*size) > load.busy();
    if !found.keys().all(keeps_up) {
        text +=
            "A pool of fewer runners than are busy on average cannot keep up: its waits grow for as long as it runs.\n";
    }
    text += if load.polls {
        "A wait ends when an idle runner asks the next time: --held-open is a server that keeps the question."
    } else {
        "The server keeps a runner's question until it has a task."
    };
    text
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn seconds(seconds: f64) -> String {
    if seconds < 99.95 {
        format!("{seconds:.2} s")
    } else {
        format!("{seconds:.0} s")
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::pool::Pool;
    use super::super::simulation;
    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn table(line: &str, sizes: &[u32], smallest: Option<u32>) -> String {
        let words = std::iter::once("capacity").chain(line.split_whitespace());
        let options = Line::try_parse_from(words).unwrap().options;
        let load = options.load().unwrap();
        let found = sizes
            .iter()
            .map(|size| (*size, simulation::run(&load, Pool::Fixed(*size))));
        text(&options, &load, &found.collect(), smallest)
    }

    #[test]
    fn each_size_has_a_row_and_the_smallest_is_marked_and_named() {
        let text = table("--tasks 1000 --held-open", &[40, 60], Some(60));
        assert_eq!(text.lines().filter(|line| line.contains(" % ")).count(), 3, "{text}");
        for part in [
            "60 runners are the smallest",
            "<- smallest",
            "keeps a runner's question",
        ] {
            assert!(text.contains(part), "{part} is missing: {text}");
        }
    }

    #[test]
    fn a_pool_that_cannot_keep_up_is_said_to_be_one() {
        let text = table("--tasks 1000", &[20], None);
        assert!(text.contains("cannot keep up") && text.contains("100.0 %"), "{text}");
    }
}
