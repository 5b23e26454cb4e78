//! What goes to stdout and stderr.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use miette::{GraphicalReportHandler, GraphicalTheme, ReportHandler};
use serde_json::Value;

use crate::exit::Exit;
use crate::failure::Outcome;

/// The two streams: results on stdout (text, or one JSON object), prose on stderr.
pub struct Console {
    json: bool,
    /// Set once a line of the result could not be written.
    lost: AtomicBool,
}

impl Console {
    /// A console; `json` keeps stdout for the one object.
    pub fn new(json: bool) -> Console {
        Console { json, lost: AtomicBool::new(false) }
    }

    /// Whether the result is wanted as JSON.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// A line of the result, unless it is wanted as JSON.
    pub fn say(&self, line: impl AsRef<str>) {
        if !self.json {
            self.result_line(line.as_ref());
        }
    }

    /// A remark beside the result.
    pub fn note(&self, line: impl AsRef<str>) {
        write_line(&mut std::io::stderr().lock(), &format!("note: {}", line.as_ref()));
    }

    /// A warning that nobody should miss.
    pub fn warn(&self, line: impl AsRef<str>) {
        write_line(&mut std::io::stderr().lock(), &format!("WARNING: {}", line.as_ref()));
    }

    /// A line of JSON before the result, for commands that go on running.
    pub fn event(&self, object: &Value) {
        if self.json {
            self.result_line(&object.to_string());
        }
    }

    fn result_line(&self, line: &str) {
        let mut stdout = std::io::stdout().lock();
        let written = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
        // A reader that closed its end (`| head`) is no reason to fail.
        if written.is_err_and(|e| e.kind() != std::io::ErrorKind::BrokenPipe) {
            self.lost.store(true, Ordering::Relaxed);
        }
    }

    /// Prints the outcome and turns it into an exit code.
    pub fn end(&self, outcome: Outcome<Value>) -> ExitCode {
        match outcome {
            Ok(value) => {
                // `null` means that there is nothing to add.
                if !value.is_null() {
                    self.event(&value);
                }
                if self.lost.load(Ordering::Relaxed) {
                    self.warn("the result could not be written to stdout: is the disk full?");
                    return Exit::Configuration.into();
                }
                Exit::Ok.into()
            }
            Err(failure) => {
                if self.json {
                    let mut object = failure.result.clone();
                    object.insert("error".into(), failure.json());
                    self.event(&object.into());
                }
                let terminal = std::io::stderr().is_terminal();
                let theme = if terminal { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
                let handler = GraphicalReportHandler::new_themed(theme).with_links(false).with_wrap_lines(false);
                let text = Shown(&handler, failure.as_ref()).to_string();
                write_line(&mut std::io::stderr().lock(), text.trim_end());
                failure.exit.into()
            }
        }
    }
}

struct Shown<'a>(&'a GraphicalReportHandler, &'a dyn miette::Diagnostic);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.debug(self.1, f)
    }
}

/// Stderr that cannot be written leaves nowhere to say so.
fn write_line(stream: &mut impl Write, line: &str) {
    let _ = writeln!(stream, "{line}");
}

/// A number of bytes for people: `36.2 MB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if n < 1000 {
        return format!("{n} B");
    }
    let mut value = n as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 999.95 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

/// A count for people: `4.09 G`.
pub fn count(n: u64) -> String {
    match n {
        0..=9_999 => n.to_string(),
        10_000..=999_999 => format!("{:.1} k", n as f64 / 1e3),
        1_000_000..=999_999_999 => format!("{:.1} M", n as f64 / 1e6),
        _ => format!("{:.2} G", n as f64 / 1e9),
    }
}

/// A number of things: `1 round`, `5 rounds`.
pub fn things(n: impl Into<u64>, thing: &str) -> String {
    match n.into() {
        1 => format!("1 {thing}"),
        n => format!("{n} {thing}s"),
    }
}

/// A share for people: `99.7 %`. Never rounded up to 100 %, and never down to 0 %.
pub fn percent(share: f64) -> String {
    let text = format!("{:.1}", share * 100.0);
    match text.as_str() {
        "100.0" if share < 1.0 => "> 99.9 %".into(),
        "0.0" if share > 0.0 => "< 0.1 %".into(),
        "100.0" => "100 %".into(),
        _ => format!("{text} %"),
    }
}

/// Rows with aligned columns; columns named in `right` are right-aligned.
pub fn table(rows: &[Vec<String>], right: &[usize]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|s| s.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    rows.iter()
        .map(|row| {
            let cells =
                row.iter().zip(&widths).enumerate().map(|(i, (cell, w))| {
                    if right.contains(&i) { format!("{cell:>w$}") } else { format!("{cell:<w$}") }
                });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!((bytes(999), bytes(1000), bytes(36_200_000)), ("999 B".into(), "1.0 kB".into(), "36.2 MB".into()));
        assert_eq!(bytes(999_999), "1.0 MB");
        assert_eq!((things(1u64, "round"), things(0u64, "round")), ("1 round".into(), "0 rounds".into()));
        assert_eq!((count(4_089_000_000), count(12)), ("4.09 G".into(), "12".into()));
        assert_eq!(
            (percent(0.99999), percent(1.0), percent(0.997)),
            ("> 99.9 %".into(), "100 %".into(), "99.7 %".into())
        );
        assert_eq!((percent(0.0), percent(1e-9)), ("0.0 %".into(), "< 0.1 %".into()));
    }

    #[test]
    fn tables_align() {
        let rows = [vec!["a".to_string(), "10".into()], vec!["long".into(), "9".into()]];
        assert_eq!(table(&rows, &[1]), ["a     10", "long   9"]);
    }
}
