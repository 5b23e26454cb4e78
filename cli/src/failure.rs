//! The one error type of the commands: a diagnostic and the exit code it leads to.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode};

use crate::exit::Exit;

/// A reason to stop: code, message, help, and the exit code that says who has to act.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// Stable dotted code, such as `pponnx::config::unknown-key`.
    pub code: Cow<'static, str>,
    /// One sentence: what is wrong, and where.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// The text that `label` points into.
    source: Option<NamedSource<String>>,
    label: Option<(std::ops::Range<usize>, String)>,
    /// Further problems of the same kind (all complaints about a model stand here).
    pub related: Vec<Failure>,
    /// Facts that `--json` reports inside the error.
    details: serde_json::Map<String, serde_json::Value>,
    /// The result as far as there is one: `--json` reports it beside the error.
    pub result: serde_json::Map<String, serde_json::Value>,
}

/// What every fallible step of a command returns.
pub type Outcome<T> = Result<T, Box<Failure>>;

impl Failure {
    /// A failure without help.
    pub fn new(exit: Exit, code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Failure {
        Failure {
            exit,
            code: code.into(),
            message: message.into(),
            help: None,
            source: None,
            label: None,
            related: Vec::new(),
            details: serde_json::Map::new(),
            result: serde_json::Map::new(),
        }
    }

    /// A fault of this program.
    pub fn internal(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Internal, "pponnx::internal", message)
            .help("this is a bug in pponnx: please report it with the command line and this text")
    }

    /// Adds the remedy.
    pub fn help(mut self, help: impl Into<String>) -> Failure {
        self.help = Some(help.into());
        self
    }

    /// Points at a range of bytes of a text file.
    pub fn at(mut self, file: &Path, text: &str, span: std::ops::Range<usize>, label: impl Into<String>) -> Failure {
        let end = span.end.min(text.len());
        let start = span.start.min(end);
        self.source = Some(NamedSource::new(file.display().to_string(), text.to_owned()));
        self.label = Some((start..end, label.into()));
        self
    }

    /// Adds a fact that `--json` reports inside the error.
    pub fn detail(mut self, key: &str, value: impl Into<serde_json::Value>) -> Failure {
        self.details.insert(key.to_owned(), value.into());
        self
    }

    /// The object under `error` in `--json` output.
    pub fn json(&self) -> serde_json::Value {
        let mut object = self.details.clone();
        object.insert("code".into(), self.code.as_ref().into());
        object.insert("exit".into(), (self.exit as u8).into());
        object.insert("kind".into(), self.exit.name().into());
        object.insert("message".into(), self.message.clone().into());
        if let Some(help) = &self.help {
            object.insert("help".into(), help.clone().into());
        }
        if let (Some(source), Some((span, _))) = (&self.source, &self.label) {
            let line = 1 + source.inner().as_bytes().iter().take(span.start).filter(|b| **b == b'\n').count();
            object.insert("file".into(), source.name().into());
            object.insert("line".into(), line.into());
        }
        if !self.related.is_empty() {
            object.insert("problems".into(), self.related.iter().map(Failure::json).collect::<Vec<_>>().into());
        }
        object.into()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl Diagnostic for Failure {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.code.as_ref()))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|h| Box::new(h) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|s| s as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let (span, text) = self.label.as_ref()?;
        let label = LabeledSpan::new(Some(text.clone()), span.start, span.len());
        Some(Box::new(std::iter::once(label)))
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        if self.related.is_empty() {
            return None;
        }
        Some(Box::new(self.related.iter().map(|f| f as &dyn Diagnostic)))
    }
}

/// A failure to read or write a file, by path.
pub fn file_failure(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    let failure =
        Failure::new(Exit::Configuration, "pponnx::file", format!("cannot {what} `{}`: {error}", path.display()));
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded | std::io::ErrorKind::FileTooLarge => {
            failure.help("free some space; nothing half-written was left behind")
        }
        std::io::ErrorKind::PermissionDenied => failure.help("check the owner and the mode of the file and its folder"),
        std::io::ErrorKind::NotFound => failure.help("check the path; relative paths start at the current directory"),
        _ => failure.help("check the path, and the disk that it is on"),
    }
}
