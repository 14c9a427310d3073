//! What it costs that no secret leaves.

use std::hint::black_box;

use criterion::Criterion;
use plue_redaction::Redactor;

/// How much passes in one round.
pub const BYTES: usize = 16 << 20;
/// As much as is read from a pipe at once.
const PIECE: usize = 64 << 10;
/// A line of a build's output, none of it secret.
const LINE: &[u8] = b"   Compiling serde_json v1.0.154 (registry+index) sk- eyJ ghp_ AKIA /usr/lib/x86_64-linux-gnu\n";

pub fn benchmarks(criterion: &mut Criterion) {
    let secrets = [
        "sk-ant-api03-4f9a7c1e5b2d8063-AA",
        "ghp_1234567890abcdefghijklmnopqrstuvwxyz",
        "an operator's pass/word+1",
        "eyJhbGciOiJIUzI1NiJ9.e30.ZRrHA1JJJW8opsbCGfG_HACGpVUMN_a9IV7pAx_Zmeo",
    ];
    let redactor = Redactor::new(secrets);
    let text: Vec<u8> = LINE.iter().copied().cycle().take(BYTES).collect();
    criterion.bench_function("redaction", |b| {
        b.iter(|| {
            let mut stream = redactor.stream();
            for piece in text.chunks(PIECE) {
                black_box(stream.push(piece));
            }
            black_box(stream.finish());
        });
    });
}
