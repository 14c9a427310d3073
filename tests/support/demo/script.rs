//! The scripted model of the demo. It decides as a person would, from the tool results in each request: which test is
//! red, where the function is, what its text is, and what the patched text must be. A tool that returns the wrong
//! thing leads it astray or is found out, and either way the demo fails.

use std::time::Duration;

use crate::{Block, Reply, Request, Turn};
use serde_json::json;

use super::repository::{FILES, TEST_COMMAND};

/// Between two events of the stream: as fast as a fast model, slow enough to watch.
const PACE: Duration = Duration::from_millis(8);

/// What the model remembers of its way.
#[derive(Default)]
pub struct Script {
    /// The function whose test is red.
    function: String,
    /// The files of the repository that hold code.
    sources: Vec<String>,
    /// Where the function is, as grep has it: file, line, text.
    place: (String, usize, String),
    /// What was written.
    written: String,
}

impl Script {
    /// The answer to one request.
    pub fn answer(&mut self, request: &Request) -> Reply {
        let turn = match request.index {
            0 => self.look_around(request),
            1 => self.search(request),
            2 => self.read(request),
            3 => self.repair(request),
            4 => self.test(request),
            5 => self.report(request),
            other => Err(format!("request {} came, and the model had finished", other + 1)),
        };
        match turn {
            Ok(turn) => turn.usage(900 + 400 * request.index as u64, 60, 0, 0).pace(PACE).into(),
            Err(why) => Reply::Wrong(why),
        }
    }

    fn look_around(&mut self, request: &Request) -> Result<Turn, String> {
        let mut tools = request.tools();
        tools.sort_unstable();
        if tools != ["grep", "list_files", "read_file", "shell", "write_file"] {
            return Err(format!("the tools offered are {tools:?}"));
        }
        Ok(Turn::new()
            .block(Block::thinking(
                &["First see the test fail, ", "and what there is."],
                "c2lnbmF0dXJl",
            ))
            .say("I will run the test first, and look at what is in this repository.")
            .call("toolu_test_before", "shell", json!({ "command": TEST_COMMAND }))
            .call("toolu_list", "list_files", json!({ "recursive": true })))
    }

    fn search(&mut self, request: &Request) -> Result<Turn, String> {
        let output = request.success("toolu_test_before")?;
        if !output.starts_with("STDOUT:\n") || !output.trim_end().ends_with("EXIT CODE: 1") {
            return Err(format!(
                "the test must be red with exit code 1, and shell said: {output}"
            ));
        }
        let red = output.lines().find_map(|line| line.strip_prefix("not ok "));
        let complaint = red
            .and_then(|line| line.split_once(" - "))
            .ok_or("no red line in the output of the test")?
            .1;
        self.function = complaint.split_whitespace().next().unwrap_or_default().to_owned();

        let listing = request.success("toolu_list")?;
        let listed: Vec<&str> = listing.lines().collect();
        for (path, _) in FILES {
            if listed.contains(path) == path.starts_with('.') {
                return Err(format!(
                    "list_files must list every file but the hidden one; {path}: {listing}"
                ));
            }
        }
        let is_source = |path: &&&str| path.ends_with(".sh") && !path.starts_with("tests/");
        self.sources = listed.iter().filter(is_source).map(|path| (*path).to_owned()).collect();
        let function = &self.function;
        Ok(Turn::new()
            .say(&format!(
                "The test is red: `{complaint}`. Where is `{function}` defined?"
            ))
            .call(
                "toolu_grep",
                "grep",
                json!({ "pattern": format!("^{function}\\(\\)"), "include": "*.sh" }),
            ))
    }

    fn read(&mut self, request: &Request) -> Result<Turn, String> {
        let found = request.success("toolu_grep")?;
        let mut parts = found.trim_end().splitn(3, ':');
        let (Some(path), Some(line), Some(text)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(format!("grep must answer path:line:text, and said: {found}"));
        };
        let line = line.parse().map_err(|_| format!("grep gave no line number: {found}"))?;
        if text.contains('\n') || !self.sources.iter().any(|source| source == path) {
            return Err(format!(
                "grep must find one line in one of {:?}, and said: {found}",
                self.sources
            ));
        }
        self.place = (path.to_owned(), line, text.to_owned());
        Ok(Turn::new()
            .say(&format!("It is in `{path}`, line {line}. Let me read it."))
            .call("toolu_read", "read_file", json!({ "path": path })))
    }

    fn repair(&mut self, request: &Request) -> Result<Turn, String> {
        let content = request.success("toolu_read")?;
        let (path, line, text) = &self.place;
        if content.lines().nth(line - 1) != Some(text.as_str()) {
            return Err(format!(
                "grep and read_file disagree about line {line} of {path}: {text:?} in {content}"
            ));
        }
        let body: Vec<&str> = content.split_inclusive('\n').collect();
        let end = body
            .iter()
            .skip(*line)
            .position(|text| text.trim_end() == "}")
            .map_or(body.len(), |at| at + line);
        let wrong = (*line..end)
            .find(|&at| body[at].contains(" -gt "))
            .ok_or("the wrong comparison is not there")?;
        self.written = body
            .iter()
            .enumerate()
            .map(|(at, text)| {
                if at == wrong {
                    text.replace(" -gt ", " -ge ")
                } else {
                    (*text).to_owned()
                }
            })
            .collect();
        Ok(Turn::new()
            .say(&format!(
                "Line {} asks for *more than* the limit; the comment above says that the limit itself counts too.",
                wrong + 1
            ))
            .call(
                "toolu_write",
                "write_file",
                json!({ "path": path, "content": self.written }),
            ))
    }

    fn test(&mut self, request: &Request) -> Result<Turn, String> {
        let said = request.success("toolu_write")?;
        let expected = format!("Successfully wrote {} bytes to {}", self.written.len(), self.place.0);
        if said.trim_end() != expected {
            return Err(format!("write_file must answer {expected:?}, and said: {said}"));
        }
        Ok(Turn::new()
            .say("Now the test again.")
            .call("toolu_test_after", "shell", json!({ "command": TEST_COMMAND })))
    }

    fn report(&mut self, request: &Request) -> Result<Turn, String> {
        let output = request.success("toolu_test_after")?;
        let green = output.lines().filter(|line| line.starts_with("ok ")).count();
        if !output.trim_end().ends_with("EXIT CODE: 0") || output.contains("not ok") {
            return Err(format!(
                "the test must be green after the repair, and shell said: {output}"
            ));
        }
        let (path, _, _) = &self.place;
        Ok(Turn::says(&format!(
            "All {green} checks pass. `{}` in `{path}` compared with `-gt` where the limit itself is meant too; it is \
             `-ge` now.",
            self.function
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RED: &str = "STDOUT:\nok 1 - line_total 3 1250 = 3750\nnot ok 4 - shipping 5000: expected 0, got 490\n\n\n\
        STDERR:\n\n\nEXIT CODE: 1";
    const GREEN: &str =
        "STDOUT:\nok 1 - line_total 3 1250 = 3750\nok 4 - shipping 5000 = 0\n\n\nSTDERR:\n\n\nEXIT CODE: 0";
    const LISTING: &str = "README.md\nlib/\nlib/invoice.sh\ntests/\ntests/run.sh";
    const FOUND: &str = "lib/invoice.sh:14:shipping() {";

    /// The content of the file with the bug.
    fn invoice() -> String {
        let file = FILES.iter().find(|(path, _)| *path == "lib/invoice.sh");
        file.map(|(_, content)| (*content).to_owned()).unwrap_or_default()
    }

    /// The results that good tools give, request by request.
    fn good() -> Vec<Vec<(&'static str, String)>> {
        let wrote = format!("Successfully wrote {} bytes to lib/invoice.sh", invoice().len());
        vec![
            vec![],
            vec![("toolu_test_before", RED.into()), ("toolu_list", LISTING.into())],
            vec![("toolu_grep", FOUND.into())],
            vec![("toolu_read", invoice())],
            vec![("toolu_write", wrote)],
            vec![("toolu_test_after", GREEN.into())],
        ]
    }

    /// Plays the conversation, and gives why the model found something wrong.
    fn play(results: &[Vec<(&str, String)>]) -> Result<(), String> {
        let mut script = Script::default();
        let tools = ["read_file", "write_file", "list_files", "grep", "shell"].map(|name| json!({ "name": name }));
        for (index, results) in results.iter().enumerate() {
            let content: Vec<_> = results
                .iter()
                .map(|(id, text)| json!({ "type": "tool_result", "tool_use_id": id, "content": text }))
                .collect();
            let body = json!({ "tools": tools, "messages": [{ "role": "user", "content": content }] });
            match script.answer(&Request {
                headers: Default::default(),
                body,
                at: std::time::Instant::now(),
                index,
            }) {
                Reply::Turn(_) => {}
                Reply::Wrong(why) => return Err(why),
                other => panic!("unexpected reply: {other:?}"),
            }
        }
        Ok(())
    }

    #[test]
    fn good_tools_lead_to_the_end() {
        assert_eq!(play(&good()), Ok(()));
    }

    #[test]
    fn a_tool_that_returns_the_wrong_thing_is_found_out() {
        let cases: Vec<(usize, usize, String)> = vec![
            (1, 0, RED.replace("EXIT CODE: 1", "EXIT CODE: 0")),
            (1, 0, RED.replace("not ok", "ok")),
            (1, 0, String::new()),
            (1, 1, format!(".editorconfig\n{LISTING}")),
            (1, 1, LISTING.replace("lib/invoice.sh\n", "")),
            (2, 0, String::new()),
            (2, 0, "lib/other.sh:14:shipping() {".into()),
            (2, 0, "lib/invoice.sh:fourteen:shipping() {".into()),
            (2, 0, "lib/invoice.sh:14:shipping() {\nlib/invoice.sh:15:x".into()),
            (3, 0, String::new()),
            (3, 0, invoice().replacen('\n', "", 1)),
            (3, 0, invoice().replace("-gt", "-lt")),
            (4, 0, "Successfully wrote 3 bytes to lib/invoice.sh".into()),
            (4, 0, "Done.".into()),
            (5, 0, RED.into()),
            (5, 0, GREEN.replace("ok 1", "not ok 1")),
        ];
        for (request, result, wrong) in cases {
            let mut results = good();
            results[request][result].1 = wrong.clone();
            assert!(play(&results).is_err(), "request {request} with {wrong:?}");
            results[request].remove(result);
            assert!(play(&results).is_err(), "request {request} without its result");
        }
    }
}
