//! `pponnx bench kernels`: every kernel over the layers of well-known networks, as ratios to f32.
//!
//! A ratio is the time of f32 over ours: above 1, the ring is faster. Ours is charged from the payload as received to the
//! payload as sent, so it pays for unpacking, for the limbs, for the subtraction of the correction and for packing.

use std::time::Instant;

use pponnx_kernels::{KernelError, Kernels as Dispatch};
use serde_json::{Map, Value, json};

use crate::bench::args::Kernels;
use crate::bench::clock::{cores, processor, thread_cpu_ms};
use crate::bench::gemm;
use crate::bench::layer::{self, Prepared, Ring};
use crate::bench::ort::{self, Ort};
use crate::bench::shapes::{Family, Layer, all};
use crate::bench::stats::{best, geomean, median};
use crate::compare::number;
use crate::console::{Console, table};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, file_failure};
use crate::isa;

/// Milliseconds that one side runs in a round, unless a single run takes longer.
const SLICE_MS: f64 = 4.0;
const MOST_REPEATS: usize = 50;
/// Layers below this many mult-adds are not split among threads.
const WORTH_THREADS: usize = 20_000_000;

/// Times of one layer, an entry a round.
struct Times {
    family: Family,
    layer: Layer,
    ring32: Vec<f64>,
    ring52: Vec<f64>,
    /// The second thread's worth: wall time with one thread and with two.
    threads: Option<(Vec<f64>, Vec<f64>)>,
    ort: Vec<f64>,
    gemm: Vec<f64>,
}

/// Runs the command.
pub fn run(console: &Console, args: &Kernels) -> Outcome<Value> {
    let kernels = match &args.isa {
        Some(name) => isa::choose("--isa", name)?,
        None => isa::kernels()?,
    };
    let folder = tempfile::Builder::new().prefix("pponnx-bench-").tempdir();
    let folder = folder.map_err(|e| Box::new(file_failure("make a folder in", &std::env::temp_dir(), &e)))?;
    let wanted = |l: &Layer| args.only.as_ref().is_none_or(|text| l.name().contains(text.as_str()));
    let layers: Vec<(Family, Layer)> = all().into_iter().filter(|(_, l)| wanted(l)).collect();
    if layers.is_empty() {
        let message = format!("no layer is called like `{}`", args.only.as_deref().unwrap_or_default());
        let failure = Failure::new(Exit::Usage, "pponnx::usage::only", message);
        return Err(Box::new(failure.help("`pponnx bench kernels` lists them; names look like `3x3 256->256 @13`")));
    }
    let mut ort = ort::start(console, folder.path(), args.require_ort)?;
    let mut measured = Vec::new();
    console.say(format!("kernels {}, {}", kernels.isa().name(), processor().unwrap_or_default()));
    console.say(line(["layer", "f32 ms", "ring-32", "ring-52", "2 threads", "against gemm"].map(String::from)));
    for (family, layer) in layers {
        let times = measure(kernels, args, &mut ort, family, layer)?;
        console.say(shown(&times));
        measured.push(times);
    }
    let result = json(kernels, args, ort.as_ref(), &measured);
    for (name, key) in SUMMARY {
        if let Some(value) = result.get(key).and_then(Value::as_f64) {
            console.say(format!("{name:<60} {value:.3}"));
        }
    }
    Ok(result)
}

/// What the last lines say, and the fields of `--json` they come from.
const SUMMARY: [(&str, &str); 7] = [
    ("convolutions of AlexNet and ResNet-50, ring-32", "geomean_conv_ring32"),
    ("convolutions of AlexNet and ResNet-50, ring-52", "geomean_conv_ring52"),
    ("fully connected 9216->4096, ring-32", "fc_ring32"),
    ("fully connected 9216->4096, ring-52", "fc_ring52"),
    ("pointwise convolutions of MobileNetV2, ring-32", "geomean_pointwise_ring32"),
    ("depthwise convolutions of MobileNetV2, ring-32", "geomean_depthwise_ring32"),
    ("two threads against one, ring-32", "threads2_ring32"),
];

/// Measures one layer: all sides take turns, and the first round is dropped.
fn measure(kernels: Dispatch, args: &Kernels, ort: &mut Option<Ort>, family: Family, layer: Layer) -> Outcome<Times> {
    let threads = usize::from(args.threads);
    let refused = |e: KernelError| Box::new(Failure::internal(format!("{}: {e}", layer.name())));
    let mut ring32 = layer::prepare(kernels.with_threads(threads), layer, Ring::Fast).map_err(refused)?;
    let mut ring52 = layer::prepare(kernels.with_threads(threads), layer, Ring::Precise).map_err(refused)?;
    let splits = threads == 1 && cores() > 1 && layer.mult_adds() >= WORTH_THREADS;
    let mut two = match splits {
        true => Some(layer::prepare(kernels.with_threads(2), layer, Ring::Fast).map_err(refused)?),
        false => None,
    };
    let mut plain = gemm::prepare(layer);
    let name = layer.name();
    if let Some(ort) = ort {
        ort.layer(&layer::order(layer, &name, threads)).map_err(|e| Failure::internal(format!("onnxruntime: {e}")))?;
    }
    let clock = if threads == 1 { thread_cpu_ms } else { wall_ms };
    let mut times = Times {
        family,
        layer,
        ring32: Vec::new(),
        ring52: Vec::new(),
        threads: splits.then(Default::default),
        ort: Vec::new(),
        gemm: Vec::new(),
    };
    for round in 0..=args.rounds {
        let a = slice(ring32.as_mut(), clock).map_err(refused)?;
        let f32 = match ort {
            Some(ort) => {
                let repeats = repeats(a);
                let runs = ort.run(&name, repeats).map_err(|e| Failure::internal(format!("onnxruntime: {e}")))?;
                Some(median(if threads == 1 { &runs.cpu_ms } else { &runs.wall_ms }))
            }
            None => None,
        };
        let b = slice(ring52.as_mut(), clock).map_err(refused)?;
        let f32_gemm = match plain.as_deref_mut().filter(|_| threads == 1) {
            Some(plain) => Some(slice(plain, clock).map_err(refused)?),
            None => None,
        };
        let pair = match &mut two {
            Some(two) => {
                let one = slice(ring32.as_mut(), wall_ms).map_err(refused)?;
                Some((one, slice(two.as_mut(), wall_ms).map_err(refused)?))
            }
            None => None,
        };
        if round == 0 {
            continue;
        }
        times.ring32.push(a);
        times.ring52.push(b);
        times.ort.extend(f32);
        times.gemm.extend(f32_gemm);
        if let (Some((ones, twos)), Some((one, two))) = (&mut times.threads, pair) {
            ones.push(one);
            twos.push(two);
        }
    }
    if let Some(ort) = ort {
        ort.forget(&name).map_err(|e| Failure::internal(format!("onnxruntime: {e}")))?;
    }
    Ok(times)
}

/// Milliseconds since some fixed moment.
fn wall_ms() -> f64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs_f64() * 1e3
}

fn repeats(ms: f64) -> usize {
    ((SLICE_MS / ms) as usize).clamp(1, MOST_REPEATS)
}

/// The median of some runs.
fn slice(prepared: &mut dyn Prepared, clock: fn() -> f64) -> Result<f64, KernelError> {
    let mut once = || -> Result<f64, KernelError> {
        let before = clock();
        prepared.run()?;
        Ok(clock() - before)
    };
    let mut times = vec![once()?];
    for _ in 1..repeats(times[0]) {
        times.push(once()?);
    }
    Ok(median(&times))
}

impl Times {
    /// What f32 takes, by round: the faster of onnxruntime and `gemm`.
    fn best_f32(&self) -> &[f64] {
        let gemm_wins = !self.gemm.is_empty() && best(&self.gemm) < best(&self.ort);
        if self.ort.is_empty() || gemm_wins { &self.gemm } else { &self.ort }
    }

    /// What the ratios are taken against: onnxruntime if it is there.
    fn f32(&self) -> &[f64] {
        if self.ort.is_empty() { &self.gemm } else { &self.ort }
    }

    fn threads2(&self) -> Option<f64> {
        // Other programs on the machine only ever add to wall time.
        self.threads.as_ref().map(|(one, two)| best(one) / best(two)).filter(|r| r.is_finite())
    }

    fn mac_rate(&self, ms: &[f64]) -> f64 {
        self.layer.mult_adds() as f64 / best(ms) / 1e6
    }
}

/// The median of the ratios by round; `None` if a side is missing.
fn ratio(f32: &[f64], ours: &[f64]) -> Option<f64> {
    let ratios: Vec<f64> = f32.iter().zip(ours).map(|(a, b)| a / b).collect();
    (!ratios.is_empty()).then(|| median(&ratios))
}

fn json(kernels: Dispatch, args: &Kernels, ort: Option<&Ort>, measured: &[Times]) -> Value {
    let over = |families: &[Family], of: &dyn Fn(&Times) -> Option<f64>| {
        geomean(&measured.iter().filter(|t| families.contains(&t.family)).filter_map(of).collect::<Vec<_>>())
    };
    let ring32 = |t: &Times| ratio(t.f32(), &t.ring32);
    let ring52 = |t: &Times| ratio(t.f32(), &t.ring52);
    let large = Layer::Full { k: 9216, n: 4096, rows: 1 };
    let fc = |of: &dyn Fn(&Times) -> Option<f64>| measured.iter().find(|t| t.layer == large).and_then(of);
    let dense = [Family::AlexNet, Family::ResNet50];
    let layers: Vec<Value> = measured.iter().map(of_layer).collect();
    let mut object = Map::new();
    for (key, value) in [
        ("geomean_conv_ring32", Value::from(over(&dense, &ring32))),
        ("fc_ring32", fc(&ring32).into()),
        ("geomean_conv_ring52", over(&dense, &ring52).into()),
        ("fc_ring52", fc(&ring52).into()),
        ("threads2_ring32", over(&dense, &Times::threads2).into()),
        ("isa", kernels.isa().name().into()),
        ("geomean_pointwise_ring32", over(&[Family::Pointwise], &ring32).into()),
        ("geomean_pointwise_ring52", over(&[Family::Pointwise], &ring52).into()),
        ("geomean_depthwise_ring32", over(&[Family::Depthwise], &ring32).into()),
        ("geomean_depthwise_ring52", over(&[Family::Depthwise], &ring52).into()),
        ("geomean_conv_ring32_best_f32", over(&dense, &|t| ratio(t.best_f32(), &t.ring32)).into()),
        ("geomean_conv_ring52_best_f32", over(&dense, &|t| ratio(t.best_f32(), &t.ring52)).into()),
        ("threads", args.threads.into()),
        ("rounds", args.rounds.into()),
        ("processor", processor().into()),
        ("cores", cores().into()),
        ("clock", if args.threads == 1 { "thread CPU" } else { "wall" }.into()),
        ("onnxruntime", ort.map(|o| o.version.clone()).into()),
        ("gemm", gemm::PRESENT.into()),
        ("layers", layers.into()),
    ] {
        object.insert(key.into(), value);
    }
    object.into()
}

fn of_layer(t: &Times) -> Value {
    let side = |ours: &[f64]| {
        json!({
            "ms": number(best(ours)),
            "ratio": ratio(t.f32(), ours),
            "ratio_best_of_n": number(best(t.f32()) / best(ours)),
            "ratio_gemm": ratio(&t.gemm, ours),
            "giga_mult_adds_per_s": number(t.mac_rate(ours)),
        })
    };
    json!({
        "network": t.family.name(),
        "name": t.layer.name(),
        "mult_adds": t.layer.mult_adds(),
        "ort_ms": number(best(&t.ort)),
        "gemm_ms": number(best(&t.gemm)),
        "ring32": side(&t.ring32),
        "ring52": side(&t.ring52),
        "threads2": t.threads2(),
    })
}

fn shown(t: &Times) -> String {
    let cell = |v: Option<f64>| v.map_or_else(|| "-".to_owned(), |v| format!("{v:.2}"));
    line([
        t.layer.name(),
        Some(best(t.f32())).filter(|v| v.is_finite()).map_or_else(|| "-".into(), |v| format!("{v:.3}")),
        cell(ratio(t.f32(), &t.ring32)),
        cell(ratio(t.f32(), &t.ring52)),
        cell(t.threads2()),
        cell(ratio(&t.gemm, &t.ring32)),
    ])
}

/// A row with columns as wide as their longest entry can be, so that it can be said before the next is known.
fn line([name, rest @ ..]: [String; 6]) -> String {
    let cells: Vec<String> = rest.iter().map(|cell| format!("{cell:>12}")).collect();
    let rows = [vec![format!("{name:<26}"), cells.concat()]];
    table(&rows, &[]).concat()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn times(ort: &[f64], gemm: &[f64]) -> Times {
        Times {
            family: Family::AlexNet,
            layer: all()[0].1,
            ring32: vec![1.0, 2.0, 1.0],
            ring52: vec![4.0, 4.0, 4.0],
            threads: Some((vec![2.0, 3.0], vec![1.0, 9.0])),
            ort: ort.to_vec(),
            gemm: gemm.to_vec(),
        }
    }

    #[test]
    fn ratios_are_against_onnxruntime_if_it_is_there() {
        let t = times(&[2.0, 2.0, 2.0], &[1.0, 1.0, 1.0]);
        assert_eq!((ratio(t.f32(), &t.ring32), ratio(t.best_f32(), &t.ring32)), (Some(2.0), Some(1.0)));
        let t = times(&[], &[1.0, 1.0, 1.0]);
        assert_eq!((ratio(t.f32(), &t.ring32), t.threads2()), (Some(1.0), Some(2.0)));
        let nothing = times(&[], &[]);
        assert_eq!(ratio(nothing.f32(), &nothing.ring32), None);
        assert_eq!(of_layer(&nothing)["ring32"]["ratio"], Value::Null);
    }

    #[test]
    fn repeats_fill_a_slice() {
        assert_eq!([repeats(100.0), repeats(1.0), repeats(1e-6)], [1, 4, MOST_REPEATS]);
    }
}
