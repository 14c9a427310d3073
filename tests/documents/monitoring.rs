//! `deploy/monitoring` asks for metrics, labels and outcomes that the runner has, by the names that Prometheus gives
//! them.

use std::collections::{BTreeMap, BTreeSet};

use plue_runner::reference::TaskErrorCode;
use serde_json::Value;

use crate::{files, read};

/// Where the runner makes its instruments and records them.
const SOURCES: [&str; 1] = ["runner/src"];

/// What Prometheus and its receivers add themselves.
const LABELS_OF_PROMETHEUS: [&str; 3] = ["le", "job", "instance"];

/// Words of the query language that are no names.
const KEYWORDS: [&str; 8] = ["and", "or", "unless", "bool", "offset", "inf", "nan", "atan2"];
/// Those with a list of labels after them.
const WITH_LABELS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

/// One metric as the code makes it.
struct Instrument {
    kind: String,
    name: String,
    unit: String,
}

/// The instruments of the code: `.u64_counter("a.b").with_unit("s")`.
fn instruments() -> Vec<Instrument> {
    let mut found = Vec::new();
    for (_, text) in files(&SOURCES, &["rs"]) {
        for kind in ["histogram", "counter", "up_down_counter", "gauge"] {
            for number in ["u64", "f64", "i64"] {
                let call = format!(".{number}_{kind}(\"");
                for after in text.split(&call).skip(1) {
                    let (name, rest) = after.split_once('"').unwrap();
                    let statement = rest.split(';').next().unwrap();
                    let unit = statement.split_once(".with_unit(\"").map(|(_, unit)| unit);
                    let unit = unit.and_then(|unit| unit.split('"').next()).unwrap_or_default();
                    found.push(Instrument {
                        kind: kind.to_owned(),
                        name: name.to_owned(),
                        unit: unit.to_owned(),
                    });
                }
            }
        }
    }
    found.extend(counters_of_events());
    found
}

/// Those that one function makes: `events("plue.events.lost", …)`, each with the unit `{event}`.
fn counters_of_events() -> Vec<Instrument> {
    let mut found = Vec::new();
    for (_, text) in files(&SOURCES, &["rs"]) {
        for after in text.split(": events(").skip(1) {
            let name = after
                .trim_start()
                .strip_prefix('"')
                .and_then(|name| name.split('"').next());
            found.extend(name.map(|name| Instrument {
                kind: "counter".to_owned(),
                name: name.to_owned(),
                unit: "{event}".to_owned(),
            }));
        }
    }
    found
}

/// What Prometheus calls a metric that comes by OTLP: dots are underscores, the unit is spelled out, a counter is a
/// total, a histogram is three series.
/// <https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/>
fn series(instrument: &Instrument) -> Vec<String> {
    let mut name = instrument.name.replace('.', "_");
    let unit = match &*instrument.unit {
        "s" => "seconds",
        "ms" => "milliseconds",
        "By" => "bytes",
        "1" if instrument.kind == "gauge" => "ratio",
        "1" | "" => "",
        // What stands in braces is said of the number, and is no unit.
        unit if unit.starts_with('{') => "",
        other => panic!("{}: the unit {other} has no spelling here", instrument.name),
    };
    if !unit.is_empty() && !name.ends_with(unit) {
        name = format!("{name}_{unit}");
    }
    match &*instrument.kind {
        "histogram" => ["bucket", "sum", "count"].map(|part| format!("{name}_{part}")).into(),
        "counter" => vec![format!("{name}_total")],
        _ => vec![name],
    }
}

/// The attributes that the code has: names with a dot, in quotes.
fn labels() -> BTreeSet<String> {
    let mut found: BTreeSet<String> = LABELS_OF_PROMETHEUS.map(str::to_owned).into();
    for (_, text) in files(&["runner/src/telemetry"], &["rs"]) {
        let quoted = text.split('"').skip(1).step_by(2);
        let named = quoted
            .filter(|word| word.contains('.') && word.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c == '.'));
        found.extend(named.map(|name| name.replace('.', "_")));
    }
    found
}

/// What a query asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    metrics: BTreeSet<String>,
    labels: BTreeSet<String>,
    /// The values that a label is compared with.
    values: BTreeMap<String, BTreeSet<String>>,
}

/// Reads a query as far as names go.
fn asked(query: &str) -> Asked {
    let mut asked = Asked::default();
    let mut rest = query;
    // The lists of labels that we are in: `{…}`, or the parentheses after `by`.
    let (mut in_braces, mut in_list, mut list_next) = (false, false, false);
    let mut label = String::new();
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        let length = match first {
            '"' => rest[1..].find('"').expect("a text that ends") + 2,
            '[' => rest.find(']').expect("a range that ends") + 1,
            _ if first.is_ascii_digit() => rest.find(|c: char| !is_word(c) && c != '.').unwrap_or(rest.len()),
            _ if is_word(first) => rest.find(|c: char| !is_word(c)).unwrap_or(rest.len()),
            _ => first.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        rest = after;
        match first {
            '{' => in_braces = true,
            '}' => in_braces = false,
            '(' => in_list = std::mem::take(&mut list_next),
            ')' => in_list = false,
            '"' if in_braces => {
                let values = token.trim_matches('"').split('|').map(str::to_owned);
                asked.values.entry(label.clone()).or_default().extend(values);
            }
            _ if !is_word(first) || first.is_ascii_digit() => {}
            _ if in_braces || in_list => {
                label = token.to_owned();
                asked.labels.insert(token.to_owned());
            }
            _ if WITH_LABELS.contains(&token) => list_next = true,
            // A function, or an aggregation with its labels first.
            _ if rest.trim_start().starts_with('(') || KEYWORDS.contains(&token) => {}
            _ if WITH_LABELS
                .iter()
                .any(|word| rest.trim_start().starts_with(&format!("{word} "))) => {}
            _ => drop(asked.metrics.insert(token.to_owned())),
        }
    }
    assert!(!in_braces && !in_list, "what is open does not end: {query}");
    asked
}

/// All queries of both files, by where they stand, and the names of the series that the rules make.
fn queries() -> (Vec<(String, String)>, BTreeSet<String>) {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let rules: Value = serde_yaml::from_str(&read("deploy/monitoring/alerts.yaml")).unwrap();
    let (mut all, mut made) = (Vec::new(), BTreeSet::new());
    for group in rules["groups"].as_array().unwrap() {
        for rule in group["rules"].as_array().unwrap() {
            let name = text(&rule["record"]).or(text(&rule["alert"])).expect("a name");
            made.extend(text(&rule["record"]));
            all.push((name, text(&rule["expr"]).expect("a query")));
        }
    }
    let dashboard: Value = serde_json::from_str(&read("deploy/monitoring/dashboard.json")).unwrap();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = text(&panel["title"]).expect("a title");
        for target in panel["targets"].as_array().unwrap() {
            all.push((title.clone(), text(&target["expr"]).expect("a query")));
            // Labels in the legend are asked for, too.
            let legend = text(&target["legendFormat"]).unwrap_or_default();
            for label in legend.split("{{").skip(1) {
                let label = label.split("}}").next().unwrap_or_default();
                all.push((title.clone(), format!("sum by ({label}) ()")));
            }
        }
    }
    (all, made)
}

#[test]
fn alerts_and_dashboard_ask_for_metrics_labels_and_outcomes_that_there_are() {
    let (queries, made) = queries();
    let known: BTreeSet<String> = instruments().iter().flat_map(series).chain(made).collect();
    let labels = labels();
    let mut outcomes: BTreeSet<String> = TaskErrorCode::TABLE
        .iter()
        .map(|(_, name, _)| (*name).to_owned())
        .collect();
    outcomes.insert("success".to_owned());
    let mut wrong = Vec::new();
    for (place, query) in &queries {
        let asked = asked(query);
        let missing = asked
            .metrics
            .difference(&known)
            .map(|name| format!("{place}: no metric {name}"));
        wrong.extend(missing);
        let missing = asked
            .labels
            .difference(&labels)
            .map(|name| format!("{place}: no label {name}"));
        wrong.extend(missing);
        let values = asked.values.get("plue_task_outcome").into_iter().flatten();
        let missing = values.filter(|value| !outcomes.contains(*value));
        wrong.extend(missing.map(|value| format!("{place}: no outcome {value}")));
    }
    assert!(
        wrong.is_empty(),
        "deploy/monitoring asks for what is not there: {wrong:#?}"
    );
    assert!(queries.len() > 15, "{queries:?}");
}

/// Nobody is to look for a metric that nothing shows.
#[test]
fn every_metric_of_the_runner_is_asked_for_and_documented() {
    let (queries, _) = queries();
    let asked: BTreeSet<String> = queries.iter().flat_map(|(_, query)| asked(query).metrics).collect();
    let instruments = instruments();
    assert!(instruments.len() >= 3);
    let telemetry = read("docs/reference/telemetry.md");
    for instrument in &instruments {
        let name = &instrument.name;
        assert!(telemetry.contains(&format!("`{name}`")), "telemetry.md has no {name}");
        // Counters of others' are shown when somebody needs them.
        let shown = series(instrument).iter().any(|series| asked.contains(series));
        assert!(
            shown || instrument.kind != "histogram",
            "nothing in deploy/monitoring shows {name}"
        );
    }
}

#[test]
fn names_are_translated_as_the_receivers_of_prometheus_do_and_found_in_a_query() {
    let named = |kind: &str, name: &str, unit: &str| {
        series(&Instrument {
            kind: kind.into(),
            name: name.into(),
            unit: unit.into(),
        })
    };
    assert_eq!(
        named("counter", "plue.events.lost", "{event}"),
        ["plue_events_lost_total"]
    );
    assert_eq!(named("counter", "plue.events.lost", ""), ["plue_events_lost_total"]);
    assert_eq!(named("gauge", "plue.load", "1"), ["plue_load_ratio"]);
    assert_eq!(
        named("histogram", "plue.task.duration", "s")[2],
        "plue_task_duration_seconds_count"
    );
    let query = r#"histogram_quantile(0.9, sum by (le, a_b) (max_over_time(x_bucket{c="d|e", f!=""}[$w])))"#;
    let query = format!("{query} > 5e3 and on (g) y:z");
    let found = asked(&query);
    let set = |names: &[&str]| -> BTreeSet<String> { names.iter().map(|name| (*name).to_owned()).collect() };
    assert_eq!(found.metrics, set(&["x_bucket", "y:z"]));
    assert_eq!(found.labels, set(&["le", "a_b", "c", "f", "g"]));
    assert_eq!(found.values["c"], set(&["d", "e"]));
}
