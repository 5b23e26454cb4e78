//! The commands together, as processes, on the bundled network.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use pponnx_plans::file;
use pponnx_plans::value::{Role, Shape, ValueType};
use serde_json::Value;

const DIGITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../onnx-models/digits");

fn digits(name: &str) -> String {
    format!("{DIGITS}/{name}")
}

fn pponnx(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pponnx"));
    command.args(args).env_remove("PPONNX_LOG").env_remove("PPONNX_ISA").output().unwrap()
}

/// Runs with `--json` and returns the exit code and the one object.
fn json(args: &[&str]) -> (i32, Value) {
    let output = pponnx(&[&["--json"], args].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    (output.status.code().unwrap(), serde_json::from_str(&text).unwrap())
}

fn compile(out: &Path, more: &[&str]) -> Value {
    let model = digits("model.onnx");
    let (code, value) = json(&[&["compile", &model, "-o", out.to_str().unwrap()], more].concat());
    assert_eq!(code, 0, "{value}");
    value
}

struct Edge {
    process: Child,
    address: String,
}

impl Edge {
    fn start(config: PathBuf, more: &[&str]) -> Edge {
        let ready = config.with_file_name("ready");
        let mut process = Command::new(env!("CARGO_BIN_EXE_pponnx"))
            .args(["serve", "--until-stdin-closes", "--listen", "127.0.0.1:0", "-c"])
            .arg(&config)
            .arg("--ready-file")
            .arg(&ready)
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let started = Instant::now();
        while !ready.exists() {
            assert!(process.try_wait().unwrap().is_none(), "the edge ended");
            assert!(started.elapsed() < Duration::from_secs(60), "the edge is not ready");
            std::thread::sleep(Duration::from_millis(5));
        }
        let address = std::fs::read_to_string(&ready).unwrap().trim().to_owned();
        std::fs::remove_file(&ready).unwrap();
        Edge { process, address }
    }

    fn stop(mut self) {
        drop(self.process.stdin.take());
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn run(out: &Path, edge_a: &str, more: &[&str]) -> (i32, Value) {
    let (config, input) = (out.join("device/device.toml"), digits("input.npy"));
    json(&[&["run", "-c", config.to_str().unwrap(), "--input", &input, "--edge-a", edge_a], more].concat())
}

#[test]
fn the_demo_ends_with_the_plaintext_answer_in_every_scheme() {
    let dir = tempfile::tempdir().unwrap();
    for scheme in ["relay", "two-edge", "one-time", "stockpile", "plain"] {
        let out = dir.path().join(scheme);
        let (code, value) = json(&["demo", "--scheme", scheme, "-o", out.to_str().unwrap()]);
        assert_eq!(code, 0, "{value}");
        assert_eq!((value["answer"].as_str(), value["argmax_match"].as_bool()), (Some("4"), Some(true)));
        let page = std::fs::read_to_string(out.join("pponnx-demo.html")).unwrap();
        assert!(page.matches("<svg").count() >= 6, "the input and five uploads");
    }
}

#[test]
fn three_folders_copied_elsewhere_work_together() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let report = compile(&out, &[]);
    assert_eq!(report["rounds"], 5);
    let machine = |name: &str| {
        let to = dir.path().join(format!("machine-{name}/{name}"));
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::rename(out.join(name), &to).unwrap();
        to
    };
    let (device, a, b) = (machine("device"), machine("edge-a"), machine("edge-b"));
    let edge_a = Edge::start(a.join("edge.toml"), &[]);
    let edge_b = Edge::start(b.join("edge.toml"), &["--edge-a", &edge_a.address]);
    let expected = digits("expected.npy");
    for request in 0..3 {
        let more = ["--edge-b", &edge_b.address, "--expected", &expected];
        let (code, value) = run(device.parent().unwrap(), &edge_a.address, &more);
        assert_eq!(code, 0, "{request}: {value}");
        assert!(value["max_rel_err"].as_f64().unwrap() < 1e-3);
        assert_eq!(value["bytes_up"], report["bytes_up"]);
        assert_eq!(value["bytes_down"], report["bytes_down"]);
    }
    edge_b.stop();
    let (code, value) = run(device.parent().unwrap(), &edge_a.address, &["--edge-b", "127.0.0.1:9"]);
    assert_eq!(code, 5, "{value}");
    assert!(value["error"]["message"].as_str().unwrap().contains("edge-b"));
    edge_a.stop();
}

#[test]
fn a_batch_gives_the_rows_that_single_runs_give() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    compile(&out, &[]);
    let edge_a = Edge::start(out.join("edge-a/edge.toml"), &[]);
    let edge_b = Edge::start(out.join("edge-b/edge.toml"), &["--edge-a", &edge_a.address]);
    let rows = dir.path().join("rows.npy");
    let one: ndarray::ArrayD<f32> = ndarray_npy::read_npy(digits("input.npy")).unwrap();
    let scaled = |i: usize| one.mapv(|v| v * (1.0 - i as f32 / 8.0));
    let many: Vec<_> = (0..6).map(scaled).collect();
    let views: Vec<_> = many.iter().map(|x| x.view()).collect();
    ndarray_npy::write_npy(&rows, &ndarray::stack(ndarray::Axis(0), &views).unwrap()).unwrap();
    let config = out.join("device/device.toml");
    let at = ["--edge-a", &edge_a.address, "--edge-b", &edge_b.address];
    let run = |more: &[&str]| json(&[&["run", "-c", config.to_str().unwrap()], more, &at].concat());

    let y = dir.path().join("y.npy");
    let batch = ["--input", rows.to_str().unwrap(), "--batch", "--output", y.to_str().unwrap()];
    let (code, value) = run(&[&batch[..], &["--concurrency", "4"]].concat());
    assert_eq!(code, 0, "{value}");
    let requests = value["requests"].as_array().unwrap();
    let numbers: Vec<_> = requests.iter().map(|r| r["request"].as_u64().unwrap()).collect();
    assert_eq!((numbers.len(), value["concurrency"].as_u64()), (6, Some(4)), "{value}");
    assert!((0..6).all(|n| numbers.contains(&n)), "{numbers:?}");
    assert!(requests.iter().all(|r| r["wall_ms"].as_f64().unwrap() > 0.0 && r["outputs"][0]["top"].is_array()));
    assert_eq!(value["bytes_up"].as_u64().unwrap(), 6 * requests[0]["bytes_up"].as_u64().unwrap());
    assert!(value["wall_ms_p99"].as_f64() >= value["wall_ms_p50"].as_f64(), "{value}");
    let y: ndarray::Array2<f32> = ndarray_npy::read_npy(&y).unwrap();
    assert_eq!(y.nrows(), 6);
    for (i, x) in many.iter().enumerate() {
        let (file, single) = (dir.path().join("x.npy"), dir.path().join("single.npy"));
        ndarray_npy::write_npy(&file, x).unwrap();
        let (code, value) = run(&["--input", file.to_str().unwrap(), "--output", single.to_str().unwrap()]);
        assert_eq!(code, 0, "{value}");
        assert!(value.get("requests").is_none(), "{value}");
        let single: ndarray::Array2<f32> = ndarray_npy::read_npy(&single).unwrap();
        assert_eq!(single.row(0), y.row(i), "row {i}");
    }

    let input = digits("input.npy");
    let (code, value) =
        run(&["--input", &input, "--repeat", "5", "--concurrency", "8", "--expected", &digits("expected.npy")]);
    assert_eq!((code, value["requests"].as_array().map(Vec::len)), (0, Some(5)), "{value}");
    assert!(value["max_rel_err"].as_f64().unwrap() < 1e-3 && value["outputs"].is_array(), "{value}");
    // An array that is one example has no rows of examples.
    let (code, value) = run(&["--input", &digits("input.png"), "--batch"]);
    assert_eq!((code, value["error"]["code"].as_str()), (3, Some("pponnx::input::batch")), "{value}");
}

#[test]
fn dealt_pairs_run_out_and_more_can_be_dealt() {
    for scheme in ["one-time", "stockpile"] {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        compile(&out, &["--scheme", scheme, "--requests", "2"]);
        let old_ledger = std::fs::read(out.join("device/ledger")).unwrap();
        let edge = Edge::start(out.join("edge-a/edge.toml"), &[]);
        for expected in [0, 0, 7] {
            let (code, value) = run(&out, &edge.address, &[]);
            assert_eq!(code, expected, "{scheme}: {value}");
        }
        edge.stop();
        let out_text = out.to_str().unwrap();
        assert_eq!(json(&["keygen", out_text, "--requests", "2"]).0, 0);
        let edge = Edge::start(out.join("edge-a/edge.toml"), &[]);
        assert_eq!(run(&out, &edge.address, &[]).0, 0, "{scheme}");

        // A ledger from a backup: edge A has seen later numbers.
        std::fs::write(out.join("device/ledger"), old_ledger).unwrap();
        let (code, value) = run(&out, &edge.address, &[]);
        assert_eq!((code, value["error"]["code"].as_str()), (7, Some("pponnx::run::rolled-back")), "{value}");
        edge.stop();

        // New keys start anew, with everything that belongs to them.
        assert_eq!(json(&["keygen", out_text, "--new-keys", "--requests", "1"]).0, 0);
        let edge = Edge::start(out.join("edge-a/edge.toml"), &[]);
        assert_eq!(run(&out, &edge.address, &[]).0, 0, "{scheme}");
        assert_eq!(run(&out, &edge.address, &[]).0, 7, "{scheme}");
    }
}

#[test]
fn verify_agrees_and_says_when_it_does_not() {
    let (model, input, expected) = (digits("model.onnx"), digits("input.png"), digits("expected.npy"));
    let (code, value) = json(&["verify", &model, "--input", &input, "--layers"]);
    assert_eq!(code, 0, "{value}");
    assert_eq!(value["layers"].as_array().unwrap().len(), 5);
    assert!(value["first_divergent_segment"].is_null());
    // The picture is not exactly the array, which a tight tolerance finds.
    let more = ["verify", &model, "--input", &input, "--expected", &expected, "--tolerance", "1e-4"];
    let (code, value) = json(&more);
    assert_eq!((code, value["passed"].as_bool()), (8, Some(false)), "{value}");
    assert_eq!(value["error"]["kind"], "differs");
    let labeled = digits("heldout.npz");
    let (code, value) =
        json(&["verify", &model, "--labeled", &labeled, "--image-scale", "1/16", "--precision", "fast"]);
    assert_eq!((code, value["labeled"]["expected_class"].as_u64()), (0, Some(20)), "{value}");
}

#[test]
fn compile_is_careful_with_folders() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    compile(&out, &["--devices", "2"]);
    assert!(out.join("device-2/device.toml").is_file());
    let first = std::fs::read(out.join("device/device.plan")).unwrap();
    let (model, text) = (digits("model.onnx"), out.to_str().unwrap().to_owned());
    assert_eq!(json(&["compile", &model, "-o", &text]).0, 4);
    compile(&out, &["--force"]);
    assert!(!out.join("device-2").exists());
    // Same model and options, same plan; other keys.
    assert_eq!(std::fs::read(out.join("device/device.plan")).unwrap(), first);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside the folder");
    let nowhere = dir.path().join("bad");
    std::fs::write(dir.path().join("m.onnx"), b"\x08\x07 not a model").unwrap();
    let bad = dir.path().join("m.onnx");
    assert_eq!(json(&["compile", bad.to_str().unwrap(), "-o", nowhere.to_str().unwrap()]).0, 3);
    assert!(!nowhere.exists());
    assert_eq!(json(&["compile", &model, "-o", nowhere.to_str().unwrap(), "--scheme", "plain"]).0, 2);
}

/// Runs a command that must fail, and returns its code.
fn refused(args: &[&str]) -> (i32, String) {
    let (code, value) = json(args);
    (code, value["error"]["code"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn plans_above_the_memory_limit_or_of_absurd_shape_are_refused_at_load() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    compile(&out, &[]);
    let (edge, path) = (out.join("edge-a/edge.toml"), out.join("edge-a/edge.plan"));
    let serve = ["serve", "-c", edge.to_str().unwrap(), "--listen", "127.0.0.1:0"];
    let text = std::fs::read_to_string(&edge).unwrap();
    let limit = text.lines().find(|l| l.starts_with("max_memory_mb")).unwrap();
    // The smallest limit there is, and as many plans as go beyond it.
    let plans = 1 + 1_000_000 / std::fs::metadata(&path).unwrap().len();
    let again = "[[plan]]\nfile = \"edge.plan\"\n".repeat(2 * plans as usize);
    std::fs::write(&edge, text.replace(limit, "max_memory_mb = 1") + "\n" + &again).unwrap();
    assert_eq!(refused(&serve), (3, "pponnx::plan::memory".into()));
    std::fs::write(&edge, text).unwrap();

    // Sizes whose product wraps: the file is sound, its bundle is not.
    let mut plan = file::read(&std::fs::read(&path).unwrap()).unwrap();
    let steps = plan.bundle.programs.iter_mut().filter(|p| p.role == Role::EdgeA).flat_map(|p| &mut p.steps);
    for value in steps.flat_map(|s| &mut s.results) {
        if let ValueType::Ring(_, shape) = value {
            *shape = Shape(vec![1 << 33, 1 << 33]);
        }
    }
    std::fs::write(&path, file::write(&plan.bundle, Role::EdgeA, &plan.constants).unwrap()).unwrap();
    assert_eq!(refused(&serve), (3, "pponnx::plan::invalid".into()));
}
