//! More than the callback can take: a flood of tokens and of output at a server that needs 100 ms for each request.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use support::processes::memory;
use support::totals::{Running as Counting, Total};
use support::{Answer, ApiServer, Turn};

use crate::seed::{Seed, each_of};
use support::scene::{Outcome, Scene};

const TOKENS: usize = 50_000;
/// Lines of 100 bytes with their newline: 200 MB.
const LINES: u64 = 2_000_000;

/// A run moves 200 MB, and a seed changes no more of it than the server's jitter and the lengths of words: a quarter of
/// the seeds that others have shows as much.
const SEEDS: u64 = 5;
const SIDE_BY_SIDE: usize = 5;

/// What a runner may hold in memory, whatever waits: the queue (16 MiB), what is read, merged and sent of it, and the
/// runner itself.
const MAX_MEMORY: u64 = 64 << 20;
/// The most that was seen, for people.
static SEEN: AtomicU64 = AtomicU64::new(0);

/// A server that needs its time.
fn slow(seed: Seed) -> support::api_server::Settings {
    ApiServer::with().light().answering(move |attempt| {
        let jitter = seed.of(&attempt.key).up_to(Duration::from_millis(10));
        Answer::Late(Duration::from_millis(95) + jitter, Box::new(Answer::Ok))
    })
}

/// Runs a scene, and holds its runner to its memory.
async fn bounded(scene: Scene) -> Outcome {
    let running = scene.start();
    let id = running.id().unwrap();
    let (peak, outcome) = tokio::join!(peak(id), scene.finish(running));
    assert!(peak < MAX_MEMORY, "{peak} bytes in memory");
    let most = SEEN.fetch_max(peak, Ordering::Relaxed).max(peak);
    println!("the most memory of any run so far: {} MB", most / 1_000_000);
    outcome
}

/// The most memory that a process has held, up to its end.
async fn peak(id: u32) -> u64 {
    let mut peak = 0;
    while let Some(bytes) = memory(id, "VmHWM") {
        peak = bytes;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    peak
}

/// All the lines of the flood, by length and hash.
fn lines() -> Total {
    static ALL: OnceLock<Total> = OnceLock::new();
    ALL.get_or_init(|| {
        let mut counting = Counting::default();
        let mut block = String::new();
        for line in 1..=LINES {
            use std::fmt::Write;
            writeln!(block, "{line:020} {}", "x".repeat(78)).unwrap();
            if block.len() > 1 << 20 {
                counting.add(&block);
                block.clear();
            }
        }
        counting.add(&block);
        counting.total()
    })
    .clone()
}

#[tokio::test]
async fn fifty_thousand_tokens_and_200_mb_of_output_arrive_whole_at_a_slow_callback() {
    each_of(SEEDS, SIDE_BY_SIDE, |seed| async move {
        let mut chance = seed.of("tokens");
        let pieces: Vec<String> = (0..TOKENS)
            .map(|index| format!("{index} {}", "w".repeat(chance.below(8) as usize)))
            .collect();
        let scene = Scene::with(slow(seed)).await.limit(Duration::from_secs(300));
        let outcome = bounded(scene.agent(json!({}), [Turn::text(&pieces)]).await).await;
        outcome.done();
        assert_eq!(outcome.scene.api.task(7).tokens_total(), Total::of(pieces.concat()));

        let scene = Scene::with(slow(seed)).await.limit(Duration::from_secs(300));
        let script = format!("seq -f '%020.0f {}' 1 {LINES}", "x".repeat(78));
        let outcome = bounded(scene.workflow(&json!([{ "run": script }, { "run": "echo after" }]))).await;
        let done = outcome.done();
        assert!(done.get("lost_events").is_none(), "{done}");
        assert_eq!(outcome.scene.api.task(7).log_total("stdout", Some(0)), lines());
        assert_eq!(
            outcome.scene.api.task(7).log_total("stdout", Some(1)),
            Total::of("after\n")
        );
    })
    .await;
}
