//! Copies standard input to standard output without the secrets that are given as arguments, in whatever form they
//! come: `echo hunter2-hunter2 | base64 | cargo run --release -p plue-redaction --example mask -- hunter2-hunter2`

use std::io::{Read, Write, stdin, stdout};

use plue_redaction::Redactor;

fn main() -> std::io::Result<()> {
    let redactor = Redactor::new(std::env::args().skip(1));
    let mut stream = redactor.stream();
    // In pieces, as output comes: what may be the beginning of a secret is kept back until it is known what it is.
    let mut piece = [0; 16];
    loop {
        match stdin().read(&mut piece)? {
            0 => break,
            length => stdout().write_all(&stream.push(&piece[..length]))?,
        }
    }
    stdout().write_all(&stream.finish())
}
