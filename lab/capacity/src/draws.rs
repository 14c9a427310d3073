//! What is random: when tasks come, and how long they take.
//!
//! The generator is `rand`'s; the two distributions are textbook formulas on its uniform numbers. `rand_distr` has them
//! too, but switches a feature of `num-traits` on that the runner would be built with.

use std::f64::consts::TAU;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// The normal distribution's 95th percentile, in standard deviations.
const P95: f64 = 1.644_853_626_951_472_2;

/// How long a task takes, in seconds.
#[derive(Clone, Copy, Debug)]
pub enum Length {
    /// Memoryless, as the closed forms of queueing theory want it.
    Exponential { mean: f64 },
    /// Most are short and some are long, as tasks of people are. `p95` is at least `median`; the same makes all equal.
    Lognormal { median: f64, p95: f64 },
}

impl Length {
    pub fn mean(self) -> f64 {
        match self {
            Self::Exponential { mean } => mean,
            Self::Lognormal { median, p95 } => median * (sigma(median, p95).powi(2) / 2.0).exp(),
        }
    }
}

/// The standard deviation of the logarithm.
fn sigma(median: f64, p95: f64) -> f64 {
    (p95 / median).ln() / P95
}

/// A source of random numbers that gives the same ones for the same seed. Arrivals, lengths and polls have one each, so
/// that pools of different size are given the same tasks.
pub struct Draws(StdRng);

impl Draws {
    pub fn new(seed: u64, purpose: u64) -> Self {
        Self(StdRng::seed_from_u64(seed.wrapping_mul(31).wrapping_add(purpose)))
    }

    /// In `0.0..1.0`.
    pub fn share(&mut self) -> f64 {
        self.0.random()
    }

    pub fn exponential(&mut self, mean: f64) -> f64 {
        // The share is never 1, so that the logarithm is never that of 0.
        -mean * (1.0 - self.share()).ln()
    }

    pub fn length(&mut self, length: Length) -> f64 {
        match length {
            Length::Exponential { mean } => self.exponential(mean),
            Length::Lognormal { median, p95 } => median * (sigma(median, p95) * self.normal()).exp(),
        }
    }

    /// By Box and Muller.
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.share()).ln()).sqrt();
        radius * (TAU * self.share()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNT: usize = 100_000;

    fn sorted(length: Length) -> Vec<f64> {
        let mut draws = Draws::new(7, 0);
        let mut all: Vec<f64> = (0..COUNT).map(|_| draws.length(length)).collect();
        all.sort_by(f64::total_cmp);
        all
    }

    fn close(left: f64, right: f64) -> bool {
        (left - right).abs() / right < 0.02
    }

    #[test]
    fn lognormal_lengths_have_the_median_the_95th_percentile_and_the_mean_that_were_asked_for() {
        let length = Length::Lognormal {
            median: 120.0,
            p95: 600.0,
        };
        let all = sorted(length);
        assert!(close(all[COUNT / 2], 120.0), "{}", all[COUNT / 2]);
        assert!(close(all[COUNT * 95 / 100], 600.0), "{}", all[COUNT * 95 / 100]);
        let mean = all.iter().sum::<f64>() / COUNT as f64;
        assert!(close(mean, length.mean()), "{mean} {}", length.mean());
    }

    #[test]
    fn exponential_lengths_have_the_mean_and_the_median_of_theory() {
        let all = sorted(Length::Exponential { mean: 50.0 });
        assert!(close(all.iter().sum::<f64>() / COUNT as f64, 50.0));
        assert!(close(all[COUNT / 2], 50.0 * 2f64.ln()), "{}", all[COUNT / 2]);
    }

    #[test]
    fn the_same_median_and_95th_percentile_make_all_tasks_equal() {
        let length = Length::Lognormal { median: 9.0, p95: 9.0 };
        let all = sorted(length);
        assert!(all.iter().all(|it| (it - 9.0).abs() < 1e-9) && (length.mean() - 9.0).abs() < 1e-9);
    }

    #[test]
    fn a_seed_gives_the_same_numbers_again_and_each_purpose_has_its_own() {
        let first = |seed, purpose| Draws::new(seed, purpose).share().to_bits();
        assert_eq!(first(1, 0), first(1, 0));
        assert_ne!(first(1, 0), first(1, 1));
        assert_ne!(first(1, 0), first(2, 0));
    }
}
