//! The closed form that the simulation is held against: Erlang's second formula (M/M/c).

/// The probability that a task finds no runner free, when tasks come at random and take exponential times. `load` is
/// the mean number of runners that are busy: arrivals a second times seconds that each takes. 1 when the pool cannot
/// keep up.
pub fn waiting_probability(load: f64, runners: u32) -> f64 {
    let count = f64::from(runners);
    if load >= count {
        return 1.0;
    }
    // Erlang B by its recurrence: the factorials of the textbook overflow from 171 runners on.
    let mut blocked = 1.0;
    for n in 1..=runners {
        blocked = load * blocked / (f64::from(n) + load * blocked);
    }
    count * blocked / (count - load * (1.0 - blocked))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_the_values_of_the_tables() {
        // One runner: the probability is the load. Two: load² / (2 + load). The others: the sum of the textbook, with
        // factorials.
        for (load, runners, expected) in [
            (0.5, 1, 0.5),
            (1.0, 2, 1.0 / 3.0),
            (10.0, 12, 0.4494),
            (20.0, 25, 0.2091),
        ] {
            let got = waiting_probability(load, runners);
            assert!((got - expected).abs() < 5e-4, "{load} {runners}: {got}");
        }
    }

    #[test]
    fn a_pool_that_cannot_keep_up_makes_every_task_wait_and_a_large_one_none() {
        assert_eq!(waiting_probability(10.0, 10), 1.0);
        assert_eq!(waiting_probability(10.0, 3), 1.0);
        assert!(waiting_probability(10.0, 60) < 1e-9);
        assert!(waiting_probability(900.0, 1000).is_finite());
    }
}
