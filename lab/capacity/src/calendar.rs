//! What is going to happen in a simulation, in the order of time.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// What happens, at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Arrival,
    /// A runner is ready for its next task.
    Free,
    /// A pod that was started is ready for its first.
    Started,
    /// The autoscaler looks.
    Look,
}

/// An event in the order of time, and of `number` among those of one moment.
#[derive(Clone, Copy, Debug)]
struct Due {
    at: f64,
    number: u64,
    event: Event,
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        self.at.total_cmp(&other.at).then(self.number.cmp(&other.number))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Due {}

/// The events to come.
#[derive(Default)]
pub struct Calendar {
    due: BinaryHeap<Reverse<Due>>,
    count: u64,
}

impl Calendar {
    pub fn add(&mut self, at: f64, event: Event) {
        self.count += 1;
        self.due.push(Reverse(Due {
            at,
            number: self.count,
            event,
        }));
    }

    /// When the next one is.
    pub fn first(&self) -> Option<f64> {
        self.due.peek().map(|Reverse(due)| due.at)
    }

    pub fn take(&mut self) -> Option<(f64, Event)> {
        self.due.pop().map(|Reverse(due)| (due.at, due.event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_the_order_of_time_and_those_of_one_moment_as_they_were_added() {
        let mut calendar = Calendar::default();
        for (at, event) in [(2.0, Event::Free), (1.0, Event::Arrival), (2.0, Event::Look)] {
            calendar.add(at, event);
        }
        assert_eq!(calendar.first(), Some(1.0));
        let order: Vec<_> = std::iter::from_fn(|| calendar.take()).collect();
        assert_eq!(order, [(1.0, Event::Arrival), (2.0, Event::Free), (2.0, Event::Look)]);
    }
}
