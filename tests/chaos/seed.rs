//! Chance that can be repeated: everything that a run leaves to it comes from one number.

use std::future::Future;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// How many seeds each kind of trouble is tried with, when `PLUE_CHAOS_SEEDS` does not say.
const SEEDS: u64 = 20;

/// How many runs go on side by side: they wait most of the time.
const SIDE_BY_SIDE: usize = 6;

/// A source of numbers (splitmix64).
#[derive(Clone, Copy, Debug)]
pub struct Seed(u64);

impl Seed {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// One that belongs to this and to a name: what happens at one place does not change what happens at another.
    pub fn of(self, name: &str) -> Self {
        let mixed = name.bytes().fold(self.0, |mixed, byte| {
            (mixed ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let mut seed = Self(mixed);
        seed.next();
        seed
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True so many times in a hundred.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// A time up to this.
    pub fn up_to(&mut self, longest: Duration) -> Duration {
        let micros = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.below(micros.max(1)))
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }
}

/// Runs a trouble with every seed, some side by side. A failure names its seed; `PLUE_CHAOS_SEED=N` tries that one
/// alone.
pub async fn each_seed<F: Future<Output = ()> + Send + 'static>(run: impl Fn(Seed) -> F + Send + Sync + 'static) {
    each_of(SEEDS, SIDE_BY_SIDE, run).await;
}

/// The same with so many seeds when nothing else is said, so many side by side.
pub async fn each_of<F: Future<Output = ()> + Send + 'static>(
    count: u64,
    side_by_side: usize,
    run: impl Fn(Seed) -> F + Send + Sync + 'static,
) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("PLUE_CHAOS_SEED") {
        Some(only) => only..only + 1,
        None => 1..number("PLUE_CHAOS_SEEDS").unwrap_or(count) + 1,
    };
    let places = Arc::new(Semaphore::new(side_by_side));
    let mut runs = JoinSet::new();
    for seed in seeds {
        let place = Arc::clone(&places);
        let run = AssertUnwindSafe(run(Seed::new(seed))).catch_unwind();
        runs.spawn(async move {
            let _place = place.acquire_owned().await;
            if let Err(panic) = run.await {
                eprintln!("that was seed {seed}: PLUE_CHAOS_SEED={seed} tries it alone");
                resume_unwind(panic);
            }
        });
        // The order in which they begin is that of the seeds.
        tokio::task::yield_now().await;
    }
    let mut failed = Vec::new();
    while let Some(ended) = runs.join_next().await {
        if let Err(error) = ended {
            failed.push(error.to_string());
        }
    }
    assert!(
        failed.is_empty(),
        "{} seeds failed; each said above which: {failed:?}",
        failed.len()
    );
}
