//! A warm pool, event by event: tasks come, wait for a runner, run; runners poll, start and go.

use std::collections::VecDeque;

use super::calendar::{Calendar, Event};
use super::draws::{Draws, Length};
use super::poll_schedule::PollSchedule;
use super::pool::{Pool, Scaler};

/// The share of the tasks that only fill the pool, and are not counted.
const WARM_UP: f64 = 0.1;

/// What the pool has to do. Times are in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub arrivals_per_second: f64,
    pub length: Length,
    /// From the end of a task until its runner asks for the next one.
    pub turnaround: f64,
    /// Whether a runner that gets no task asks again later, as it does with today's API server. Otherwise the server
    /// keeps the question until it has a task.
    pub polls: bool,
    /// How many tasks are simulated.
    pub tasks: usize,
    pub seed: u64,
}

impl Load {
    /// How many runners are busy on average, in a pool that keeps up.
    pub fn busy(&self) -> f64 {
        self.arrivals_per_second * (self.length.mean() + self.turnaround)
    }
}

/// What came of it, after the warm-up.
#[derive(Debug)]
pub struct Measured {
    /// The share of the tasks that came when no runner was free.
    pub none_free: f64,
    /// How long each task waited, sorted.
    waits: Vec<f64>,
    /// Means over time, and the most at one moment.
    pub runners: f64,
    pub busy: f64,
    pub most_runners: u32,
    pub most_busy: u32,
}

impl Measured {
    /// The wait that so many percent of the tasks do not exceed.
    pub fn wait(&self, percent: f64) -> f64 {
        let rank = (self.waits.len() as f64 * percent / 100.0).ceil() as usize;
        self.waits.get(rank.max(1) - 1).copied().unwrap_or_default()
    }

    pub fn utilisation(&self) -> f64 {
        self.busy / self.runners
    }
}

/// Runs `load` through `pool`.
pub fn run(load: &Load, pool: Pool) -> Measured {
    let mut simulation = Simulation::new(load, pool);
    while let Some((at, event)) = simulation.next() {
        simulation.pass_time(at);
        match event {
            Some(event) => simulation.happens(event),
            None => simulation.polled(),
        }
    }
    simulation.measured()
}

struct Simulation<'a> {
    load: &'a Load,
    now: f64,
    calendar: Calendar,
    arrivals: Draws,
    lengths: Draws,
    polls: Draws,
    /// When the tasks came that wait.
    queue: VecDeque<f64>,
    /// Runners without a task.
    idle: Vec<PollSchedule>,
    busy: u32,
    starting: u32,
    scaler: Option<Scaler>,
    arrived: usize,
    /// From when on is counted, and how many tasks were not.
    counting_from: Option<f64>,
    none_free: usize,
    waits: Vec<f64>,
    runner_seconds: f64,
    busy_seconds: f64,
    most_runners: u32,
    most_busy: u32,
}

impl<'a> Simulation<'a> {
    fn new(load: &'a Load, pool: Pool) -> Self {
        let (runners, scaler) = pool.at_first();
        let mut simulation = Self {
            load,
            now: 0.0,
            calendar: Calendar::default(),
            arrivals: Draws::new(load.seed, 1),
            lengths: Draws::new(load.seed, 2),
            polls: Draws::new(load.seed, 3),
            queue: VecDeque::new(),
            idle: Vec::new(),
            busy: 0,
            starting: 0,
            scaler,
            arrived: 0,
            counting_from: None,
            none_free: 0,
            waits: Vec::new(),
            runner_seconds: 0.0,
            busy_seconds: 0.0,
            most_runners: 0,
            most_busy: 0,
        };
        for _ in 0..runners {
            simulation.idle.push(PollSchedule::new(0.0, &mut simulation.polls));
        }
        simulation.schedule_arrival();
        if let Some(every) = simulation.scaler.as_ref().map(Scaler::every) {
            simulation.schedule(every, Event::Look);
        }
        simulation
    }

    /// What comes next: an event, or the poll of an idle runner that gets a task. Nothing once all tasks have been
    /// given.
    fn next(&mut self) -> Option<(f64, Option<Event>)> {
        if self.arrived == self.load.tasks && self.queue.is_empty() {
            return None;
        }
        let event = self.calendar.first();
        match self.first_poll() {
            Some((_, poll)) if event.is_none_or(|event| poll <= event) => Some((poll, None)),
            _ => self.calendar.take().map(|(at, event)| (at, Some(event))),
        }
    }

    /// Which idle runner asks first, and when; only while there is something to give.
    fn first_poll(&self) -> Option<(usize, f64)> {
        if self.queue.is_empty() {
            return None;
        }
        if !self.load.polls {
            return self.idle.len().checked_sub(1).map(|last| (last, self.now));
        }
        let mut first: Option<(usize, f64)> = None;
        for (index, pace) in self.idle.iter().enumerate() {
            if first.is_none_or(|(_, at)| pace.next_poll() < at) {
                first = Some((index, pace.next_poll()));
            }
        }
        first
    }

    fn pass_time(&mut self, until: f64) {
        if self.counting_from.is_some() {
            let passed = until - self.now;
            self.runner_seconds += passed * f64::from(self.pods());
            self.busy_seconds += passed * f64::from(self.busy);
            self.most_runners = self.most_runners.max(self.pods());
            self.most_busy = self.most_busy.max(self.busy);
        }
        self.now = until;
    }

    /// Pods that cost something: also those that start.
    fn pods(&self) -> u32 {
        self.busy + self.idle.len() as u32 + self.starting
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Arrival => self.arrive(),
            Event::Free => {
                self.busy -= 1;
                self.ask();
            }
            Event::Started => {
                self.starting -= 1;
                self.ask();
            }
            Event::Look => self.look(),
        }
    }

    fn arrive(&mut self) {
        self.arrived += 1;
        if self.counting_from.is_none() && self.arrived as f64 > self.load.tasks as f64 * WARM_UP {
            self.counting_from = Some(self.now);
        }
        // An idle runner for which a task waits already is none for this one.
        if self.counting_from.is_some() && self.idle.len() <= self.queue.len() {
            self.none_free += 1;
        }
        if self.load.polls && self.queue.is_empty() {
            for pace in &mut self.idle {
                pace.pass(self.now, &mut self.polls);
            }
        }
        self.queue.push_back(self.now);
        if self.arrived < self.load.tasks {
            self.schedule_arrival();
        }
    }

    /// A runner that has become free asks at once.
    fn ask(&mut self) {
        match self.queue.pop_front() {
            Some(since) => self.start(since),
            None => self.idle.push(PollSchedule::new(self.now, &mut self.polls)),
        }
    }

    /// The idle runner whose turn it is gets the first task.
    fn polled(&mut self) {
        if let Some((index, _)) = self.first_poll()
            && let Some(since) = self.queue.pop_front()
        {
            self.idle.swap_remove(index);
            self.start(since);
        }
    }

    fn start(&mut self, since: f64) {
        self.busy += 1;
        if self.counting_from.is_some_and(|from| since >= from) {
            self.waits.push(self.now - since);
        }
        let takes = self.lengths.length(self.load.length) + self.load.turnaround;
        self.schedule(takes, Event::Free);
    }

    fn look(&mut self) {
        let Some(scaler) = &mut self.scaler else { return };
        let waiting = self.queue.len() as u32;
        let idle = self.idle.len();
        let change = scaler.look(self.now, self.busy + waiting, self.busy + idle as u32 + self.starting);
        let (every, start) = (scaler.every(), scaler.start());
        for _ in 0..change.more {
            self.starting += 1;
            self.schedule(start, Event::Started);
        }
        // A runner with a task is drained, and one that is to get a task soon stays.
        let spare = idle.saturating_sub(waiting as usize);
        self.idle.truncate(idle - spare.min(change.fewer as usize));
        self.schedule(every, Event::Look);
    }

    fn schedule_arrival(&mut self) {
        let after = self.arrivals.exponential(1.0 / self.load.arrivals_per_second);
        self.schedule(after, Event::Arrival);
    }

    fn schedule(&mut self, after: f64, event: Event) {
        self.calendar.add(self.now + after, event);
    }

    fn measured(mut self) -> Measured {
        self.waits.sort_by(f64::total_cmp);
        let seconds = self.now - self.counting_from.unwrap_or_default();
        Measured {
            none_free: self.none_free as f64 / self.waits.len() as f64,
            runners: self.runner_seconds / seconds,
            busy: self.busy_seconds / seconds,
            most_runners: self.most_runners,
            most_busy: self.most_busy,
            waits: self.waits,
        }
    }
}

#[cfg(test)]
#[path = "simulation_tests.rs"]
mod tests;
