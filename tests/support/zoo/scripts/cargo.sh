cargo new --quiet --vcs none --lib zoo
cd zoo
cat >src/lib.rs <<'END'
/// ```
/// assert_eq!(zoo::double(21), 42);
/// ```
pub fn double(number: u32) -> u32 {
    number * 2
}

#[test]
fn doubles() {
    let threads: Vec<_> = (0..4).map(|n| std::thread::spawn(move || double(n))).collect();
    let sum: u32 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert_eq!(sum, 12);
}
END
cargo test --offline
