//! How one pair of edges fares under many devices; prints, and asserts only that nothing fails.
//! `cargo test --release --workspace --test load -- --ignored --nocapture`
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use pponnx_compiler::Precision;
use pponnx_engine::{Execution, Progress, Secrets};
use pponnx_node::Device;
use pponnx_plans::value::Role;
use pponnx_tests::cluster::{Cluster, Model, Setup, digit};
use tokio::task::JoinSet;

/// Milliseconds of CPU that edge A's arithmetic takes for one request, on one thread.
fn edge_ms(model: &Model) -> f64 {
    let plan = model.plan(Role::EdgeA);
    let run = || {
        let loaded = plan.loads().iter().map(|slot| (*slot, vec![0; plan.slot(*slot).unwrap().bytes() as usize]));
        let secrets = Secrets::EdgeA { loaded: loaded.collect() };
        let mut execution = Execution::new(Arc::clone(&plan), 0, secrets, Vec::new()).unwrap();
        let mut spent = Duration::ZERO;
        loop {
            let begun = Instant::now();
            let progress = execution.resume().unwrap();
            drop(execution.outgoing());
            spent += begun.elapsed();
            match progress {
                Progress::Done => return spent,
                Progress::Wait { from, slot } => {
                    let bytes = plan.slot(slot).unwrap().bytes() as usize;
                    execution.supply(from, slot, vec![0; bytes]).unwrap();
                }
            }
        }
    };
    (0..200).map(|_| run()).min().unwrap().as_secs_f64() * 1e3
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints measurements"]
async fn throughput_and_latency() {
    for (scheme, devices) in [("relay", 1), ("relay", 8), ("relay", 32), ("two-edge", 32), ("stockpile", 32)] {
        let model = Model::digits(scheme, Precision::Fast);
        let setup = Setup { devices, requests: 6000, ..Setup::new(vec![Arc::clone(&model)]) };
        let cluster = Cluster::start(setup).await;
        let begun = Instant::now();
        let mut running = JoinSet::new();
        for card in 0..devices {
            let settings = cluster.settings(card);
            running.spawn(async move {
                let device = Device::start(settings).await.unwrap();
                let mut times = Vec::new();
                let (mut cpu, mut link) = (0.0, 0.0);
                while begun.elapsed() < Duration::from_secs(4) {
                    let got = device.infer(digit(card)).await.unwrap();
                    if begun.elapsed() > Duration::from_secs(1) {
                        times.push(got.stats.wall_ms);
                        cpu += got.stats.device_cpu_ms;
                        link += got.stats.link_cpu_ms;
                    }
                }
                device.stop().await;
                (times, cpu, link)
            });
        }
        let (mut times, mut cpu, mut link) = (Vec::new(), 0.0, 0.0);
        while let Some(done) = running.join_next().await {
            let (some, c, l) = done.unwrap();
            times.extend(some);
            cpu += c;
            link += l;
        }
        times.sort_by(f64::total_cmp);
        let n = times.len() as f64;
        let at = |p: f64| times[((times.len() - 1) as f64 * p) as usize];
        println!(
            "{scheme}, {devices} devices: {:.0} requests/s; p50 {:.2} ms, p99 {:.2} ms, most {:.2} ms; a request: device {:.3} ms, its link {:.3} ms, edge A's arithmetic {:.3} ms",
            n / 3.0,
            at(0.5),
            at(0.99),
            times[times.len() - 1],
            cpu / n,
            link / n,
            edge_ms(&model),
        );
        cluster.stop().await;
    }
}
