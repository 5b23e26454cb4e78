//! What is wrong with a model or with the options, for people.

use std::fmt;

/// One complaint, tied to the ONNX node that causes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Stable identifier of the kind of complaint, such as `unsupported-operator`.
    pub code: &'static str,
    /// ONNX node name, or `#index` for a nameless node; `None` if the complaint is about the whole file.
    pub node: Option<String>,
    /// What is wrong, one sentence.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// A complaint about the whole model.
    pub fn new(code: &'static str, message: impl Into<String>) -> Diagnostic {
        Diagnostic { code, node: None, message: message.into(), hint: None }
    }

    /// The same complaint about one node.
    #[must_use]
    pub fn at(mut self, node: impl Into<String>) -> Diagnostic {
        self.node = Some(node.into());
        self
    }

    /// The same complaint with a remedy.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Diagnostic {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.code)?;
        if let Some(node) = &self.node {
            write!(f, "node `{node}`: ")?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

/// Everything that keeps a model from being compiled, in the order in which it was found. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines(.diagnostics))]
pub struct CompileError {
    /// The complaints.
    pub diagnostics: Vec<Diagnostic>,
}

fn lines(diagnostics: &[Diagnostic]) -> String {
    diagnostics.iter().map(Diagnostic::to_string).collect::<Vec<_>>().join("\n")
}

impl From<Diagnostic> for CompileError {
    fn from(diagnostic: Diagnostic) -> CompileError {
        CompileError { diagnostics: vec![diagnostic] }
    }
}

impl CompileError {
    /// `Ok` if there is nothing to complain about.
    ///
    /// # Errors
    /// All of `diagnostics` if there are any.
    pub fn unless_empty(diagnostics: Vec<Diagnostic>) -> Result<(), CompileError> {
        if diagnostics.is_empty() { Ok(()) } else { Err(CompileError { diagnostics }) }
    }
}
