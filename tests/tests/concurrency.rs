//! Several requests in flight on one connection, and many devices at one pair of edges.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use pponnx_compiler::Precision;
use pponnx_engine::{EngineError, TensorValue};
use pponnx_node::{Device, Inference, Limits, NodeError};
use pponnx_tests::adversary::{Fate, Wire};
use pponnx_tests::cluster::{Cluster, Model, SCHEMES, Seen, Setup, bits, bits_of, digit, image};
use pponnx_tests::session;
use pponnx_wire::message::PeerRole;
use tokio::task::JoinSet;

fn expected(model: &Model, input: Vec<TensorValue>) -> Vec<Vec<u8>> {
    bits(&model.simulation().run(&Arc::new(session(9)), 0, input).unwrap().outputs)
}

/// All of these requests at once; results by position.
async fn all_at_once(device: &Arc<Device>, inputs: Vec<Vec<TensorValue>>) -> Vec<Result<Inference, NodeError>> {
    let mut running = JoinSet::new();
    let many = inputs.len();
    for (i, input) in inputs.into_iter().enumerate() {
        let device = Arc::clone(device);
        running.spawn(async move { (i, device.infer(input).await) });
    }
    let mut results: Vec<_> = (0..many).map(|_| None).collect();
    while let Some(done) = running.join_next().await {
        let (i, result) = done.unwrap();
        results[i] = Some(result);
    }
    results.into_iter().map(Option::unwrap).collect()
}

/// Numbers of `Begin`, in the order in which edge A heard them.
fn begun(seen: &[Seen]) -> Vec<u64> {
    let begins = seen.iter().filter(|s| s.edge == PeerRole::EdgeA && s.kind == "Begin");
    begins.map(|s| u64::from_le_bytes(s.bytes[5..13].try_into().unwrap())).collect()
}

/// Every scheme, far more requests than may be in flight: right results, fresh masks, each number begun once and in
/// order, and the declared cost for each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_in_flight_share_a_connection_and_nothing_else() {
    for scheme in SCHEMES {
        let model = Model::digits(scheme, Precision::Fast);
        let wanted: Vec<_> = (0..4).map(|i| expected(&model, digit(i))).collect();
        let setup = Setup { requests: 64, record: true, ..Setup::new(vec![Arc::clone(&model)]) };
        let limits = Limits { in_flight: 6, ..setup.limits };
        let cluster = Cluster::start(Setup { limits, ..setup }).await;
        let device = Arc::new(cluster.device(0).await.unwrap());
        assert_eq!(device.in_flight(), 6, "{scheme}");
        let results = all_at_once(&device, (0..24).map(|i| digit(i % 4)).collect()).await;
        let mut numbers = BTreeSet::new();
        for (i, result) in results.into_iter().enumerate() {
            let got = result.unwrap_or_else(|e| panic!("{scheme}, request {i}: {e}"));
            assert_eq!(bits_of(&got), wanted[i % 4], "{scheme}, request {i}");
            let (cost, stats) = (model.bundle.cost, got.stats);
            let measured = (stats.rounds, stats.bytes_up, stats.bytes_down);
            assert_eq!(measured, (cost.rounds, cost.bytes_up, cost.bytes_down), "{scheme}, request {i}");
            assert!(stats.link_cpu_ms > 0.0, "{scheme}: {stats:?}");
            numbers.insert(stats.request);
        }
        assert_eq!(numbers, (0..24).collect(), "{scheme}");
        Arc::into_inner(device).unwrap().stop().await;
        let seen = cluster.stop_and_take().await;
        assert_eq!(begun(&seen), (0..24).collect::<Vec<_>>(), "{scheme}");
        let uploads = seen.iter().filter(|s| (s.edge, s.from, s.kind) == (PeerRole::EdgeA, PeerRole::Device, "Data"));
        let uploads: Vec<_> = uploads.map(|s| (s.place.unwrap().1, &s.bytes)).collect();
        if scheme != "plain" {
            assert_eq!(uploads.iter().collect::<BTreeSet<_>>().len(), uploads.len(), "{scheme}: a mask came twice");
        }
    }
}

/// Credit for one request at a time is enough for several in flight: they take turns.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn little_credit_slows_requests_down_and_no_more() {
    let model = Model::digits("relay", Precision::Fast);
    let setup = Setup::new(vec![Arc::clone(&model)]);
    let limits = Limits { in_flight: 8, prefetch: 1, ..setup.limits };
    let cluster = Cluster::start(Setup { limits, ..setup }).await;
    let device = Arc::new(cluster.device(0).await.unwrap());
    let wanted = expected(&model, digit(5));
    for result in all_at_once(&device, vec![digit(5); 12]).await {
        assert_eq!(bits_of(&result.unwrap()), wanted);
    }
}

/// Inputs that cannot be encoded burn their numbers; the others pass them by.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unusable_inputs_do_not_hold_up_the_others() {
    for scheme in ["relay", "two-edge", "stockpile"] {
        let model = Model::digits(scheme, Precision::Fast);
        let setup = Setup { requests: 32, record: true, ..Setup::new(vec![Arc::clone(&model)]) };
        let cluster = Cluster::start(setup).await;
        let device = Arc::new(cluster.device(0).await.unwrap());
        let wanted = expected(&model, digit(2));
        let inputs = (0..12).map(|i| if i % 3 == 1 { image(vec![f32::NAN; 64]) } else { digit(2) }).collect();
        for (i, result) in all_at_once(&device, inputs).await.into_iter().enumerate() {
            match (i % 3, result) {
                (1, Err(NodeError::Engine(EngineError::NotFinite { .. }))) => {}
                (0 | 2, Ok(got)) => assert_eq!(bits_of(&got), wanted, "{scheme}, request {i}"),
                (_, result) => panic!("{scheme}, request {i}: {:?}", result.map(|got| got.stats)),
            }
        }
        drop(device);
        let heard = begun(&cluster.stop_and_take().await);
        assert_eq!(heard.len(), 8, "{scheme}: {heard:?}");
        assert!(heard.is_sorted_by(|a, b| a < b), "{scheme}: {heard:?}");
    }
}

/// A connection that dies takes all requests on it along; each hears of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_edge_ends_every_request_in_flight() {
    let model = Model::digits("relay", Precision::Fast);
    let mut cluster = Cluster::start(Setup::new(vec![Arc::clone(&model)])).await;
    let wire = Wire::to(&cluster.at_a.address).await;
    cluster.at_a.address = wire.address.clone();
    let device = Arc::new(cluster.device(0).await.unwrap());
    wire.set(Fate::Cut, 1500);
    let results = all_at_once(&device, vec![digit(1); 12]).await;
    let failed: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    assert!(failed.len() >= 8, "{failed:?}");
    assert!(failed.iter().any(|e| matches!(e, NodeError::Lost { .. })), "{failed:?}");
    for error in &failed {
        assert!(matches!(error, NodeError::Lost { .. } | NodeError::SessionOver), "{error:?}");
    }
}

/// A request that its caller drops does not stop those that are under way, but no other begins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_request_leaves_the_others_alone() {
    let model = Model::digits("relay", Precision::Fast);
    let mut cluster = Cluster::start(Setup::new(vec![Arc::clone(&model)])).await;
    let wire = Wire::to(&cluster.at_a.address).await;
    cluster.at_a.address = wire.address.clone();
    let device = Arc::new(cluster.device(0).await.unwrap());
    wire.set(Fate::Freeze, 0);
    let mut running = JoinSet::new();
    for _ in 0..2 {
        let device = Arc::clone(&device);
        running.spawn(async move { device.infer(digit(4)).await });
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    // it waits for an answer, as the two before it do
    let dropped = tokio::time::timeout(Duration::from_millis(200), device.infer(digit(4))).await;
    assert!(dropped.is_err(), "the request must hang");
    assert!(matches!(device.infer(digit(4)).await, Err(NodeError::SessionOver)));
    wire.set(Fate::Pass, 0);
    let wanted = expected(&model, digit(4));
    while let Some(done) = running.join_next().await {
        assert_eq!(bits_of(&done.unwrap().unwrap()), wanted);
    }
}

/// Many devices at once, each with several requests in flight.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_two_devices_at_once() {
    for (scheme, devices) in [("relay", 32), ("two-edge", 8), ("stockpile", 8)] {
        let model = Model::digits(scheme, Precision::Fast);
        let wanted: Vec<_> = (0..4).map(|i| expected(&model, digit(i))).collect();
        let setup = Setup { devices, requests: 8, ..Setup::new(vec![Arc::clone(&model)]) };
        let cluster = Cluster::start(setup).await;
        let mut running = JoinSet::new();
        for card in 0..devices {
            let (settings, wanted) = (cluster.settings(card), wanted.clone());
            running.spawn(async move {
                let device = Device::start(settings).await.unwrap_or_else(|e| panic!("device {card}: {e}"));
                let device = Arc::new(device);
                let results = all_at_once(&device, (0..6).map(|i| digit((card + i) % 4)).collect()).await;
                for (i, result) in results.into_iter().enumerate() {
                    let got = result.unwrap_or_else(|e| panic!("device {card}, request {i}: {e}"));
                    assert_eq!(bits_of(&got), wanted[(card + i) % 4], "{scheme}, device {card}, request {i}");
                }
                Arc::into_inner(device).unwrap().stop().await;
            });
        }
        let done = tokio::time::timeout(Duration::from_secs(120), running.join_all()).await;
        assert_eq!(done.unwrap_or_else(|_| panic!("{scheme}: a device waits for ever")).len(), devices);
        cluster.stop().await;
    }
}
