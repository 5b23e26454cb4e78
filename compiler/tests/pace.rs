//! How long compiling takes beside what the ONNX reader alone needs to load and type the same model.
//!
//! `PPONNX_PACE_MODEL=model.onnx cargo test --release --workspace --test pace -- --ignored --nocapture`

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use pponnx_compiler::pipeline::{Options, compile};
use pponnx_compiler::precision::Precision;
use pponnx_compiler::source::{FrontOptions, ModelSource, load_and_type};
use pponnx_compiler::{front, schemes};

fn timed<T>(f: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let result = f();
    (start.elapsed(), result)
}

#[test]
#[ignore = "needs a large model, named by PPONNX_PACE_MODEL, and a quiet machine"]
fn compiling_takes_at_most_twice_as_long_as_loading() {
    let path = PathBuf::from(std::env::var("PPONNX_PACE_MODEL").unwrap());
    let model = ModelSource::Path(path.clone());
    let precision = std::env::var("PPONNX_PACE_PRECISION").ok().and_then(|p| Precision::from_name(&p));
    let options = Options {
        scheme: schemes::by_name("relay").unwrap(),
        precision: precision.unwrap_or(Precision::Fast),
        suite: "chacha20",
        front: FrontOptions::default(),
    };
    let mut ratios = Vec::new();
    for round in 0..6 {
        let (load, _) = timed(|| load_and_type(&path).unwrap());
        let (front, _) = timed(|| front::front(&model, &options.front).unwrap());
        let (all, _) = timed(|| compile(&model, &options).unwrap());
        println!("load and type {load:.0?}, front end {front:.0?}, compile {all:.0?}");
        // The first round warms the page cache.
        if round > 0 {
            ratios.push(all.as_secs_f64() / load.as_secs_f64());
        }
    }
    ratios.sort_by(f64::total_cmp);
    println!("compile / load and type: median {:.2}, {:.2} to {:.2}", ratios[2], ratios[0], ratios[4]);
    assert!(ratios[2] <= 2.0);
}
