//! How many runners there are: always as many, or as an autoscaler wants.

use std::collections::VecDeque;

/// A pool.
#[derive(Clone, Copy, Debug)]
pub enum Pool {
    /// Always so many runners.
    Fixed(u32),
    /// As many as there is work, and `idle` more.
    Scaled { idle: u32, scaling: Scaling },
}

/// How an autoscaler works: as the HorizontalPodAutoscaler with a stabilization window. Times are in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Scaling {
    /// From the wish for a pod until its runner asks for its first task.
    pub start: f64,
    /// How often it looks.
    pub every: f64,
    /// For how long fewer must have been wanted before a pod goes.
    pub keep: f64,
    /// How many pods there may be.
    pub most: u32,
}

/// How many pods to start, or to take away.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Change {
    pub more: u32,
    pub fewer: u32,
}

/// An autoscaler, with its memory.
pub struct Scaler {
    idle: u32,
    scaling: Scaling,
    /// When, and how many were wanted then; no older than the stabilization.
    wanted: VecDeque<(f64, u32)>,
}

impl Pool {
    /// The runners that there are at first, and what changes their number.
    pub fn at_first(self) -> (u32, Option<Scaler>) {
        match self {
            Self::Fixed(runners) => (runners, None),
            Self::Scaled { idle, scaling } => {
                let scaler = Scaler {
                    idle,
                    scaling,
                    wanted: VecDeque::new(),
                };
                (idle.min(scaling.most), Some(scaler))
            }
        }
    }
}

impl Scaler {
    pub fn every(&self) -> f64 {
        self.scaling.every
    }

    pub fn start(&self) -> f64 {
        self.scaling.start
    }

    /// What to do when `work` tasks run or wait, and there are `pods`, those that start included.
    pub fn look(&mut self, now: f64, work: u32, pods: u32) -> Change {
        let wanted = (work + self.idle).min(self.scaling.most);
        self.wanted.push_back((now, wanted));
        while self.wanted.front().is_some_and(|(at, _)| at + self.scaling.keep < now) {
            self.wanted.pop_front();
        }
        let lately = self.wanted.iter().map(|(_, wanted)| *wanted).max().unwrap_or(wanted);
        Change {
            more: wanted.saturating_sub(pods),
            fewer: pods.saturating_sub(lately),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_come_at_once_and_go_when_fewer_were_wanted_for_long_enough() {
        let scaling = Scaling {
            start: 5.0,
            every: 15.0,
            keep: 60.0,
            most: 12,
        };
        let (runners, scaler) = Pool::Scaled { idle: 2, scaling }.at_first();
        assert_eq!(runners, 2);
        let mut scaler = scaler.unwrap();
        let change = |more, fewer| Change { more, fewer };
        assert_eq!(scaler.look(0.0, 5, 2), change(5, 0));
        assert_eq!(scaler.look(15.0, 20, 7), change(5, 0), "no more than the most");
        assert_eq!(scaler.look(30.0, 1, 12), change(0, 0), "12 were wanted 15 s ago");
        assert_eq!(scaler.look(75.0, 1, 12), change(0, 0), "and 60 s ago");
        assert_eq!(scaler.look(76.0, 1, 12), change(0, 9));
    }
}
