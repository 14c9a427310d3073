//! Quantities as Kubernetes writes them: `512Mi`, `1500m`, `2`.

use anyhow::{Context, Result};
use serde_json::Value;

/// How many times one the suffixes of bytes are.
const BYTES: [(&str, u64); 9] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("", 1),
];

/// A number of bytes, when there is one.
pub fn bytes(quantity: &Value) -> Result<Option<u64>> {
    let Some(text) = text(quantity) else { return Ok(None) };
    let parsed = BYTES
        .iter()
        .find_map(|(suffix, unit)| text.strip_suffix(suffix)?.parse::<u64>().ok()?.checked_mul(*unit));
    parsed
        .with_context(|| format!("{text} is no number of bytes"))
        .map(Some)
}

/// Thousandths of a processor, when they are given.
pub fn milli_cpus(quantity: &Value) -> Result<Option<u64>> {
    let Some(text) = text(quantity) else { return Ok(None) };
    let parsed = match text.strip_suffix('m') {
        Some(thousandths) => thousandths.parse().ok(),
        None => text.parse::<u64>().ok().and_then(|whole| whole.checked_mul(1000)),
    };
    parsed
        .with_context(|| format!("{text} is no number of processors"))
        .map(Some)
}

/// YAML reads `2` as a number.
fn text(quantity: &Value) -> Option<String> {
    match quantity {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        for (text, expected) in [("512Mi", 536_870_912), ("2G", 2_000_000_000), ("7", 7)] {
            assert_eq!(bytes(&json!(text)).unwrap(), Some(expected), "{text}");
        }
        assert_eq!(milli_cpus(&json!("250m")).unwrap(), Some(250));
        assert_eq!(milli_cpus(&json!(2)).unwrap(), Some(2000));
        assert_eq!(bytes(&Value::Null).unwrap(), None);
        assert!(bytes(&json!("1.5Gb")).is_err() && milli_cpus(&json!("many")).is_err());
    }
}
