//! The events of a task as text for a person who watches: a pure function of the events and the style, so that what
//! people see is a snapshot in a test.

use std::collections::HashMap;

use serde_json::Value;

use crate::text::{cut, milliseconds, one_line, printable, thousands};

/// How the terminal wants it.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Columns.
    pub width: usize,
    pub colour: bool,
    /// Whether a line can be taken back, as on a terminal. Then a call is shown while its arguments are being written.
    pub erase: bool,
}

/// The few colours that are used, as SGR codes.
#[derive(Clone, Copy, Debug)]
pub enum Paint {
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
    Cyan,
}

impl Style {
    /// The text in a colour, when colours are wanted.
    pub fn paint(self, paint: Paint, text: &str) -> String {
        if !self.colour || text.is_empty() {
            return text.to_owned();
        }
        let code = match paint {
            Paint::Bold => 1,
            Paint::Dim => 2,
            Paint::Red => 31,
            Paint::Green => 32,
            Paint::Yellow => 33,
            Paint::Cyan => 36,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// A heading across the width.
    pub fn heading(self, text: &str) -> String {
        let rest = self.width.saturating_sub(text.chars().count() + 4);
        format!(
            "\n{}\n\n",
            self.paint(Paint::Bold, &format!("── {text} {}", "─".repeat(rest)))
        )
    }
}

/// How many lines of a tool's result are shown.
const PREVIEW_LINES: usize = 9;
const INDENT: &str = "  ";
const DEEP: &str = "    ";

/// What the cursor stands after.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Cursor {
    /// At the start of a line.
    LineStart,
    /// In the model's text, at this column.
    Text(usize),
    /// After the names of calls whose arguments are not known yet. The line is taken back when they are.
    Opened(String),
}

/// Turns events into text, one after the other.
#[derive(Debug)]
pub struct View {
    style: Style,
    cursor: Cursor,
    /// The end of the model's text that may be half a word.
    word: String,
    message: String,
    /// Id and name of the calls.
    calls: HashMap<String, String>,
    latest_call: String,
}

impl View {
    pub fn new(style: Style) -> Self {
        Self {
            style,
            cursor: Cursor::LineStart,
            word: String::new(),
            message: String::new(),
            calls: HashMap::new(),
            latest_call: String::new(),
        }
    }

    /// What is to be printed for one event.
    pub fn event(&mut self, event: &Value) -> String {
        let mut out = String::new();
        match event["type"].as_str().unwrap_or_default() {
            "token" => self.token(event, None, &mut out),
            "thinking" => self.token(event, Some(Paint::Dim), &mut out),
            "tool_start" => self.tool_start(event, &mut out),
            "tool_end" => self.tool_end(event, &mut out),
            "step_start" => self.step_start(event, &mut out),
            "step_end" => self.step_end(event, &mut out),
            "log" => self.log(event, &mut out),
            "done" | "error" => self.terminal(event, &mut out),
            _ => {}
        }
        out
    }

    /// Ends what is open: half a word, half a line, a line that is to be taken back.
    fn line_start(&mut self, out: &mut String) {
        self.flush_word(None, out);
        match self.cursor {
            Cursor::LineStart => {}
            Cursor::Text(_) => out.push('\n'),
            Cursor::Opened(_) => out.push_str("\r\x1b[2K"),
        }
        self.cursor = Cursor::LineStart;
    }

    /// The model's text, wrapped at the width. The last word waits until it is whole.
    fn token(&mut self, event: &Value, paint: Option<Paint>, out: &mut String) {
        let message = event["message_id"].as_str().unwrap_or_default();
        if message != self.message || !matches!(self.cursor, Cursor::Text(_)) {
            self.line_start(out);
            if message != self.message && !self.message.is_empty() {
                out.push('\n');
            }
            message.clone_into(&mut self.message);
        }
        for character in printable(event["text"].as_str().unwrap_or_default()).chars() {
            match character {
                '\n' => {
                    self.flush_word(paint, out);
                    out.push('\n');
                    self.cursor = Cursor::LineStart;
                }
                character if character.is_whitespace() => self.flush_word(paint, out),
                character => self.word.push(character),
            }
        }
    }

    fn flush_word(&mut self, paint: Option<Paint>, out: &mut String) {
        if self.word.is_empty() {
            return;
        }
        let word = std::mem::take(&mut self.word);
        let length = word.chars().count();
        let column = match self.cursor {
            Cursor::Text(column) if column + 1 + length <= self.style.width => {
                out.push(' ');
                column + 1
            }
            Cursor::Text(_) => {
                out.push('\n');
                out.push_str(INDENT);
                INDENT.len()
            }
            _ => {
                out.push_str(INDENT);
                INDENT.len()
            }
        };
        match paint {
            Some(paint) => out.push_str(&self.style.paint(paint, &word)),
            None => out.push_str(&word),
        }
        self.cursor = Cursor::Text(column + length);
    }

    /// The names as soon as the model opens the calls, and each with its arguments when it is dealt with.
    fn tool_start(&mut self, event: &Value, out: &mut String) {
        let id = event["tool_id"].as_str().unwrap_or_default().to_owned();
        let name = one_line(event["tool_name"].as_str().unwrap_or_default());
        let Some(args) = event.get("args") else {
            self.tool_opened(&name, out);
            self.calls.insert(id, name);
            return;
        };
        self.line_start(out);
        out.push_str(&format!(
            "{INDENT}{} {}",
            self.style.paint(Paint::Cyan, "▸"),
            self.style.paint(Paint::Bold, &name)
        ));
        let room = self.style.width.saturating_sub(INDENT.len() + 3 + name.chars().count());
        let args = cut(&arguments(args), room);
        if !args.is_empty() {
            out.push_str(&format!(" {}", self.style.paint(Paint::Dim, &args)));
        }
        out.push('\n');
        self.latest_call = id;
    }

    fn tool_opened(&mut self, name: &str, out: &mut String) {
        if !self.style.erase {
            return;
        }
        let names = match &self.cursor {
            Cursor::Opened(names) => format!("{names}, {name}"),
            _ => name.to_owned(),
        };
        self.line_start(out);
        let line = cut(
            &format!("▹ {names} …"),
            self.style.width.saturating_sub(INDENT.len() + 1),
        );
        out.push_str(&format!("{INDENT}{}", self.style.paint(Paint::Dim, &line)));
        self.cursor = Cursor::Opened(names);
    }

    fn tool_end(&mut self, event: &Value, out: &mut String) {
        self.line_start(out);
        let id = event["tool_id"].as_str().unwrap_or_default();
        let mut facts = Vec::new();
        if id != self.latest_call {
            facts.push(self.calls.get(id).cloned().unwrap_or_default());
        }
        if let Some(code) = event["code"].as_str() {
            facts.push(code.to_owned());
        }
        facts.push(milliseconds(&event["duration_ms"]));
        if event["truncated"] == true {
            facts.push("cut".to_owned());
        }
        let output = event["output"].as_str().unwrap_or_default();
        self.outcome(event["tool_state"] == "success", &facts, out);
        self.preview(output, out);
    }

    fn outcome(&self, success: bool, facts: &[String], out: &mut String) {
        let mark = match success {
            true => self.style.paint(Paint::Green, "✓"),
            false => self.style.paint(Paint::Red, "✗"),
        };
        out.push_str(&format!(
            "{DEEP}{mark} {}\n",
            self.style.paint(Paint::Dim, &facts.join(" · "))
        ));
    }

    /// The head of an output and its last line, which says most: the exit code of a command, for instance.
    fn preview(&self, output: &str, out: &mut String) {
        let text = printable(output);
        let mut lines: Vec<&str> = text.trim_end().lines().map(str::trim_end).collect();
        lines.dedup_by(|line, before| line.is_empty() && before.is_empty());
        let Some((last, head)) = lines.split_last() else { return };
        if lines.len() <= PREVIEW_LINES + 1 {
            lines.iter().for_each(|line| self.quoted(line, Paint::Dim, out));
            return;
        }
        let shown = PREVIEW_LINES - 1;
        head[..shown].iter().for_each(|line| self.quoted(line, Paint::Dim, out));
        self.quoted(&format!("… {} more lines", head.len() - shown), Paint::Dim, out);
        self.quoted(last, Paint::Dim, out);
    }

    /// One line of somebody else's output.
    fn quoted(&self, line: &str, paint: Paint, out: &mut String) {
        let line = cut(line.trim_end(), self.style.width.saturating_sub(DEEP.len() + 2));
        let bar = self.style.paint(Paint::Dim, "│");
        let space = if line.is_empty() { "" } else { " " };
        out.push_str(&format!("{DEEP}{bar}{space}{}\n", self.style.paint(paint, &line)));
    }

    fn step_start(&mut self, event: &Value, out: &mut String) {
        self.line_start(out);
        let name = cut(
            &one_line(event["step_name"].as_str().unwrap_or_default()),
            self.style.width.saturating_sub(4),
        );
        out.push_str(&format!(
            "{INDENT}{} {}\n",
            self.style.paint(Paint::Cyan, "●"),
            self.style.paint(Paint::Bold, &name)
        ));
    }

    fn step_end(&mut self, event: &Value, out: &mut String) {
        self.line_start(out);
        let mut facts = Vec::new();
        if let Some(code) = event["exit_code"].as_i64() {
            facts.push(format!("exit {code}"));
        }
        facts.push(milliseconds(&event["duration_ms"]));
        self.outcome(event["step_state"] == "success", &facts, out);
        self.preview(event["output"].as_str().unwrap_or_default(), out);
    }

    fn log(&mut self, event: &Value, out: &mut String) {
        self.line_start(out);
        let paint = match event["level"].as_str() {
            Some("stderr") => Paint::Yellow,
            Some("error") => Paint::Red,
            _ => Paint::Dim,
        };
        for line in printable(event["message"].as_str().unwrap_or_default()).lines() {
            self.quoted(line, paint, out);
        }
    }

    fn terminal(&mut self, event: &Value, out: &mut String) {
        self.line_start(out);
        out.push('\n');
        let (mark, word) = match event["type"].as_str() {
            Some("done") => (self.style.paint(Paint::Green, "✓"), "done".to_owned()),
            _ => (
                self.style.paint(Paint::Red, "✗"),
                format!("error: {}", event["code"].as_str().unwrap_or("unknown")),
            ),
        };
        let mut facts = vec![word];
        if let Some(turns) = event["turns"].as_u64() {
            facts.push(format!("{turns} {}", if turns == 1 { "turn" } else { "turns" }));
        }
        if let Some(usage) = event.get("usage") {
            facts.push(format!(
                "{} tokens in",
                thousands(usage["input_tokens"].as_u64().unwrap_or(0))
            ));
            facts.push(format!(
                "{} out",
                thousands(usage["output_tokens"].as_u64().unwrap_or(0))
            ));
        }
        if let Some(cost) = event["cost_usd"].as_f64() {
            facts.push(format!("${cost:.4}"));
        }
        facts.push(milliseconds(&event["duration_ms"]));
        facts.push(format!("sandbox: {}", event["sandbox"].as_str().unwrap_or("unknown")));
        out.push_str(&format!("{INDENT}{mark}"));
        let mut column = INDENT.len() + 1;
        for (index, fact) in facts.iter().enumerate() {
            let separator = if index == 0 { " " } else { " · " };
            if column + separator.chars().count() + fact.chars().count() > self.style.width && index > 0 {
                out.push_str(&format!("\n{DEEP}{fact}"));
                column = DEEP.len() + fact.chars().count();
            } else {
                out.push_str(&format!("{separator}{fact}"));
                column += separator.chars().count() + fact.chars().count();
            }
        }
        out.push('\n');
        if let Some(message) = event["message"].as_str() {
            self.preview(message, out);
        }
    }
}

/// The arguments of a call on one line.
fn arguments(args: &Value) -> String {
    let Some(fields) = args.as_object() else {
        return String::new();
    };
    let mut parts = Vec::new();
    for (name, value) in fields {
        parts.push(match value {
            Value::String(text) if text.contains('\n') => format!("{name}=({} bytes)", thousands(text.len() as u64)),
            Value::String(text) => format!("{name}={:?}", printable(text)),
            other => format!("{name}={other}"),
        });
    }
    one_line(&parts.join(" "))
}
