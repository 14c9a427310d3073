//! Sizes as operators and manifests write them.

/// A number of bytes: a whole number, or one with `Ki`, `Mi`, `Gi`, `KiB`, `MiB` or `GiB` (IEC 80000-13). `None` for
/// anything else, and for what does not fit.
pub fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let shift = match unit.trim_start() {
        "" => 0,
        "Ki" | "KiB" => 10,
        "Mi" | "MiB" => 20,
        "Gi" | "GiB" => 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_size_is_a_whole_number_with_a_binary_unit_or_none() {
        for (text, bytes) in [
            ("0", Some(0)),
            (" 512 ", Some(512)),
            ("64MiB", Some(64 << 20)),
            ("64 MiB", Some(64 << 20)),
            ("2Gi", Some(2 << 30)),
            ("1KiB", Some(1 << 10)),
            ("64MB", None),
            ("64mib", None),
            ("1.5Gi", None),
            ("-1", None),
            ("", None),
            ("Mi", None),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551615Ki", None),
        ] {
            assert_eq!(parse(text), bytes, "{text:?}");
        }
    }
}
