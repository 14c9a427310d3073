//! How a record becomes one event, or several, that the server takes: in parts, apart again, or without its middle.

use super::bounds::{cut, encoded, fits, prefix, shorten};
use super::record::{Kind, Part, Record};

/// How much of a text goes in one part, whatever else there is: each part takes the text a step further.
const MIN_PART: usize = 256;

impl Record {
    /// What is sent of it to a server that takes so many bytes (see [`Record::size`]). Usually that is the record as it
    /// is.
    ///
    /// Lines that were merged are sent apart again, a text that is larger comes in parts, and of everything else the
    /// middle is left out, with a note in its place.
    pub(super) fn fit(mut self, most: usize) -> Vec<Record> {
        if self.size() <= most {
            return vec![self];
        }
        let room = most.saturating_sub(self.size() - self.encoded).max(MIN_PART);
        match self.kind {
            Kind::Log if self.part.is_none() => return self.lines(room),
            Kind::Log | Kind::PartialLog | Kind::Token | Kind::Thinking | Kind::ToolOutput => {
                return self.parts(&self.text, room);
            }
            Kind::ToolEnd | Kind::Error => {
                if cut(&mut self.text, room) {
                    self.encoded = encoded(&self.text);
                    self.edit(|members| {
                        if let Some(truncated) = members.get_mut("truncated") {
                            *truncated = true.into();
                        }
                    });
                }
            }
            Kind::ToolStart | Kind::StepEnd | Kind::Done => {
                let room = most.saturating_sub(self.size() - self.head.len());
                // With its braces.
                self.edit(|members| shorten(members, room + 2));
            }
            Kind::Cut | Kind::StepStart | Kind::Usage | Kind::MessageReset | Kind::Alive => {}
        }
        vec![self]
    }

    /// The same record with another text.
    fn with_text(&self, text: &str) -> Record {
        Record {
            kind: self.kind,
            timestamp: self.timestamp,
            step: self.step,
            boundary: self.boundary.clone(),
            index: self.index,
            head: self.head.clone(),
            text: text.to_owned(),
            encoded: encoded(text),
            part: self.part,
            place: self.place,
        }
    }

    /// Several events of whole lines; a line that is too large by itself comes in parts.
    fn lines(&self, room: usize) -> Vec<Record> {
        let mut events = Vec::new();
        let mut rest = &*self.text;
        while !fits(rest, room) {
            let end = prefix(rest, room);
            // A newline right behind what fits ends it, too.
            let within = rest.len().min(end + 1);
            let last = rest.as_bytes()[..within].iter().rposition(|byte| *byte == b'\n');
            let line = last.or_else(|| rest.find('\n')).unwrap_or(rest.len());
            match last {
                Some(_) => events.push(self.with_text(&rest[..line])),
                None => events.extend(self.parts(&rest[..line], room)),
            }
            match rest.get(line + 1..) {
                Some(behind) => rest = behind,
                None => return events,
            }
        }
        events.push(self.with_text(rest));
        events
    }

    /// A text in parts that the server can put together. What is the last part of a larger one becomes several of it.
    fn parts(&self, text: &str, room: usize) -> Vec<Record> {
        let mut events = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (text, behind) = rest.split_at(prefix(rest, room));
            events.push(self.with_text(text));
            rest = behind;
        }
        let added = u32::try_from(events.len().saturating_sub(1)).unwrap_or(u32::MAX);
        let Part { index: first, count } = self.part.unwrap_or(Part { index: 0, count: 1 });
        for (index, event) in (first..).zip(&mut events) {
            event.part = Some(Part {
                index,
                count: count.saturating_add(added),
            });
            // The line goes on in the next one.
            if event.kind == Kind::Log && index < first.saturating_add(added) {
                event.kind = Kind::PartialLog;
            }
        }
        events
    }

    /// Takes the next part of the same text back: what is left of it is one part then, and the last one.
    pub(super) fn go_on_with(&mut self, next: Record) {
        self.kind = next.kind;
        self.place = next.place;
        self.text.push_str(&next.text);
        self.encoded += next.encoded;
        if let Some(part) = &mut self.part {
            part.count = part.index.saturating_add(1);
        }
    }

    /// Changes members of the head.
    fn edit(&mut self, change: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>)) {
        if let Ok(mut members) = serde_json::from_str(&format!("{{{}}}", self.head)) {
            change(&mut members);
            let object = serde_json::Value::Object(members).to_string();
            self.head = object[1..object.len() - 1].to_owned();
        }
    }
}
