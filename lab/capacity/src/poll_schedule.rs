//! When a runner that got no task asks again: as `PollSchedule` of runner/src/standby/registration.rs.

use super::draws::Draws;

/// The wait between two polls, in seconds: at first, and at most.
const FIRST: f64 = 0.25;
const LAST: f64 = 5.0;
/// How the wait grows.
const GROWTH: f64 = 1.5;
/// How much shorter or longer a single wait is, at most.
const JITTER: f64 = 0.25;

/// An idle runner.
#[derive(Clone, Copy, Debug)]
pub struct PollSchedule {
    wait: f64,
    next: f64,
}

impl PollSchedule {
    /// Of a runner that has asked in vain now.
    pub fn new(now: f64, draws: &mut Draws) -> Self {
        let mut pace = Self { wait: FIRST, next: now };
        pace.step(draws);
        pace
    }

    pub fn next_poll(&self) -> f64 {
        self.next
    }

    /// Asks in vain until now.
    pub fn pass(&mut self, now: f64, draws: &mut Draws) {
        while self.next < now {
            self.step(draws);
        }
    }

    fn step(&mut self, draws: &mut Draws) {
        let wait = self.wait * (1.0 - JITTER + 2.0 * JITTER * draws.share());
        self.next += wait.min(LAST);
        self.wait = (self.wait * GROWTH).min(LAST);
    }

    /// The mean of the wait of a runner that has been idle for long, in seconds.
    pub fn mean_of_last() -> f64 {
        // Half of the waits would be longer than the longest and are that; the others lie evenly below.
        LAST * (1.0 - JITTER / 4.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_come_often_at_first_and_then_every_five_seconds() {
        let mut draws = Draws::new(1, 0);
        let mut pace = PollSchedule::new(0.0, &mut draws);
        assert!((0.18..0.32).contains(&pace.next_poll()), "{pace:?}");
        pace.pass(1000.0, &mut draws);
        let before = pace.next_poll();
        let polls = 10_000;
        for _ in 0..polls {
            let next = pace.next_poll();
            pace.pass(next + 1e-9, &mut draws);
            assert!((3.74..=5.01).contains(&(pace.next_poll() - next)), "{pace:?}");
        }
        let mean = (pace.next_poll() - before) / f64::from(polls);
        assert!((mean - PollSchedule::mean_of_last()).abs() < 0.02, "{mean}");
    }
}
