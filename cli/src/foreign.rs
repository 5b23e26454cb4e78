//! Errors of the compiler and the runtime as failures of a command: who has to act, and the exit code.

use std::path::Path;

use pponnx_compiler::diag::{CompileError, Diagnostic};
use pponnx_engine::{EngineError, LocalError};
use pponnx_keys::{AcceptError, LedgerError, MarkError, PairError, StoreError};
use pponnx_net::{IdentityError, NetError};
use pponnx_node::NodeError;
use pponnx_plans::file::FormatError;
use pponnx_plans::valid::Violation;
use pponnx_wire::message::{AbortCode, RefuseCode};

use crate::exit::Exit;
use crate::failure::Failure;

/// A message that ends in "; remedy" becomes message and help. What a peer adds in brackets says what happened, so it
/// stays with the message.
fn split_remedy(text: String) -> (String, Option<String>) {
    let Some((message, remedy)) = text.rsplit_once("; ") else { return (text, None) };
    match remedy.strip_suffix(')').map(|r| (r, r.split_once(" ("))) {
        Some((_, Some((remedy, why)))) => (format!("{message} ({why})"), Some(remedy.to_owned())),
        // the bracket opened before the remedy
        Some((rest, None)) if !rest.contains('(') => (format!("{message})"), Some(rest.to_owned())),
        Some((_, None)) | None => (message.to_owned(), Some(remedy.to_owned())),
    }
}

fn with_remedy(exit: Exit, code: &'static str, text: String) -> Box<Failure> {
    let (message, help) = split_remedy(text);
    let failure = Failure::new(exit, code, message);
    Box::new(match help {
        Some(help) => failure.help(help),
        None => failure,
    })
}

/// A model that cannot be compiled: all complaints at once.
pub fn compile_failure(model: &Path, error: CompileError) -> Box<Failure> {
    let exit = |d: &Diagnostic| match d.code {
        "internal" => Exit::Internal,
        "unreadable-file" => Exit::Configuration,
        _ => Exit::Refused,
    };
    let of = |d: Diagnostic| {
        let code = format!("pponnx::model::{}", d.code);
        let message = match &d.node {
            Some(node) => format!("node `{node}`: {}", d.message),
            None => d.message.clone(),
        };
        let mut failure = Failure::new(exit(&d), code, message);
        if let Some(node) = d.node {
            failure = failure.detail("node", node);
        }
        match d.hint {
            Some(hint) => failure.help(hint),
            None => failure,
        }
    };
    let mut problems: Vec<Failure> = error.diagnostics.into_iter().map(of).collect();
    if let [_] = problems.as_slice()
        && let Some(mut only) = problems.pop()
    {
        only.message = format!("{}: {}", model.display(), only.message);
        return Box::new(only);
    }
    let exit = if problems.iter().any(|p| p.exit == Exit::Internal) { Exit::Internal } else { Exit::Refused };
    let message = format!("{}: {} problems keep the model from being compiled", model.display(), problems.len());
    let mut failure = Failure::new(exit, "pponnx::model::refused", message);
    failure.related = problems;
    Box::new(failure)
}

/// A plan file that cannot be read.
pub fn format_failure(path: &Path, error: &FormatError) -> Box<Failure> {
    let failure = Failure::new(Exit::Refused, "pponnx::plan::format", format!("`{}`: {error}", path.display()));
    Box::new(failure.help("copy the file again, or compile the model again with this version of pponnx"))
}

/// A plan that breaks the rules: all violations at once.
pub fn violation_failure(path: &Path, violations: &[Violation]) -> Box<Failure> {
    let message = format!("`{}`: the plan breaks {} rules and is not run", path.display(), violations.len());
    let mut failure = Failure::new(Exit::Refused, "pponnx::plan::invalid", message)
        .help("do not use this plan: compile the model again");
    failure.related =
        violations.iter().map(|v| Failure::new(Exit::Refused, "pponnx::plan::rule", v.to_string())).collect();
    Box::new(failure)
}

/// A key, check, pair, ledger or mark file that cannot be used.
pub fn store_failure(error: StoreError) -> Box<Failure> {
    with_remedy(Exit::Configuration, "pponnx::keys::file", error.to_string())
}

/// A TLS identity that cannot be made or read.
pub fn identity_failure(error: IdentityError) -> Box<Failure> {
    with_remedy(Exit::Configuration, "pponnx::identity", error.to_string())
}

/// The ONNX back end failed.
pub fn local_failure(model: &Path, error: &LocalError) -> Box<Failure> {
    let failure = Failure::new(Exit::Refused, "pponnx::model::plaintext", format!("{}: {error}", model.display()));
    Box::new(failure.help("plaintext evaluation failed, so there is nothing to compare with"))
}

/// The engine refused a plan, an input or an answer.
pub fn engine_failure(error: EngineError) -> Box<Failure> {
    let (exit, code) = match &error {
        EngineError::PeerMisbehaved { .. } => (Exit::Network, "pponnx::run::peer"),
        EngineError::IntegrityCheckFailed { .. } => (Exit::Integrity, "pponnx::run::integrity"),
        EngineError::InvalidInput { .. } => (Exit::Refused, "pponnx::input::shape"),
        EngineError::NotFinite { .. } => (Exit::Refused, "pponnx::input::not-finite"),
        EngineError::Local { .. } => (Exit::Refused, "pponnx::run::local-segment"),
        EngineError::Constant { .. } => (Exit::Refused, "pponnx::plan::constant"),
        EngineError::PlanMismatch { .. } => (Exit::Refused, "pponnx::plan::mismatch"),
        EngineError::OutOfPairs { .. } => (Exit::Spent, "pponnx::run::out-of-pairs"),
        EngineError::Misuse { .. } => return Box::new(Failure::internal(error.to_string())),
    };
    with_remedy(exit, code, error.to_string())
}

/// A role could not start, or a request not finish.
pub fn node_failure(error: NodeError) -> Box<Failure> {
    let rolled_back = match &error {
        NodeError::Ledger(LedgerError::RolledBack { .. }) | NodeError::Mark(MarkError::Stale { .. }) => true,
        NodeError::Refused { refuse, .. } => refuse.code == RefuseCode::StaleRequest,
        _ => false,
    };
    if rolled_back {
        let mut failure = with_remedy(Exit::Spent, "pponnx::run::rolled-back", error.to_string());
        failure.help = Some(
            "reusing a request number would reveal inputs: make new keys and key pairs with `pponnx keygen DIR \
             --new-keys --requests N`, and copy all folders again"
                .into(),
        );
        return failure;
    }
    if error.is_spent() {
        let failure = with_remedy(Exit::Spent, "pponnx::run::spent", error.to_string());
        return match failure.help {
            Some(_) => failure,
            None => Box::new(failure.help("`pponnx keygen DIR --requests N`, then copy the new .pairs files")),
        };
    }
    let (exit, code) = match error {
        NodeError::Engine(e) => return engine_failure(e),
        NodeError::Store(e)
        | NodeError::Pair(PairError::Store(e))
        | NodeError::Epoch(AcceptError::Store(e))
        | NodeError::Mark(MarkError::Store(e))
        | NodeError::Ledger(LedgerError::Store(e)) => return store_failure(e),
        NodeError::Connect { ref source, .. } => match source {
            NetError::PinMismatch { .. } | NetError::UnknownPin { .. } | NetError::Rejected { .. } => {
                (Exit::Configuration, "pponnx::net::pin")
            }
            NetError::Identity(_) => (Exit::Configuration, "pponnx::identity"),
            NetError::Unreachable { .. } => (Exit::Network, "pponnx::net::unreachable"),
            NetError::Timeout { .. } => (Exit::Network, "pponnx::net::timeout"),
            NetError::Closed { .. } => (Exit::Network, "pponnx::net::closed"),
            NetError::Listen { .. }
            | NetError::WriterBroken
            | NetError::Wire(_)
            | NetError::Io { .. }
            | NetError::Tls(_) => (Exit::Network, "pponnx::net::failed"),
        },
        NodeError::Lost { .. } => (Exit::Network, "pponnx::net::lost"),
        NodeError::Silent { .. } => (Exit::Network, "pponnx::net::silent"),
        NodeError::Refused { ref refuse, .. } => match refuse.code {
            // The edge was reached and does not know who calls or what for: its configuration and ours differ.
            RefuseCode::UnknownDevice | RefuseCode::UnknownBundle | RefuseCode::WrongRole => {
                (Exit::Configuration, "pponnx::net::refused")
            }
            RefuseCode::Version
            | RefuseCode::Busy
            | RefuseCode::StaleRequest
            | RefuseCode::EpochBehind { .. }
            | RefuseCode::Internal
            | RefuseCode::ShuttingDown => (Exit::Network, "pponnx::net::refused"),
        },
        NodeError::Aborted { ref abort, .. } if abort.code == AbortCode::NoCorrection => {
            (Exit::Network, "pponnx::net::no-correction")
        }
        NodeError::Aborted { .. } => (Exit::Network, "pponnx::net::aborted"),
        NodeError::Protocol { .. } => (Exit::Network, "pponnx::net::protocol"),
        NodeError::Epoch(_) => (Exit::Configuration, "pponnx::keys::epoch"),
        NodeError::Settings(_) => (Exit::Configuration, "pponnx::config::settings"),
        NodeError::Ledger(_) | NodeError::Pair(_) | NodeError::Mark(_) => (Exit::Spent, "pponnx::run::spent"),
        NodeError::Random(_) | NodeError::SessionOver | NodeError::Internal(_) => {
            return Box::new(Failure::internal(error.to_string()));
        }
    };
    with_remedy(exit, code, error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_remedy_becomes_help_and_the_reason_stays() {
        let split = |text: &str| {
            let (message, help) = split_remedy(text.into());
            (message, help.unwrap_or_default())
        };
        assert_eq!(split("no remedy"), ("no remedy".into(), String::new()));
        assert_eq!(split("a; b; try c"), ("a; b".into(), "try c".into()));
        assert_eq!(split("busy; try later (edge A is gone)"), ("busy (edge A is gone)".into(), "try later".into()));
        assert_eq!(
            split("failed; see the log (bad file; copy it)"),
            ("failed; see the log (bad file)".into(), "copy it".into())
        );
        assert_eq!(split("x; start it (`serve`), or wait").1, "start it (`serve`), or wait");
    }
}
