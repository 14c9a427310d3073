//! The figures against their aims, as one table.

use std::fs;
use std::path::Path;

use serde_json::Value;

/// Prints the table. An aim that is missed is said, and fails nothing: machines differ, and a person decides.
pub fn print(folder: &Path, idle_kib: u64) {
    let median = |id: &str| median_us(folder, id);
    let read = median("call/read_file_4k");
    let spawn = median("call/spawn_true");
    let component = median("grep_20000_files/component");
    let rg = median("grep_20000_files/rg_j1");
    let rows = [
        (
            "instantiate a component",
            micros(median("call/instantiate")),
            String::new(),
            None,
        ),
        (
            "read_file of 4 KiB, p50",
            micros(read),
            "under 100 µs".into(),
            read.map(|it| it < 100.0),
        ),
        ("spawn of /bin/true, p50", micros(spawn), String::new(), None),
        (
            "spawn ÷ read_file",
            ratio(spawn, read),
            "at least 10".into(),
            spawn.zip(read).map(|(spawn, read)| spawn / read >= 10.0),
        ),
        (
            "shell `true`, p50",
            micros(median("call/shell_true")),
            String::new(),
            None,
        ),
        ("grep, 20,000 files", micros(component), String::new(), None),
        ("rg -uuu -j1, the same", micros(rg), String::new(), None),
        (
            "grep ÷ rg",
            ratio(component, rg),
            "at most 2.5".into(),
            component.zip(rg).map(|(component, rg)| component / rg <= 2.5),
        ),
        first_event("first event, workflow", median("start/workflow_first_event")),
        first_event("first event, agent", median("start/agent_first_event")),
        (
            "memory while it waits",
            format!("{:.1} MB", idle_kib as f64 * 1024.0 / 1e6),
            "under 30 MB".into(),
            Some(idle_kib * 1024 < 30_000_000),
        ),
    ];
    println!("\n{:<28} {:>12}   {:<14}", "figure", "measured", "aim");
    for (name, measured, aim, met) in rows {
        let verdict = match met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "",
        };
        println!("{name:<28} {measured:>12}   {aim:<14} {verdict}");
    }
}

fn first_event(name: &'static str, median: Option<f64>) -> (&'static str, String, String, Option<bool>) {
    (
        name,
        micros(median),
        "within 40 ms".into(),
        median.map(|it| it < 40_000.0),
    )
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
