//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::exit::Exit;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "pponnx",
    version,
    about = "Private inference for ONNX models: the device keeps its data, two edges do the multiplications",
    long_about = "Compiles an ONNX model into a plan for a device and plans for edge servers, and runs them.\n\
        The device keeps input, activations and result to itself; the edges see uniformly random numbers.\n\n\
        See it work:          pponnx demo\n\
        Your model, checked:  pponnx verify model.onnx\n\
        On three machines:    pponnx compile model.onnx -o out/\n\
        \x20                     copy out/edge-a, out/edge-b and out/device, one to each machine, then\n\
        \x20                     pponnx serve -c edge-a/edge.toml\n\
        \x20                     pponnx serve -c edge-b/edge.toml\n\
        \x20                     pponnx run -c device/device.toml --input x.npy",
    after_help = Exit::HELP,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// Print one JSON object on stdout and nothing else there
    #[arg(long, global = true)]
    pub json: bool,
    /// More log lines on stderr (-v info, -vv debug, -vvv trace)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what is in a model or plan: operators, shapes, mult-adds, what would be outsourced and why not the rest
    Inspect(Inspect),
    /// Compile a model into folders for the device and the edges
    Compile(Compile),
    /// Make new device keys, or further key pairs, for folders that `compile` wrote
    Keygen(Keygen),
    /// Run one edge
    Serve(Serve),
    /// Run inference on the device
    Run(Run),
    /// Compile, run over local edges with TLS, and compare with plaintext
    Verify(Verify),
    /// Show the whole job on a bundled network: three processes, a real digit, a picture of what each party saw
    Demo(Demo),
    /// Measure: a model beside plaintext, the kernels, or one edge under many devices
    Bench(crate::bench::args::Bench),
}

/// Who corrects, and where the correction waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Scheme {
    /// Edge B sends masked corrections to edge A ahead of time; the device talks to edge A
    #[default]
    Relay,
    /// Edge B sends corrections to the device during the request
    TwoEdge,
    /// The owner deals key pairs to the device ahead; one edge
    OneTime,
    /// The owner deals masked corrections to edge A ahead; one edge, 32 bytes of key on the device
    Stockpile,
    /// No privacy: the edge sees the data. For tests
    Plain,
}

impl Scheme {
    /// The name used in plans and files.
    pub fn name(self) -> &'static str {
        match self {
            Scheme::Relay => "relay",
            Scheme::TwoEdge => "two-edge",
            Scheme::OneTime => "one-time",
            Scheme::Stockpile => "stockpile",
            Scheme::Plain => "plain",
        }
    }

    /// Whether the owner deals key pairs for a fixed number of requests.
    pub fn is_dealt(self) -> bool {
        matches!(self, Scheme::OneTime | Scheme::Stockpile)
    }
}

/// How many bits integers get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    /// 32 bits an element; within 1e-2 of plaintext
    Fast,
    /// 40 bits an element; within 1e-3 of plaintext
    #[default]
    Balanced,
    /// 52 bits an element; within 2e-5 of plaintext
    Precise,
}

impl Precision {
    /// The name used in plans and files.
    pub fn name(self) -> &'static str {
        match self {
            Precision::Fast => "fast",
            Precision::Balanced => "balanced",
            Precision::Precise => "precise",
        }
    }

    /// The largest difference from plaintext that `verify` accepts, as a share of the largest plaintext output.
    pub fn tolerance(self) -> f64 {
        match self {
            Precision::Fast => 1e-2,
            Precision::Balanced => 1e-3,
            Precision::Precise => 2e-5,
        }
    }
}

/// How masks are made from keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// ChaCha with 20 rounds: the widest margin, on any processor
    #[default]
    #[value(name = "chacha20")]
    ChaCha20,
    /// ChaCha with 12 rounds: faster, on any processor
    #[value(name = "chacha12")]
    ChaCha12,
    /// AES-128 in counter mode: fastest, where device, owner and edge B have AES instructions
    #[value(name = "aes128-ctr")]
    Aes128Ctr,
}

impl Suite {
    /// The name used in plans and files.
    pub fn name(self) -> &'static str {
        match self {
            Suite::ChaCha20 => "chacha20",
            Suite::ChaCha12 => "chacha12",
            Suite::Aes128Ctr => "aes128-ctr",
        }
    }
}

/// How a model is compiled.
#[derive(Clone, Debug, Args)]
pub struct ModelOptions {
    /// Scheme
    #[arg(long, value_enum, default_value_t)]
    pub scheme: Scheme,
    /// Precision
    #[arg(long, value_enum, default_value_t)]
    pub precision: Precision,
    /// Mask stream
    #[arg(long, value_enum, default_value_t)]
    pub suite: Suite,
    /// Shape of an input whose axes the model leaves open; may be repeated
    #[arg(long = "shape", value_name = "NAME=1x3x224x224", value_parser = parse_shape)]
    pub shapes: Vec<(String, Vec<usize>)>,
}

/// Pictures to numbers: `(pixel * scale - mean) / std`, pixel from 0 to 255.
#[derive(Clone, Debug, Default, Args)]
pub struct ImageOptions {
    /// Axis order of the network's image input; found from the shape if it is clear
    #[arg(long, value_enum, value_name = "LAYOUT")]
    pub image_layout: Option<Layout>,
    /// Channel order that the network was trained on; gray for one channel, else rgb
    #[arg(long, value_enum, value_name = "COLOUR")]
    pub image_colour: Option<Colour>,
    /// Factor on pixels 0..255, applied first; 1/255 if not given
    #[arg(long, value_name = "F", value_parser = parse_scale)]
    pub image_scale: Option<f64>,
    /// Subtracted after scaling, one number or one per channel
    #[arg(long, value_name = "A,B,C", value_delimiter = ',', allow_hyphen_values = true, value_parser = parse_finite)]
    pub image_mean: Option<Vec<f64>>,
    /// Divides after the mean is subtracted, one number or one per channel
    #[arg(long, value_name = "A,B,C", value_delimiter = ',', value_parser = parse_scale)]
    pub image_std: Option<Vec<f64>>,
}

/// Axis order of an image input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Batch, channel, height, width
    Nchw,
    /// Batch, height, width, channel
    Nhwc,
}

/// Channel order of an image input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Colour {
    /// Red first
    Rgb,
    /// Blue first
    Bgr,
    /// One channel of brightness
    Gray,
}

/// One input: a file, and the name of the input it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputFile {
    /// Input name, if given as NAME=FILE.
    pub name: Option<String>,
    /// The file.
    pub path: PathBuf,
}

/// `pponnx inspect`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pponnx inspect model.onnx
  pponnx inspect model.onnx --shape input=1x3x224x224 --json
  pponnx inspect out/device/device.plan            roles, rounds, bytes, segments
  pponnx inspect out/device/device.plan --text     the programs of all roles")]
pub struct Inspect {
    /// An ONNX model, or a plan file
    #[arg(value_name = "MODEL|PLAN")]
    pub file: PathBuf,
    /// Shape of an input whose axes the model leaves open; may be repeated
    #[arg(long = "shape", value_name = "NAME=1x3x224x224", value_parser = parse_shape)]
    pub shapes: Vec<(String, Vec<usize>)>,
    /// Print the text form of a plan
    #[arg(long)]
    pub text: bool,
    /// List every node of a model, outsourced ones too
    #[arg(long)]
    pub all: bool,
}

/// `pponnx compile`
#[derive(Debug, Args)]
#[command(after_help = "Writes out/device, out/edge-a and out/edge-b, each to be copied whole to one machine, and
out/report.json and out/report.html. Schemes one-time, stockpile and plain have no edge B.

Examples:
  pponnx compile model.onnx -o out/
  pponnx compile model.onnx -o out/ --precision fast --edge-a 10.0.0.5:7101 --edge-b 10.9.0.7:7102
  pponnx compile model.onnx -o out/ --scheme stockpile --requests 1000
  pponnx compile model.onnx -o out/ --shape input=1x3x224x224 --image-mean 0.485,0.456,0.406 \\
      --image-std 0.229,0.224,0.225
  pponnx compile model.onnx --dry-run")]
pub struct Compile {
    /// The ONNX model
    pub model: PathBuf,
    /// Folder to write
    #[arg(short, long, value_name = "DIR", required_unless_present = "dry_run")]
    pub output: Option<PathBuf>,
    /// How to compile.
    #[command(flatten)]
    pub options: ModelOptions,
    /// Key pairs to deal, one a request (one-time and stockpile; 8 if not given)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub requests: Option<u64>,
    /// Devices: writes device, device-2, device-3, ... with keys of their own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub devices: u16,
    /// Address of edge A, for the device and for edge B
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7101", value_parser = parse_address)]
    pub edge_a: String,
    /// Address of edge B, for the device
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7102", value_parser = parse_address)]
    pub edge_b: String,
    /// Replace an existing folder that pponnx wrote
    #[arg(long)]
    pub force: bool,
    /// Compile and report, write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Allow --scheme plain, which shows the data to the edge
    #[arg(long)]
    pub allow_plain: bool,
    /// Pictures as input, remembered in device.toml.
    #[command(flatten)]
    pub image: ImageOptions,
}

/// `pponnx keygen`
#[derive(Debug, Args)]
#[command(
    after_help = "With --requests N (one-time, stockpile): deals N further key pairs to each device, under the same keys.
Copy the new .pairs files to the device (one-time) or edge A (stockpile) and start that role again.
Without it, or with --new-keys: new keys, identities and check secrets for every role; copy all folders
again. Edits in device.toml and edge.toml are kept.

Examples:
  pponnx keygen out/
  pponnx keygen out/ --requests 500
  pponnx keygen out/ --new-keys --requests 500"
)]
pub struct Keygen {
    /// The folder that `compile` wrote
    pub dir: PathBuf,
    /// Key pairs to deal to each device
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub requests: Option<u64>,
    /// Make new keys even though --requests is given
    #[arg(long)]
    pub new_keys: bool,
}

/// `pponnx serve`
#[derive(Debug, Args)]
#[command(after_help = "Runs until SIGINT or SIGTERM; requests under way are finished first.

Examples:
  pponnx serve -c edge-a/edge.toml
  pponnx serve -c edge-b/edge.toml --listen 0.0.0.0:7102 -v")]
pub struct Serve {
    /// The edge's configuration
    #[arg(short, long, value_name = "FILE")]
    pub config: PathBuf,
    /// Listen here instead of at the configured address
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<SocketAddr>,
    /// Edge B: reach edge A here instead of at the configured address
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_address)]
    pub edge_a: Option<String>,
    /// Write the address that is listened at to this file once ready
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// End when stdin is closed: a parent process that dies takes the edge with it
    #[arg(long, hide = true)]
    pub until_stdin_closes: bool,
    /// Threads of a kernel
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: u16,
    /// Write what each request cost edge A to this file at the end, for `pponnx bench`
    #[arg(long, hide = true, value_name = "FILE")]
    pub costs: Option<PathBuf>,
    /// For demonstrations: append every tensor received from devices to this file (masked numbers, nothing secret)
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
}

/// `pponnx run`
#[derive(Debug, Args)]
#[command(after_help = "Inputs: .npy, .npz (keys are input names), .pb (ONNX TensorProto), .png, .jpg.
Element types are converted if no value changes (64-bit floats are rounded to 32 bits);
a missing leading axis of size 1 is added. Pictures are resized to the network's input (bilinear).

Examples:
  pponnx run -c device/device.toml --input x.npy
  pponnx run -c device/device.toml --input cat.jpg --labels imagenet.txt
  pponnx run -c device/device.toml --input tokens=t.npy --input mask=m.npy --output y.npz
  pponnx run -c device/device.toml --input many.npy --batch --concurrency 8 --output y.npz")]
pub struct Run {
    /// The device's configuration
    #[arg(short, long, value_name = "FILE")]
    pub config: PathBuf,
    /// Input file; NAME=FILE and repeated where the network has several inputs
    #[arg(short, long = "input", value_name = "[NAME=]FILE", required = true, value_parser = parse_input)]
    pub inputs: Vec<InputFile>,
    /// Every row of the inputs (index along their first axis) is a request of its own; outputs become rows again
    #[arg(long)]
    pub batch: bool,
    /// Make every request so many times
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub repeat: u32,
    /// Requests in flight at once; the edges may allow fewer
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub concurrency: u16,
    /// Write the outputs here: .npz (keys are output names), or .npy if there is one
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Compare with these outputs (.npy or .npz); reported, not judged
    #[arg(long, value_name = "FILE")]
    pub expected: Option<PathBuf>,
    /// Class names, one a line
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// Reach edge A here instead of at the configured address
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_address)]
    pub edge_a: Option<String>,
    /// Reach edge B here instead of at the configured address
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_address)]
    pub edge_b: Option<String>,
    /// Pictures as input.
    #[command(flatten)]
    pub image: ImageOptions,
}

/// `pponnx verify`
#[derive(Debug, Args)]
#[command(
    after_help = "Compiles in memory, starts both edges on loopback with TLS, runs, and compares with the model in
plaintext and with --expected. Exit code 8 if the difference is above the tolerance or the class differs.

Examples:
  pponnx verify model.onnx
  pponnx verify model.onnx --input x.npy --expected y.npy --json
  pponnx verify model.onnx --input x.npy --scheme two-edge --precision precise
  pponnx verify model.onnx --input x.npy --layers
  pponnx verify model.onnx --labeled labeled.npz --samples 20 --image-scale 1"
)]
pub struct Verify {
    /// The ONNX model
    pub model: PathBuf,
    /// Input file; NAME=FILE and repeated where the network has several inputs; seeded random numbers if not given
    #[arg(short, long = "input", value_name = "[NAME=]FILE", value_parser = parse_input)]
    pub inputs: Vec<InputFile>,
    /// Outputs to compare with besides plaintext: .npy, or .npz with output names as keys
    #[arg(long, value_name = "FILE")]
    pub expected: Option<PathBuf>,
    /// How to compile.
    #[command(flatten)]
    pub options: ModelOptions,
    /// Largest accepted difference, as a share of the largest plaintext output; by precision if not given
    #[arg(long, value_name = "F", value_parser = parse_tolerance)]
    pub tolerance: Option<f64>,
    /// Also compare every segment with an evaluation in f64, and name the first that differs
    #[arg(long)]
    pub layers: bool,
    /// Also run examples: .npz with `x` (one example a row) and `ort_pred` or `y` (expected classes)
    #[arg(long, value_name = "FILE")]
    pub labeled: Option<PathBuf>,
    /// How many examples of --labeled to run
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = parse_samples)]
    pub samples: usize,
    /// Seed of the random input
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Pictures, and integer examples of --labeled.
    #[command(flatten)]
    pub image: ImageOptions,
}

/// `pponnx demo`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pponnx demo
  pponnx demo --scheme two-edge --precision fast -o /tmp/demo")]
pub struct Demo {
    /// Folder for the picture pponnx-demo.html; made if missing
    #[arg(short, long, value_name = "DIR", default_value = "pponnx-demo")]
    pub output: PathBuf,
    /// Scheme
    #[arg(long, value_enum, default_value_t)]
    pub scheme: Scheme,
    /// Precision
    #[arg(long, value_enum, default_value_t)]
    pub precision: Precision,
    /// Mask stream
    #[arg(long, value_enum, default_value_t)]
    pub suite: Suite,
}

fn parse_shape(text: &str) -> Result<(String, Vec<usize>), String> {
    let (name, dims) = text.rsplit_once('=').ok_or("write NAME=1x3x224x224")?;
    if name.is_empty() {
        return Err("the input's name is missing; write NAME=1x3x224x224".into());
    }
    if dims.is_empty() || dims == "scalar" {
        return Ok((name.to_owned(), Vec::new()));
    }
    let dims = dims
        .split(['x', ','])
        .map(|d| d.trim().parse::<usize>().ok().filter(|d| *d > 0).ok_or(format!("`{d}` is not a size of at least 1")))
        .collect::<Result<Vec<_>, _>>()?;
    match dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d)) {
        Some(n) if n <= 1 << 31 => Ok((name.to_owned(), dims)),
        _ => Err("more than 2^31 elements".into()),
    }
}

fn parse_input(text: &str) -> Result<InputFile, String> {
    if text.is_empty() {
        return Err("an empty file name".into());
    }
    // A file that exists wins over NAME=FILE, so that paths with `=` work.
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() && !std::path::Path::new(text).exists() => {
            Ok(InputFile { name: Some(name.to_owned()), path: PathBuf::from(path) })
        }
        _ => Ok(InputFile { name: None, path: PathBuf::from(text) }),
    }
}

/// Checks `HOST:PORT`; names are resolved when they are used.
pub fn parse_address(text: &str) -> Result<String, String> {
    let (host, port) = text.rsplit_once(':').ok_or("write HOST:PORT")?;
    if host.is_empty() || (host.contains(':') && !(host.starts_with('[') && host.ends_with(']'))) {
        return Err("write HOST:PORT, with an IPv6 address in brackets".into());
    }
    match port.parse::<u16>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(format!("`{port}` is not a port number")),
    }
}

fn parse_scale(text: &str) -> Result<f64, String> {
    let value = match text.split_once('/') {
        Some((a, b)) => a.trim().parse::<f64>().and_then(|a| b.trim().parse::<f64>().map(|b| a / b)),
        None => text.parse(),
    };
    match value {
        Ok(v) if v.is_finite() && v != 0.0 => Ok(v),
        _ => Err("write a number that is not zero, such as 0.00392 or 1/255".into()),
    }
}

/// None at all would pass without having shown anything.
fn parse_samples(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "write a number of at least 1".into())
}

fn parse_finite(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(v) if v.is_finite() => Ok(v),
        _ => Err("write a number, such as 0.485".into()),
    }
}

fn parse_tolerance(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(v) if v.is_finite() && v >= 0.0 => Ok(v),
        _ => Err("write a number of at least 0, such as 1e-3".into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn shapes_take_names_with_an_equals_sign() {
        assert_eq!(parse_shape("a=b=1x3x2").unwrap(), ("a=b".into(), vec![1, 3, 2]));
        assert_eq!(parse_shape("x:0=1,640").unwrap(), ("x:0".into(), vec![1, 640]));
        for bad in ["1x3", "=1x3", "x=0x3", "x=1xN", "x=-1", "x=99999999x99999999"] {
            assert!(parse_shape(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn inputs_are_named_or_not() {
        assert_eq!(parse_input("x.npy").unwrap(), InputFile { name: None, path: "x.npy".into() });
        assert_eq!(parse_input("a=b.npy").unwrap(), InputFile { name: Some("a".into()), path: "b.npy".into() });
        let dir = tempfile::tempdir().unwrap();
        let odd = dir.path().join("a=b.npy");
        std::fs::write(&odd, b"").unwrap();
        assert_eq!(parse_input(odd.to_str().unwrap()).unwrap().name, None);
    }

    #[test]
    fn addresses_and_scales_are_checked() {
        assert!(parse_address("edge.example:7101").is_ok() && parse_address("[::1]:0").is_ok());
        for bad in ["edge", "edge:", ":1", "::1:7", "h:70000"] {
            assert!(parse_address(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_scale("1/255").unwrap(), 1.0 / 255.0);
        assert!(parse_scale("1/0").is_err() && parse_scale("x").is_err() && parse_scale("0").is_err());
    }

    #[test]
    fn compile_needs_a_folder_unless_dry() {
        assert!(Cli::try_parse_from(["pponnx", "compile", "m.onnx"]).is_err());
        assert!(Cli::try_parse_from(["pponnx", "compile", "m.onnx", "--dry-run"]).is_ok());
        assert!(Cli::try_parse_from(["pponnx", "compile", "m.onnx", "-o", "x", "--requests", "0"]).is_err());
        let cli = Cli::try_parse_from(["pponnx", "verify", "m.onnx", "--image-mean=-1,2,3", "--json"]).unwrap();
        assert!(cli.json);
    }
}
