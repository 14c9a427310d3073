//! The figures against their aims, as one table.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::commands::Costs;
use crate::delivery::Figures;
use crate::model;

/// What a command may cost, at most, against a fork and exec without a sandbox.
const MAX_FOR_CONFINEMENT: f64 = 1.5;

/// One line of the table.
pub struct Row {
    name: &'static str,
    measured: String,
    aim: String,
    met: Option<bool>,
}

impl Row {
    fn plain(name: &'static str, measured: String) -> Self {
        Self {
            name,
            measured,
            aim: String::new(),
            met: None,
        }
    }

    fn aimed(name: &'static str, measured: String, aim: impl Into<String>, met: Option<bool>) -> Self {
        Self {
            name,
            measured,
            aim: aim.into(),
            met,
        }
    }
}

/// What a command costs.
pub fn commands(costs: &Costs) -> Vec<Row> {
    let ratio = |bare: f64| costs.sandbox / bare;
    let shown = |bare| format!("{:.2}", ratio(bare));
    vec![
        Row::plain("bare `true`, fork, p50", micros(Some(costs.bare_fork))),
        Row::plain("bare `true`, posix_spawn, p50", micros(Some(costs.bare_spawn))),
        Row::plain("sandboxed `true`, p50", micros(Some(costs.sandbox))),
        Row::aimed(
            "sandboxed ÷ bare fork",
            shown(costs.bare_fork),
            format!("at most {MAX_FOR_CONFINEMENT}"),
            Some(ratio(costs.bare_fork) <= MAX_FOR_CONFINEMENT),
        ),
        Row::plain("sandboxed ÷ bare posix_spawn", shown(costs.bare_spawn)),
    ]
}

/// What the way from the model to the callback costs.
pub fn delivery(figures: &Figures) -> Vec<Row> {
    let thousands = |per_second: f64| format!("{:.0} k/s", per_second / 1e3);
    vec![
        Row::aimed(
            "model delta to callback, p50",
            micros(Some(figures.p50)),
            "under 0.5 ms",
            Some(figures.p50 < 500.0),
        ),
        Row::aimed(
            "model delta to callback, p99",
            micros(Some(figures.p99)),
            "under 5 ms",
            Some(figures.p99 < 5000.0),
        ),
        Row::aimed(
            "tokens read, callback at 100 ms",
            thousands(figures.read_per_second),
            "over 50 k/s",
            Some(figures.read_per_second > 50e3),
        ),
        Row::aimed(
            "tokens delivered",
            thousands(figures.delivered_per_second),
            "over 50 k/s",
            Some(figures.delivered_per_second > 50e3),
        ),
    ]
}

/// What the model's side costs.
pub fn model(figures: &model::Figures) -> Vec<Row> {
    let long = &figures.long;
    let megabytes = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
    let dollars = |cost: f64| format!("{cost:.2} $");
    vec![
        Row::plain(
            "stream of the model, decoded",
            format!("{:.0} MB/s", figures.decoded_per_second / 1e6),
        ),
        Row::plain(
            "last byte of a turn to its call, p50",
            micros(Some(figures.to_the_call)),
        ),
        Row::plain("long task: turns", long.turns.to_string()),
        Row::plain("long task: results", megabytes(long.results_bytes)),
        Row::plain("long task: summaries", long.summaries.to_string()),
        Row::plain("long task: sent to the model", megabytes(long.sent_bytes)),
        Row::plain("long task: memory, at most", megabytes(long.peak_bytes)),
        Row::plain("long task: time", format!("{:.1} s", long.took.as_secs_f64())),
        Row::plain("long task: prompts, with our marks", dollars(long.marked)),
        Row::plain("long task: with the end's mark alone", dollars(long.end_alone)),
        Row::plain("long task: without the cache", dollars(long.unmarked)),
    ]
}

/// What it costs to go on with a task.
pub fn resume(figures: &crate::resume::Figures) -> Vec<Row> {
    vec![
        Row::plain("task resumed, to its next request", micros(Some(figures.resume))),
        Row::plain("its history", format!("{:.1} MB", figures.history as f64 / 1e6)),
    ]
}

/// A second, for a round of the redaction that takes so many microseconds.
fn gigabytes(us: f64) -> f64 {
    crate::redaction::BYTES as f64 / us / 1e3
}

/// Everything else: what criterion measured in `folder`, and the memory.
pub fn others(folder: &Path, idle_kib: u64, standby_kib: u64) -> Vec<Row> {
    let median = |id: &str| median_us(folder, id);
    let read = median("call/read_file_4k");
    let spawn = median("call/spawn_true");
    let component = median("grep_20000_files/component");
    let rg = median("grep_20000_files/rg_j1");
    vec![
        Row::plain("instantiate a component", micros(median("call/instantiate"))),
        Row::aimed(
            "read_file of 4 KiB, p50",
            micros(read),
            "under 100 µs",
            read.map(|it| it < 100.0),
        ),
        Row::plain("spawn of /bin/true, p50", micros(spawn)),
        Row::aimed(
            "spawn ÷ read_file",
            ratio(spawn, read),
            "at least 10",
            spawn.zip(read).map(|(spawn, read)| spawn / read >= 10.0),
        ),
        Row::aimed(
            "redaction of output",
            median("redaction").map_or_else(|| "-".to_owned(), |us| format!("{:.2} GB/s", gigabytes(us))),
            "over 1 GB/s",
            median("redaction").map(|us| gigabytes(us) > 1.0),
        ),
        Row::plain("shell `true`, p50", micros(median("call/shell_true"))),
        Row::plain("grep, 20,000 files", micros(component)),
        Row::plain("rg -uuu -j1, the same", micros(rg)),
        Row::aimed(
            "grep ÷ rg",
            ratio(component, rg),
            "at most 2.5",
            component.zip(rg).map(|(component, rg)| component / rg <= 2.5),
        ),
        first_event("first event, workflow", median("start/workflow_first_event")),
        first_event("first event, agent", median("start/agent_first_event")),
        Row::aimed(
            "memory while it waits",
            format!("{:.1} MB", idle_kib as f64 * 1024.0 / 1e6),
            "under 30 MB",
            Some(idle_kib * 1024 < 30_000_000),
        ),
        Row::aimed(
            "standby while idle, all processes",
            format!("{:.1} MB", standby_kib as f64 * 1024.0 / 1e6),
            "under 40 MB",
            Some(standby_kib * 1024 < 40_000_000),
        ),
    ]
}

/// Prints the table. An aim that is missed is said, and fails nothing: machines differ, and a person decides.
pub fn print(rows: impl IntoIterator<Item = Row>) {
    println!("\n{:<34} {:>12}   {:<14}", "figure", "measured", "aim");
    for Row {
        name,
        measured,
        aim,
        met,
    } in rows
    {
        let verdict = match met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "",
        };
        println!("{name:<34} {measured:>12}   {aim:<14} {verdict}");
    }
}

fn first_event(name: &'static str, median: Option<f64>) -> Row {
    Row::aimed(name, micros(median), "within 40 ms", median.map(|it| it < 40_000.0))
}

/// Criterion's median in microseconds; `None` when a filter left the benchmark out.
fn median_us(folder: &Path, id: &str) -> Option<f64> {
    let file = folder.join(id).join("new").join("estimates.json");
    let estimates: Value = serde_json::from_str(&fs::read_to_string(file).ok()?).ok()?;
    Some(estimates["median"]["point_estimate"].as_f64()? / 1000.0)
}

fn micros(value: Option<f64>) -> String {
    match value {
        None => "not run".into(),
        Some(micros) if micros >= 1000.0 => format!("{:.1} ms", micros / 1000.0),
        Some(micros) => format!("{micros:.1} µs"),
    }
}

fn ratio(left: Option<f64>, right: Option<f64>) -> String {
    left.zip(right)
        .map_or_else(|| "not run".into(), |(left, right)| format!("{:.1}", left / right))
}
