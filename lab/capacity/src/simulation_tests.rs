use super::super::erlang::waiting_probability;
use super::super::pool::Scaling;
use super::*;

/// A load that keeps so many runners busy, of exponential tasks of 10 s.
fn load(busy: f64) -> Load {
    Load {
        arrivals_per_second: busy / 10.0,
        length: Length::Exponential { mean: 10.0 },
        turnaround: 0.0,
        polls: false,
        tasks: 50_000,
        seed: 1,
    }
}

const EQUAL: Length = Length::Lognormal {
    median: 10.0,
    p95: 10.0,
};

fn close(left: f64, right: f64, share: f64) -> bool {
    (left - right).abs() <= right * share
}

#[test]
fn for_exponential_times_as_many_tasks_wait_as_erlangs_formula_says() {
    for (busy, runners) in [(0.5, 1), (8.0, 10), (20.0, 25), (50.0, 55)] {
        // Busy periods are long: fewer tasks are too few of those.
        let many = Load {
            tasks: 200_000,
            ..load(busy)
        };
        let measured = run(&many, Pool::Fixed(runners));
        let expected = waiting_probability(busy, runners);
        assert!(
            close(measured.none_free, expected, 0.05),
            "{busy} busy of {runners}: {} in place of {expected}",
            measured.none_free
        );
        // The mean wait of M/M/c.
        let mean = measured.waits.iter().sum::<f64>() / measured.waits.len() as f64;
        let expected = expected * 10.0 / (f64::from(runners) - busy);
        assert!(
            close(mean, expected, 0.1),
            "{busy} busy of {runners}: {mean} s, {expected} s"
        );
    }
}

#[test]
fn as_many_runners_are_busy_as_the_load_says_and_the_turnaround_is_part_of_it() {
    let with_turnaround = Load {
        turnaround: 2.0,
        ..load(10.0)
    };
    let measured = run(&with_turnaround, Pool::Fixed(20));
    assert!((with_turnaround.busy() - 12.0).abs() < 1e-9);
    assert!(close(measured.busy, 12.0, 0.02), "{}", measured.busy);
    assert!(close(measured.utilisation(), 0.6, 0.02), "{}", measured.utilisation());
    assert!((measured.runners - 20.0).abs() < 1e-6 && measured.most_runners == 20 && measured.most_busy <= 20);
}

#[test]
fn one_runner_and_equal_times_wait_half_of_what_exponential_ones_do() {
    // Pollaczek and Khinchine: with a load of a half, the mean wait is half a task.
    let equal = Load {
        length: EQUAL,
        ..load(0.5)
    };
    let measured = run(&equal, Pool::Fixed(1));
    let mean = measured.waits.iter().sum::<f64>() / measured.waits.len() as f64;
    assert!(close(mean, 5.0, 0.05), "{mean}");
}

#[test]
fn in_a_pool_that_is_large_enough_nobody_waits() {
    let measured = run(&load(3.0), Pool::Fixed(60));
    assert_eq!((measured.none_free, measured.wait(100.0)), (0.0, 0.0));
}

#[test]
fn a_pool_that_cannot_keep_up_makes_tasks_wait_ever_longer() {
    let measured = run(&load(4.0), Pool::Fixed(3));
    assert!(measured.none_free > 0.99 && measured.utilisation() > 0.99);
    assert!(measured.wait(99.0) > 1.5 * measured.wait(60.0));
}

#[test]
fn runners_that_poll_keep_tasks_waiting_though_they_are_free_and_at_most_five_seconds() {
    let polling = Load {
        polls: true,
        ..load(0.01)
    };
    let measured = run(&Load { tasks: 5000, ..polling }, Pool::Fixed(1));
    // One idle runner asks every 3.75 to 5 s: tasks that come at any time wait half of that, and a bit.
    assert!((2.0..2.7).contains(&measured.wait(50.0)), "{}", measured.wait(50.0));
    assert!(measured.none_free < 0.02);
    let many = run(&Load { tasks: 5000, ..polling }, Pool::Fixed(20));
    assert!(many.wait(99.0) < 1.2 && many.wait(100.0) <= 5.0, "{}", many.wait(99.0));
}

#[test]
fn an_autoscaler_follows_the_load_and_keeps_the_idle_ones() {
    let scaling = Scaling {
        start: 5.0,
        every: 15.0,
        keep: 60.0,
        most: 1000,
    };
    let few = run(&load(20.0), Pool::Scaled { idle: 1, scaling });
    let many = run(&load(20.0), Pool::Scaled { idle: 15, scaling });
    assert!(close(few.busy, 20.0, 0.03) && close(many.busy, 20.0, 0.03));
    assert!(many.runners > 35.0 && many.none_free < few.none_free);
    assert!(many.wait(99.0) < few.wait(99.0));
}

#[test]
fn an_autoscaler_with_its_most_is_a_pool_of_that_size() {
    let scaling = Scaling {
        start: 5.0,
        every: 15.0,
        keep: 60.0,
        most: 25,
    };
    let scaled = run(&load(20.0), Pool::Scaled { idle: 25, scaling });
    assert_eq!(scaled.waits, run(&load(20.0), Pool::Fixed(25)).waits);
    assert_eq!(scaled.most_runners, 25);
}

#[test]
fn the_same_seed_gives_the_same_result_and_a_larger_pool_gets_the_same_tasks() {
    let waits = |seed, runners| {
        let load = Load {
            seed,
            tasks: 5000,
            ..load(8.0)
        };
        run(&load, Pool::Fixed(runners))
    };
    assert_eq!(waits(3, 10).waits, waits(3, 10).waits);
    assert_ne!(waits(3, 10).waits, waits(4, 10).waits);
    assert!(waits(3, 11).none_free < waits(3, 10).none_free);
}
