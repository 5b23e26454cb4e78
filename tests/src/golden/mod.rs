//! Golden cases: one text file is one situation, its input above and what comes of it below, as lines that start with
//! `;`. Lines that start with `;;` are notes for people, which blessing leaves alone.
//!
//! The first line is `test` and a word of [`kinds::WORDS`]; lines `set key=value ..` follow, then the input: a network
//! as `graph NAME { .. }` ([`graph`]) or `model PATH`, or a bundle in the plan text form.

pub mod case;
pub mod diff;
pub mod graph;
pub mod kinds;
pub mod network;
pub mod onnx;
pub mod run;
pub mod show;

use std::path::Path;

use case::Case;

/// How to accept what comes out now.
pub const BLESS: &str = "PPONNX_BLESS=1 cargo test -p pponnx-tests --test golden";

/// The file as it should be: its input, notes and the present outcome.
///
/// # Errors
/// What is wrong with the case itself, or a result that no blessing may accept.
pub fn judge(text: &str) -> Result<String, String> {
    let case = Case::parse(text)?;
    let outcome = kinds::run(&case)?;
    Ok(case.render(&outcome))
}

/// Checks one file; with `bless`, rewrites its expectation instead.
///
/// # Errors
/// A difference with file, line and the command that accepts it, or what [`judge`] says.
pub fn check(path: &Path, shown: &str, bless: bool) -> Result<(), String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{shown}: {e}"))?;
    let now = judge(&text).map_err(|e| format!("{shown}:{e}"))?;
    if now == text {
        return Ok(());
    }
    if bless {
        // In one step, for others may be reading.
        let new = path.with_extension("new");
        let written = std::fs::write(&new, now).and_then(|()| std::fs::rename(&new, path));
        return written.map_err(|e| format!("{shown}: {e}"));
    }
    let name = path.file_stem().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let line = diff::first(&text, &now);
    let lines = diff::lines(&text, &now);
    Err(format!("{shown}:{line}: the outcome has changed\n{lines}to accept it: PPONNX_GOLDEN={name} {BLESS}"))
}
