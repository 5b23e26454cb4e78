//! Exit codes: who has to act.

use std::process::ExitCode;

/// Why the program ends, as the number it ends with. The numbers are a stable contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// A fault of this program.
    Internal = 1,
    /// The command line does not make sense.
    Usage = 2,
    /// The model, a plan or the input data is refused.
    Refused = 3,
    /// A configuration, identity, pin or key file is wrong, or a file cannot be read or written.
    Configuration = 4,
    /// An edge cannot be reached, is silent, or speaks another version.
    Network = 5,
    /// An edge's answer failed the integrity check.
    Integrity = 6,
    /// No unused request number or key pair is left, or the ledger was rolled back.
    Spent = 7,
    /// `verify` or `demo`: the answer differs from plaintext.
    Differs = 8,
}

impl Exit {
    /// The table shown by `pponnx --help`.
    pub const HELP: &'static str = "Exit codes:
  0  done
  1  internal error (a bug: please report it)
  2  the command line is wrong
  3  the model, a plan or the input data is refused
  4  a configuration, identity, pin or key file is wrong, or a file cannot be read or written
  5  an edge cannot be reached, does not answer in time, or speaks another version
  6  an answer failed the integrity check; no result was released
  7  the ledger or the key pairs are spent
  8  verify or demo: the answer differs from plaintext

Every command takes --json: one JSON object on stdout, everything else on stderr.
Logs: -v, -vv, or PPONNX_LOG=debug (a tracing filter). Kernels: PPONNX_ISA=portable|neon|avx2|avx-vnni|avx512|avx512-vnni.";

    /// The name used in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Exit::Ok => "ok",
            Exit::Internal => "internal",
            Exit::Usage => "usage",
            Exit::Refused => "refused",
            Exit::Configuration => "configuration",
            Exit::Network => "network",
            Exit::Integrity => "integrity",
            Exit::Spent => "spent",
            Exit::Differs => "differs",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}
