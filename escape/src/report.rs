//! What came of all attacks, for people and for programs.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Value, json};

use crate::attack::{Class, Surface};
use crate::judge::Verdict;

/// One attack on one surface.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub attack: &'static str,
    pub class: Class,
    pub surface: Surface,
    pub what: &'static str,
    /// The protections that were switched off, when this is a mutation run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<&'static str>,
    #[serde(flatten)]
    pub verdict: Verdict,
    pub milliseconds: u64,
}

impl Row {
    /// Whether it was made, as an attack and not only as a row.
    fn was_tried(&self) -> bool {
        !matches!(self.verdict, Verdict::NotApplicable(_) | Verdict::BaselineFailed(_))
    }

    /// Whether it is as it has to be.
    pub fn is_well(&self) -> bool {
        match self.verdict {
            Verdict::NotApplicable(_) => true,
            Verdict::Held(_) => self.without.is_empty(),
            Verdict::GotThrough(_) => !self.without.is_empty(),
            Verdict::BaselineFailed(_) | Verdict::Broken(_) => false,
        }
    }
}

/// Everything of one run of the harness.
#[derive(Clone, Debug)]
pub struct Report {
    pub rows: Vec<Row>,
    /// What is wrong besides single attacks: a protection that no attack is named for.
    pub problems: Vec<String>,
    pub elapsed: Duration,
    /// Under which conditions it ran.
    pub conditions: Vec<String>,
}

impl Report {
    pub fn all_held(&self) -> bool {
        self.all_problems().is_empty() && self.rows.iter().all(Row::is_well) && !self.rows.is_empty()
    }

    /// What is wrong besides single attacks. A chapter of which nothing was tried has not held.
    fn all_problems(&self) -> Vec<String> {
        let mut problems = self.problems.clone();
        for class in Class::value_variants() {
            let mut mine = self.rows.iter().filter(|row| row.class == *class).peekable();
            let well = |row: &Row| row.was_tried() && row.is_well();
            if mine.peek().is_some() && !mine.any(well) {
                problems.push(format!("{}: no attack of this class could be tried", class.name()));
            }
        }
        problems
    }

    fn count(&self, of: impl Fn(&Verdict) -> bool) -> usize {
        self.rows.iter().filter(|row| of(&row.verdict)).count()
    }

    pub fn json(&self) -> Value {
        let attacks: BTreeSet<&str> = self.rows.iter().map(|row| row.attack).collect();
        json!({
            "attacks": attacks.len(),
            "runs": self.rows.iter().filter(|row| row.was_tried()).count(),
            "held": self.count(|verdict| matches!(verdict, Verdict::Held(_))),
            "got_through": self.count(|verdict| matches!(verdict, Verdict::GotThrough(_))),
            "not_applicable": self.count(|verdict| matches!(verdict, Verdict::NotApplicable(_))),
            "failed": self.rows.iter().filter(|row| !row.is_well()).count() + self.all_problems().len(),
            "all_held": self.all_held(),
            "seconds": self.elapsed.as_secs_f64(),
            "conditions": self.conditions,
            "problems": self.all_problems(),
            "results": self.rows,
        })
    }

    /// One line for each failure, what is not applicable here, and the table.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for row in &self.rows {
            let (word, evidence) = match &row.verdict {
                _ if row.is_well() => continue,
                Verdict::Held(how) => ("HELD ALL THE SAME", how),
                Verdict::GotThrough(evidence) => ("GOT THROUGH", evidence),
                Verdict::BaselineFailed(why) => ("NO BASELINE", why),
                Verdict::Broken(why) | Verdict::NotApplicable(why) => ("BROKEN", why),
            };
            let _ = writeln!(text, "{word}  {}: {}{evidence}", place(row), without(row));
            let _ = writeln!(text, "             it tries: {}", row.what);
        }
        for problem in self.all_problems() {
            let _ = writeln!(text, "PROBLEM  {problem}");
        }
        let mut seen = BTreeSet::new();
        for row in &self.rows {
            if let Verdict::NotApplicable(why) = &row.verdict {
                if seen.is_empty() {
                    let _ = writeln!(text, "Not to be tried on this machine:");
                }
                if seen.insert(row.attack) {
                    let _ = writeln!(text, "  {}: {why}", row.attack);
                }
            }
        }
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&self.table());
        let plural = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        let tried: Vec<&Row> = self.rows.iter().filter(|row| row.was_tried()).collect();
        let attacks: BTreeSet<&str> = tried.iter().map(|row| row.attack).collect();
        let through = self.count(|verdict| matches!(verdict, Verdict::GotThrough(_)));
        let _ = write!(
            text,
            "\n{}, {}, {through} got through",
            plural(attacks.len(), "attack"),
            plural(tried.len(), "run")
        );
        for (count, what) in [
            (
                self.count(|verdict| matches!(verdict, Verdict::NotApplicable(_))),
                "not to be tried here",
            ),
            (
                self.count(|verdict| matches!(verdict, Verdict::BaselineFailed(_))),
                "without a baseline",
            ),
            (self.count(|verdict| matches!(verdict, Verdict::Broken(_))), "broken"),
        ] {
            if count > 0 {
                let _ = write!(text, ", {count} {what}");
            }
        }
        let _ = writeln!(text, " ({:.0} s)", self.elapsed.as_secs_f64());
        for condition in &self.conditions {
            let _ = writeln!(text, "{condition}");
        }
        text
    }

    /// Classes by surfaces: how many attacks were tried, and how many could not be tried here.
    pub fn table(&self) -> String {
        let surfaces: Vec<Surface> = Surface::value_variants()
            .iter()
            .copied()
            .filter(|surface| self.rows.iter().any(|row| row.surface == *surface))
            .collect();
        let mut text = format!("{:<12}", "");
        for surface in &surfaces {
            let _ = write!(text, "{:>12}", surface.name());
        }
        let _ = writeln!(text, "{:>12}{:>12}", "tried", "not here");
        for class in Class::value_variants() {
            let all: Vec<&Row> = self.rows.iter().filter(|row| row.class == *class).collect();
            if all.is_empty() {
                continue;
            }
            let mine: Vec<&Row> = all.iter().copied().filter(|row| row.was_tried()).collect();
            let _ = write!(text, "{:<12}", class.name());
            for surface in &surfaces {
                let count = mine.iter().filter(|row| row.surface == *surface).count();
                let shown = if count == 0 { "-".to_owned() } else { count.to_string() };
                let _ = write!(text, "{shown:>12}");
            }
            let _ = writeln!(text, "{:>12}{:>12}", mine.len(), all.len() - mine.len());
        }
        text
    }
}

fn place(row: &Row) -> String {
    format!("{} through {}", row.attack, row.surface.name())
}

fn without(row: &Row) -> String {
    if row.without.is_empty() {
        return String::new();
    }
    format!("without {}: ", row.without.join(" and "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(attack: &'static str, class: Class, surface: Surface, verdict: Verdict) -> Row {
        Row {
            attack,
            class,
            surface,
            what: "what it tries",
            without: Vec::new(),
            verdict,
            milliseconds: 1,
        }
    }

    fn report(rows: Vec<Row>) -> Report {
        Report {
            rows,
            problems: Vec::new(),
            elapsed: Duration::from_secs(2),
            conditions: vec!["openat2 answers ENOSYS".to_owned()],
        }
    }

    #[test]
    fn the_report_for_people() {
        let report = report(vec![
            row("files/a", Class::Files, Surface::Grep, Verdict::Held("denied".into())),
            row(
                "files/a",
                Class::Files,
                Surface::Shell,
                Verdict::GotThrough("the secret".into()),
            ),
            row(
                "network/b",
                Class::Network,
                Surface::Shell,
                Verdict::NotApplicable("no IPv6".into()),
            ),
            row(
                "network/c",
                Class::Network,
                Surface::Step,
                Verdict::BaselineFailed("ENOENT".into()),
            ),
        ]);
        insta::assert_snapshot!(report.text(), @r"
        GOT THROUGH  files/a through shell: the secret
                     it tries: what it tries
        NO BASELINE  network/c through step: ENOENT
                     it tries: what it tries
        PROBLEM  network: no attack of this class could be tried
        Not to be tried on this machine:
          network/b: no IPv6

                            grep       shell        step       tried    not here
        files                  1           1           -           2           0
        network                -           -           -           0           2

        1 attack, 2 runs, 1 got through, 1 not to be tried here, 1 without a baseline (2 s)
        openat2 answers ENOSYS
        ");
    }

    #[test]
    fn only_a_run_in_which_everything_held_is_well() {
        let held = row("files/a", Class::Files, Surface::Grep, Verdict::Held("denied".into()));
        let of = |verdict| row("files/a", Class::Files, Surface::Grep, verdict);
        assert!(report(vec![held.clone()]).all_held());
        assert!(!report(Vec::new()).all_held(), "nothing was tried");
        let other = row(
            "network/b",
            Class::Network,
            Surface::Step,
            Verdict::NotApplicable("x".into()),
        );
        assert!(
            !report(vec![held.clone(), other.clone()]).all_held(),
            "of one class nothing was tried"
        );
        let network = row("network/c", Class::Network, Surface::Step, Verdict::Held("x".into()));
        assert!(report(vec![held.clone(), other, network]).all_held());
        for verdict in [
            Verdict::GotThrough("x".into()),
            Verdict::BaselineFailed("x".into()),
            Verdict::Broken("x".into()),
        ] {
            assert!(!report(vec![held.clone(), of(verdict)]).all_held());
        }
        let mut mutated = held;
        mutated.without = vec!["mount"];
        assert!(
            !report(vec![mutated.clone()]).all_held(),
            "an attack that holds without its layer tells nothing"
        );
        mutated.verdict = Verdict::GotThrough("x".into());
        assert!(report(vec![mutated]).all_held());
    }
}
