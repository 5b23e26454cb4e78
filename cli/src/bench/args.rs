//! The command line of `pponnx bench`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::args::{ModelOptions, parse_address};

/// Most threads that an edge or a kernel is given.
const MOST_THREADS: i64 = 256;

/// `pponnx bench`
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    arg_required_else_help = true,
    after_help = "Compares with onnxruntime where Python finds it: PPONNX_PYTHON, tests/bench/.venv, or python3.
`python3 tests/bench/install.py` installs it there. Without it its numbers are null.

Examples:
  pponnx bench model.onnx --precision fast
  pponnx bench model.onnx --scheme two-edge --threads 2 --requests 100 --json
  pponnx bench kernels --isa avx2
  pponnx bench edge --devices 32"
)]
pub struct Bench {
    /// What else than a whole model.
    #[command(subcommand)]
    pub what: Option<What>,
    /// The ONNX model
    #[arg(required = true)]
    pub model: Option<PathBuf>,
    /// How to compile.
    #[command(flatten)]
    pub options: ModelOptions,
    /// Threads of a kernel at the edges
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = threads())]
    pub threads: u16,
    /// Requests to measure; enough for ten seconds, at least 30, if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub requests: Option<u32>,
    /// Fail if onnxruntime is not there
    #[arg(long)]
    pub require_ort: bool,
}

/// What `pponnx bench` measures besides a model.
#[derive(Debug, Subcommand)]
pub enum What {
    /// Every kernel over the layers of well-known networks, as ratios to f32
    Kernels(Kernels),
    /// One edge under many devices at once: throughput and tail latency
    Edge(Edge),
    /// A device that takes orders on stdin: one line of JSON each
    #[command(hide = true)]
    Device(Device),
}

/// `pponnx bench kernels`
#[derive(Debug, Args)]
#[command(after_help = "A ratio says how fast a ring kernel is relative to f32: above 1 is faster.

Examples:
  pponnx bench kernels
  pponnx bench kernels --isa avx2 --json")]
pub struct Kernels {
    /// Instruction set: portable, neon, avx2, avx512; the fastest of this processor if not given
    #[arg(long, value_name = "NAME")]
    pub isa: Option<String>,
    /// Threads of a kernel, on both sides
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = threads())]
    pub threads: u16,
    /// Rounds, besides the first, which is dropped
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Only layers whose name contains this
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// Fail if onnxruntime is not there
    #[arg(long)]
    pub require_ort: bool,
}

/// `pponnx bench edge`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pponnx bench edge --devices 32
  pponnx bench edge --devices 32 model.onnx --precision fast --scheme relay --seconds 20 --json")]
pub struct Edge {
    /// The ONNX model; the bundled digits network if not given
    pub model: Option<PathBuf>,
    /// How to compile.
    #[command(flatten)]
    pub options: ModelOptions,
    /// Devices at once
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub devices: u16,
    /// How long to measure
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub seconds: u32,
    /// Threads of a kernel at the edges
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = threads())]
    pub threads: u16,
}

/// `pponnx bench device`
#[derive(Debug, Args)]
pub struct Device {
    /// Configurations, one a device
    #[arg(short, long = "config", value_name = "FILE", required = true)]
    pub configs: Vec<PathBuf>,
    /// Address of edge A
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_address)]
    pub edge_a: String,
    /// Address of edge B
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_address)]
    pub edge_b: Option<String>,
}

fn threads() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1..=MOST_THREADS)
}
