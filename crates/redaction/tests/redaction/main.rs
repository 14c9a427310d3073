//! The redaction on any secrets, any text, and any cut.
#![allow(clippy::unwrap_used)]

use plue_redaction::{MASK, Redactor};
use proptest::prelude::*;

mod pieces;

/// Few letters, so that texts hold secrets, their beginnings and their ends by chance.
fn words(length: std::ops::Range<usize>) -> impl Strategy<Value = String> {
    proptest::collection::vec(prop_oneof!["[abc]", Just("é".to_owned())], length).prop_map(|letters| letters.concat())
}

/// The bytes, cut at these places.
fn pieces<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.windows(2).map(|ends| &bytes[ends[0]..ends[1]]).collect()
}

fn in_pieces(redactor: &Redactor, bytes: &[u8], cuts: &[prop::sample::Index]) -> Vec<u8> {
    let mut stream = redactor.stream();
    let mut out: Vec<u8> = pieces(bytes, cuts)
        .into_iter()
        .flat_map(|piece| stream.push(piece))
        .collect();
    out.extend(stream.finish());
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn however_a_text_is_cut_the_same_comes_out_and_no_secret(
        secrets in proptest::collection::vec(words(2..6), 1..4),
        text in words(0..60),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let redactor = Redactor::new(&secrets);
        let (whole, masked) = redactor.redact(text.clone());
        prop_assert_eq!(in_pieces(&redactor, text.as_bytes(), &cuts), whole.as_bytes());
        for secret in &secrets {
            prop_assert!(!whole.contains(secret.as_str()), "{} in {}", secret, whole);
        }
        prop_assert_eq!(masked == 0, whole == text);
        // What is left stood in the text, in this order.
        let mut rest = text.as_str();
        for part in whole.split(MASK) {
            let at = rest.find(part);
            prop_assert!(at.is_some(), "{:?} is not of {:?}", part, text);
            rest = &rest[at.unwrap_or(0) + part.len()..];
        }
    }

    #[test]
    fn bytes_that_are_no_text_pass_as_they_are(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..5),
    ) {
        let redactor = Redactor::new(["a secret that is not in there"]);
        prop_assert_eq!(in_pieces(&redactor, &bytes, &cuts), bytes);
    }

    #[test]
    fn the_cases_of_the_fuzzer_hold_on_random_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert_eq!(pieces::check(&bytes), Ok(()));
    }

    #[test]
    fn a_secret_is_masked_in_every_encoding_of_a_text_that_holds_it(
        secret in "[ -~]{8,24}",
        before in "[a-z]{0,5}",
        after in "[a-z]{0,5}",
    ) {
        prop_assume!(secret.trim().len() >= 8);
        let redactor = Redactor::new([&secret]);
        let secret = secret.trim();
        let text = format!("{before}{secret}{after}");
        let (json, _) = redactor.redact(serde_json::to_string(&text).unwrap());
        prop_assert!(json.contains(MASK), "{}", json);
        let (plain, _) = redactor.redact(text);
        prop_assert!(!plain.contains(secret), "{}", plain);
    }
}
