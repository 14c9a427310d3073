//! The result of a call.

use crate::{Output, Truncation, Unit};

impl Output {
    /// Says that the text is not all there is. The text should say so too, since the model reads only that.
    pub fn truncated(mut self, shown: u64, total: Option<u64>, unit: Unit) -> Self {
        self.truncated = Some(Truncation { shown, total, unit });
        self
    }
}

impl From<String> for Output {
    fn from(text: String) -> Self {
        Self { text, truncated: None }
    }
}

impl From<&str> for Output {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}
