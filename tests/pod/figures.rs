//! What was measured, for people.

use std::fmt;
use std::time::Duration;

use crate::container::Memory;

/// One run of each is little to go by: they are shown beside their aims, and assert nothing.
#[derive(Default)]
pub struct Figures {
    pub registered: Option<Duration>,
    /// From the assignment to the model's first request, for each agent task.
    pub model_request: Vec<Duration>,
    /// From the assignment to the first event, for each task.
    pub first_event: Vec<Duration>,
    /// From the arrival of a task's ending to the next question for a task.
    pub turnaround: Vec<Duration>,
    /// What is held, and the share of a core that is taken: while the runner waits, and while a model streams.
    pub idle: Option<(Memory, f64)>,
    pub streaming: Option<(Memory, f64)>,
    pub at_work: Option<Memory>,
}

impl fmt::Display for Figures {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        let mut times = |name: &str, times: &[Duration], aim: &str| {
            if times.is_empty() {
                return Ok(());
            }
            let times: Vec<String> = times
                .iter()
                .map(|time| format!("{:.1}", time.as_secs_f64() * 1e3))
                .collect();
            writeln!(out, "  {name:40} {:>24} ms  {aim}", times.join(" "))
        };
        times(
            "start of the process to registered",
            self.registered.as_slice(),
            "aim 300",
        )?;
        times("assignment to the first model request", &self.model_request, "aim 50")?;
        times("assignment to the first event", &self.first_event, "")?;
        times("ending of a task to the next question", &self.turnaround, "")?;
        let mut memory = |name: &str, memory: Option<Memory>, aim: &str| {
            let Some(memory) = memory else { return Ok(()) };
            let [runner, whole, counted] =
                [memory.runner, memory.whole, memory.counted].map(|bytes| format!("{:.1}", bytes as f64 / 1e6));
            writeln!(
                out,
                "  {name:40} {runner:>24} MB  {aim} ({whole} with gVisor itself; gVisor counts {counted})"
            )
        };
        memory("an idle standby runner holds", self.idle.map(|idle| idle.0), "aim 40")?;
        memory(
            "while a model streams 100 tokens/s",
            self.streaming.map(|work| work.0),
            "",
        )?;
        memory("the demo's agent holds, at most", self.at_work, "aim 120")?;
        for (name, figure) in [
            ("an idle runner takes", self.idle),
            ("while a model streams", self.streaming),
        ] {
            if let Some((_, share)) = figure {
                writeln!(
                    out,
                    "  {name:40} {:>24.1} % of a core, gVisor itself included",
                    share * 100.0
                )?;
            }
        }
        Ok(())
    }
}
