//! What compiling takes: time beside what the ONNX reader alone needs to load and type the same model, and memory
//! beside the model file.
//!
//! `PPONNX_PACE_MODEL=model.onnx cargo test --release --workspace --test pace -- --ignored --nocapture`

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::path::PathBuf;
use std::time::Instant;

use pponnx_compiler::pipeline::{Options, compile};
use pponnx_compiler::precision::Precision;
use pponnx_compiler::source::{FrontOptions, ModelSource, load_and_type};
use pponnx_compiler::{front, schemes};

/// CPU time of this process so far, in seconds; wall time where the system does not tell.
fn cpu(start: Instant) -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<f64> = stat.rsplit(')').next().unwrap().split(' ').filter_map(|f| f.parse().ok()).collect();
    // Behind the name and the state: user and system time are the 11th and 12th number, in ticks of 10 ms.
    fields.get(10..12).map_or_else(|| start.elapsed().as_secs_f64(), |ticks| (ticks[0] + ticks[1]) / 100.0)
}

/// Most memory that this process ever held, where the system tells.
fn peak_bytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? * 1024.0)
}

fn timed<T>(start: Instant, f: impl FnOnce() -> T) -> f64 {
    let before = cpu(start);
    drop(f());
    cpu(start) - before
}

#[test]
#[ignore = "needs a large model, named by PPONNX_PACE_MODEL, and a quiet machine"]
fn compiling_keeps_pace_with_loading() {
    let path = PathBuf::from(std::env::var("PPONNX_PACE_MODEL").unwrap());
    let model = ModelSource::Path(path.clone());
    let precision = std::env::var("PPONNX_PACE_PRECISION").ok().and_then(|p| Precision::from_name(&p));
    let options = Options {
        scheme: schemes::by_name("relay").unwrap(),
        precision: precision.unwrap_or(Precision::Fast),
        suite: "chacha20",
        front: FrontOptions::default(),
    };
    // First of all, since the peak of the process is that of everything it ever did.
    drop(compile(&model, &options).unwrap());
    let file = std::fs::metadata(&path).unwrap().len() as f64;
    if let Some(peak) = peak_bytes() {
        println!("peak {:.0} MB, {:.2} x the file", peak / 1e6, peak / file);
        assert!(peak <= 4.0 * file);
    }
    let mut ratios = Vec::new();
    let start = Instant::now();
    for round in 0..6 {
        let load = timed(start, || load_and_type(&path).unwrap());
        let front = timed(start, || front::front(&model, &options.front).unwrap());
        let all = timed(start, || compile(&model, &options).unwrap());
        println!("CPU seconds: load and type {load:.2}, front end {front:.2}, compile {all:.2}");
        // The first round warms the page cache.
        if round > 0 {
            ratios.push(all / load);
        }
    }
    ratios.sort_by(f64::total_cmp);
    println!("compile / load and type: median {:.2}, {:.2} to {:.2}", ratios[2], ratios[0], ratios[4]);
    assert!(ratios[2] <= 2.0);
}
