//! `pponnx bench`.

use serde_json::Value;

use crate::args::Scheme;
use crate::bench::args::{Bench, What};
use crate::bench::{device, edge, kernels, model};
use crate::cmd::compile::PLAIN_BANNER;
use crate::console::Console;
use crate::failure::{Failure, Outcome};

/// Runs the command.
pub fn run(console: &Console, args: &Bench) -> Outcome<Value> {
    match (&args.what, &args.model) {
        (Some(What::Device(args)), _) => device::run(console, args),
        (Some(What::Kernels(args)), _) => kernels::run(console, args),
        (Some(What::Edge(args)), _) => edge::run(console, args),
        (None, Some(path)) => {
            if args.options.scheme == Scheme::Plain {
                console.warn(PLAIN_BANNER);
            }
            model::run(console, args, path)
        }
        (None, None) => Err(Box::new(Failure::internal("no model, and clap let it pass"))),
    }
}
