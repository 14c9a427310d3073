use std::time::{Duration, Instant};

use bytes::Bytes;
use eventsource_stream::EventStream;
use futures::{FutureExt, StreamExt};
use plue_messages::framing::Framer;
use proptest::prelude::*;

/// The events of these chunks: (name, data).
fn frames(chunks: &[&[u8]]) -> Vec<(String, String)> {
    let mut framer = Framer::default();
    let mut frames = Vec::new();
    for chunk in chunks {
        framer.push(Bytes::copy_from_slice(chunk)).unwrap();
        while let Some(frame) = framer.next_frame().unwrap() {
            let text = |bytes: Bytes| String::from_utf8_lossy(&bytes).into_owned();
            frames.push((text(frame.event), text(frame.data)));
        }
    }
    frames
}

#[test]
fn events_are_framed_as_the_standard_says() {
    let cases: &[(&str, &[(&str, &str)])] = &[
        ("data: a\n\n", &[("", "a")]),
        ("data:a\n\n", &[("", "a")]),
        ("data:  a\n\n", &[("", " a")]),
        ("event: e\ndata: a\n\n", &[("e", "a")]),
        ("event: e\nevent: f\ndata: a\n\n", &[("f", "a")]),
        ("data: a\ndata: b\ndata\ndata:\n\n", &[("", "a\nb\n\n")]),
        ("data\n\n", &[("", "")]),
        ("event: e\r\ndata: a\r\ndata: b\r\n\r\n", &[("e", "a\nb")]),
        (": comment\ndata: a\n:\n\n", &[("", "a")]),
        ("event: e\n\ndata: a\n\n", &[("", "a")]),
        ("id: 1\nretry: 2\nnonsense\nno: thing\ndata: a\n\n", &[("", "a")]),
        (
            "data: a\r\rdata: b\r\n\r\ndata: c\n\n",
            &[("", "a"), ("", "b"), ("", "c")],
        ),
        (
            "\u{feff}data: a\n\ndata: \u{feff}b\n\n",
            &[("", "a"), ("", "\u{feff}b")],
        ),
        ("data: cut off\n", &[]),
        ("data: a\n\ndata: cut off", &[("", "a")]),
        ("\n\n\n", &[]),
        ("", &[]),
    ];
    for (stream, expected) in cases {
        let expected: Vec<(String, String)> = expected
            .iter()
            .map(|(event, data)| ((*event).to_owned(), (*data).to_owned()))
            .collect();
        assert_eq!(frames(&[stream.as_bytes()]), expected, "{stream:?}");
        let bytes: Vec<&[u8]> = stream.as_bytes().chunks(1).collect();
        assert_eq!(frames(&bytes), expected, "{stream:?} byte by byte");
    }
}

#[test]
fn hostile_streams_cost_time_in_proportion_to_their_size() {
    let newlines = vec![b'\n'; 8 * 1024 * 1024];
    let one_event = [&b"data: "[..], &vec![b'a'; 15 * 1024 * 1024], b"\n\n"].concat();
    let many_lines = b"data:\n".repeat(1024 * 1024);
    for (what, stream) in [("newlines", newlines), ("one event", one_event), ("lines", many_lines)] {
        let began = Instant::now();
        frames(&stream.chunks(16 * 1024).collect::<Vec<_>>());
        frames(&[stream.as_slice()]);
        // It takes well under a second; what is quadratic takes minutes.
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "{what}: {:?}",
            began.elapsed()
        );
    }
}

proptest! {
    #[test]
    fn events_are_the_same_as_those_of_a_known_implementation(
        pieces in prop::collection::vec(
            prop::sample::select(vec![
                "data", "event", "id", ":", " ", "\n", "\n\n", "\r\n", "x", "\u{e9}", "data: y\n", "event: z\n",
            ]),
            0..40,
        ),
        size in 1_usize..20,
    ) {
        let stream = pieces.concat() + "\n\n";
        let chunks: Vec<&[u8]> = stream.as_bytes().chunks(size).collect();
        let input = futures::stream::iter(chunks.iter().copied().map(Ok::<_, ()>));
        let expected: Vec<(String, String)> = EventStream::new(input)
            .map(|event| event.unwrap())
            .map(|event| (if event.event == "message" { String::new() } else { event.event }, event.data))
            .collect::<Vec<_>>()
            .now_or_never()
            .unwrap();
        prop_assert_eq!(frames(&chunks), expected);
    }
}
