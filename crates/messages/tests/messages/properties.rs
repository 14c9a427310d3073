//! What must hold for every stream, however it is cut, damaged or made up.

use plue_messages::TurnEvent;
use plue_messages::decoder::DecodeError;
use proptest::prelude::*;

use crate::blocks::BLOCKS;
use crate::streams::{block, decode, end_turn, event, start, stop, text_block};

/// How many turns were finished.
fn turns((events, _): (Vec<TurnEvent>, Result<(), DecodeError>)) -> usize {
    events
        .iter()
        .filter(|event| matches!(event, TurnEvent::Finished(_)))
        .count()
}

/// A stream with everything in it.
fn rich_stream() -> String {
    let mut stream = start() + &event(r#"{"type":"ping"}"#);
    let mut index = 0;
    for (_, start_block, deltas, _) in BLOCKS {
        let unique = start_block.replace(r#""id":"t""#, &format!(r#""id":"t{index}""#));
        stream += &block(index, &unique, deltas);
        index += 1;
    }
    stream += &text_block(index, &["caf\u{e9} ", "\u{1f980}", "\r\n\u{2028}", "\u{feff}"]);
    stream + &stop(r#"{"stop_reason":"tool_use"}"#)
}

/// What came of a stream, without regard to how it was cut.
fn outcome<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> String {
    format!("{:?}", decode(chunks))
}

fn split_at(bytes: &[u8], cuts: &[prop::sample::Index]) -> Vec<Vec<u8>> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| bytes[pair[0]..pair[1]].to_vec()).collect()
}

#[test]
fn a_stream_that_comes_byte_by_byte_gives_the_same_turn() {
    for stream in [
        rich_stream(),
        rich_stream().replace('\n', "\r\n"),
        rich_stream().replace('\n', "\r"),
    ] {
        let expected = outcome([rich_stream().as_bytes()]);
        assert!(expected.contains("Finished"), "{expected}");
        assert_eq!(outcome(stream.as_bytes().chunks(1)), expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_split_of_a_stream_gives_the_same_turn(
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
        ending in prop::sample::select(vec!["\n", "\r\n", "\r"]),
    ) {
        let stream = rich_stream().replace('\n', ending).into_bytes();
        let chunks = split_at(&stream, &cuts);
        prop_assert_eq!(outcome(chunks.iter().map(Vec::as_slice)), outcome([stream.as_slice()]));
    }

    #[test]
    fn a_stream_that_is_damaged_anywhere_never_panics_and_ends_the_same_however_it_is_cut(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let mut stream = rich_stream().into_bytes();
        for (at, byte) in damage {
            let at = at.index(stream.len());
            stream[at] = byte;
        }
        let chunks = split_at(&stream, &cuts);
        prop_assert_eq!(outcome(chunks.iter().map(Vec::as_slice)), outcome([stream.as_slice()]));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000), size in 1_usize..50) {
        prop_assert!(turns(decode(bytes.chunks(size))) <= 1);
    }

    #[test]
    fn arbitrary_events_never_panic(
        events in prop::collection::vec((
            prop::sample::select(vec![
                "message_start", "content_block_start", "content_block_delta", "content_block_stop",
                "message_delta", "message_stop", "error", "ping", "",
            ]),
            "[\\x00-\\x7f]{0,40}|\\{\"type\":\"[a-z_]{0,12}\",\"index\":[0-9]{1,3},\"delta\":\\{\"type\":\"[a-z_]{1,16}\"\\}\\}",
        ), 0..20),
    ) {
        let stream: String = events.iter().map(|(name, data)| format!("event: {name}\ndata: {data}\n\n")).collect();
        prop_assert!(turns(decode([(start() + &stream).as_bytes()])) <= 1);
    }

    #[test]
    fn text_arrives_whole_whatever_is_in_it(pieces in prop::collection::vec(any::<String>(), 0..8)) {
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        let stream = start() + &text_block(0, &pieces) + &end_turn();
        let (events, ending) = decode([stream.as_bytes()]);
        prop_assert_eq!(ending, Ok(()));
        let mut shown = String::new();
        for event in &events {
            if let TurnEvent::Text(text) = event {
                shown += text;
            }
        }
        let Some(TurnEvent::Finished(turn)) = events.last() else { panic!("the turn is not finished") };
        let kept: serde_json::Value = serde_json::from_str(turn.content[0].get()).unwrap();
        prop_assert_eq!(&shown, &pieces.concat());
        prop_assert_eq!(kept["text"].as_str(), Some(shown.as_str()));
    }
}
