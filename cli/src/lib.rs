//! Compile an ONNX model for private inference on two edge servers, and run it: the commands behind `pponnx`.
//!
//! Glue only. The compiler makes plans, the runtime executes them; this crate reads arguments and files, calls
//! both, and says what happened.
#![forbid(unsafe_code)]

pub mod args;
pub mod batch;
pub mod bench;
pub mod cluster;
pub mod cmd;
pub mod compare;
pub mod config;
pub mod console;
pub mod demo;
pub mod exit;
pub mod failure;
pub mod foreign;
pub mod input;
pub mod isa;
pub mod log;
pub mod model;
pub mod output;
pub mod owner;
pub mod plaintext;
pub mod plan;
pub mod progress;
pub mod random;
pub mod record;
pub mod roles;
pub mod verify;

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;

use clap::Parser;

use crate::args::{Cli, Command};
use crate::console::Console;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};

/// Runs the command line and says how it ended.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(e) => {
            // Help and version are no errors; clap knows the stream and the code (2).
            let code = e.exit_code();
            if code == Exit::Usage as i32 && args.iter().any(|a| a == "--json") {
                // A program that asked for an object gets one.
                let text = e.to_string();
                let complaint = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
                let message = complaint.lines().map(str::trim).collect::<Vec<_>>().join(" ");
                let failure = Failure::new(Exit::Usage, "pponnx::usage", message);
                let failure = failure.help("`pponnx --help` and `pponnx COMMAND --help` list what there is");
                return Console::new(true).end(Err(Box::new(failure)));
            }
            return if e.print().is_ok() { ExitCode::from(code as u8) } else { Exit::Internal.into() };
        }
    };
    let console = Console::new(cli.json);
    if let Err(failure) = log::start(cli.verbose) {
        return console.end(Err(failure));
    }
    remember_panics();
    let outcome = catch_unwind(AssertUnwindSafe(|| dispatch(&console, &cli.command)));
    console.end(outcome.unwrap_or_else(|_| {
        let told = LAST_PANIC.lock().ok().and_then(|mut p| p.take());
        Err(Box::new(Failure::internal(told.unwrap_or_else(|| "the program panicked".into()))))
    }))
}

fn dispatch(console: &Console, command: &Command) -> Outcome<serde_json::Value> {
    match command {
        Command::Inspect(args) => cmd::inspect::run(console, args),
        Command::Compile(args) => cmd::compile::run(console, args),
        Command::Keygen(args) => cmd::keygen::run(console, args),
        Command::Serve(args) => cmd::serve::run(console, args),
        Command::Run(args) => cmd::run::run(console, args),
        Command::Verify(args) => cmd::verify::run(console, args),
        Command::Demo(args) => cmd::demo::run(console, args),
        Command::Bench(args) => cmd::bench::run(console, args),
    }
}

static LAST_PANIC: Mutex<Option<String>> = Mutex::new(None);

/// Keeps the text of the last panic instead of printing it. Most are caught on purpose: the ONNX back end panics on
/// some models, which then become ordinary errors.
fn remember_panics() {
    std::panic::set_hook(Box::new(|info| {
        tracing::debug!("caught a panic: {info}");
        if let Ok(mut last) = LAST_PANIC.lock() {
            *last = Some(info.to_string());
        }
    }));
}
