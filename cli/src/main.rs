//! The `pponnx` command.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    pponnx::main(std::env::args_os())
}
