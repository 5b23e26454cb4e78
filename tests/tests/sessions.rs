//! Devices and edges over real sockets: every scheme, restarts, deaths, refusals, limits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use pponnx_compiler::Precision;
use pponnx_engine::{Elements, EngineError, TensorValue};
use pponnx_keys::KeyFile;
use pponnx_net::{Identity, NetError};
use pponnx_node::{Device, Limits, NodeError, Timeouts};
use pponnx_plans::value::Role;
use pponnx_tests::adversary::{Fate, Wire};
use pponnx_tests::cluster::{Cluster, Model, SCHEMES, Setup, bits, bits_of, digit, image};
use pponnx_tests::parallel::two_branches;
use pponnx_tests::session;
use pponnx_wire::message::{PeerRole, RefuseCode};

const SECOND: Duration = Duration::from_secs(1);

fn expected(model: &Model, request: u64, input: Vec<TensorValue>) -> Vec<Vec<u8>> {
    bits(&model.simulation().run(&Arc::new(session(9)), request, input).unwrap().outputs)
}

fn fail(result: Result<pponnx_node::Inference, NodeError>) -> NodeError {
    result.err().expect("the request must fail")
}

fn refusal(result: Result<Device, NodeError>) -> NodeError {
    result.err().expect("the session must not start")
}

/// Every scheme in every precision: outputs equal bit for bit to those of all roles in memory and of every other scheme,
/// and payload bytes and rounds equal to what the plan declares.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_scheme_returns_the_same_bits_and_costs_what_its_plan_declares() {
    for precision in Precision::ALL {
        let mut by_input: BTreeMap<usize, Vec<Vec<u8>>> = BTreeMap::new();
        for scheme in SCHEMES {
            let model = Model::digits(scheme, precision);
            let simulation = model.simulation();
            let mut cluster = Cluster::start(Setup { record: true, ..Setup::new(vec![Arc::clone(&model)]) }).await;
            let device = cluster.device(0).await.unwrap();
            for input in [0usize, 7, 0, 33] {
                let place = format!("{scheme}, {}, digit {input}", precision.name());
                let got = device.infer(digit(input)).await.unwrap_or_else(|e| panic!("{place}: {e}"));
                let memory = simulation.run(&Arc::new(session(3)), 5, digit(input)).unwrap();
                assert_eq!(bits_of(&got), bits(&memory.outputs), "{place}: sockets against memory");
                let first = by_input.entry(input).or_insert_with(|| bits_of(&got));
                assert_eq!(&bits_of(&got), first, "{place}: against the first scheme");
                let cost = model.bundle.cost;
                let measured = (got.stats.rounds, got.stats.bytes_up, got.stats.bytes_down);
                assert_eq!(measured, (cost.rounds, cost.bytes_up, cost.bytes_down), "{place}: rounds and bytes");
                let payload = got.stats.bytes_up + got.stats.bytes_down;
                assert!(got.stats.socket_bytes >= payload, "{place}: {:?}", got.stats);
                // frames of 17 bytes and TLS records of 22 on a few kilobytes, and the begin
                let overhead = got.stats.socket_bytes - payload;
                assert!(overhead < 200 * (cost.rounds + 1) * 4, "{place}: {overhead} bytes of framing for {payload}");
                if input == 33 {
                    eprintln!("{place}: {payload} bytes of payload, {overhead} of frames and TLS");
                }
            }
            device.stop().await;
            // what went from edge B to edge A for one request
            let link: u64 = cluster
                .take_seen()
                .iter()
                .filter(|s| s.kind == "Correction" && s.place.is_some_and(|(q, _)| q == 2))
                .map(|s| s.bytes.len() as u64)
                .sum();
            assert_eq!(link, model.bundle.cost.bytes_edge_link, "{scheme}: bytes between the edges");
            cluster.kill_b().await;
            cluster.stop().await;
        }
        assert_eq!(by_input.values().collect::<BTreeSet<_>>().len(), 3, "different digits must give different logits");
    }
}

/// Five plans with two devices each on one pair of edges, all at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_and_plans_share_the_edges() {
    let precisions = [Precision::Balanced, Precision::Fast, Precision::Precise];
    let models: Vec<_> =
        SCHEMES.iter().enumerate().map(|(i, scheme)| Model::digits(scheme, precisions[i % 3])).collect();
    let wanted: Vec<Vec<_>> = models
        .iter()
        .map(|m| {
            let simulation = m.simulation();
            let run = |i| bits(&simulation.run(&Arc::new(session(3)), 5, digit(i)).unwrap().outputs);
            (0..10).map(run).collect()
        })
        .collect();
    let cluster = Cluster::start(Setup { devices: 2, ..Setup::new(models) }).await;
    let mut running = tokio::task::JoinSet::new();
    for card in 0..cluster.cards.len() {
        let (settings, wanted) = (cluster.settings(card), wanted[card / 2].clone());
        running.spawn(async move {
            let device = Device::start(settings).await.unwrap_or_else(|e| panic!("device {card}: {e}"));
            for q in 0..5 {
                let i = (card + q) % 10;
                let got = device.infer(digit(i)).await.unwrap_or_else(|e| panic!("device {card}, request {q}: {e}"));
                assert_eq!(bits_of(&got), wanted[i], "device {card}, request {q}");
            }
            device.stop().await;
            card
        });
    }
    let mut done = BTreeSet::new();
    while let Some(card) = running.join_next().await {
        done.insert(card.unwrap());
    }
    assert_eq!(done.len(), 10);
    cluster.stop().await;
}

/// Two uploads of one stage and their answers, each larger than what the sockets between two ends buffer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_parallel_segments_share_a_round() {
    let side = 1024;
    let model = Model::of_bytes(two_branches(side as u64), "two-edge", Precision::Fast);
    let cost = model.bundle.cost;
    assert_eq!((cost.rounds, cost.bytes_up), (1, 2 * 4 * 4 * (side * side) as u64), "two uploads in one round");
    let setup = Setup::new(vec![Arc::clone(&model)]);
    let cluster = Cluster::start(setup).await;
    let device = cluster.device(0).await.unwrap();
    let input = |seed: usize| {
        let data = (0..4 * side * side).map(|i| ((i * 31 + seed) % 251) as f32 / 251.0 - 0.5).collect();
        TensorValue::from_f32(vec![1, 4, side, side], data).unwrap()
    };
    let got = device.infer(vec![input(1), input(7)]).await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(got.stats.bytes_down, cost.bytes_down);
    assert_ne!(bits_of(&got)[0], bits_of(&got)[1]);
    device.stop().await;
}

/// A device may sit on a runtime with one thread.
#[tokio::test]
async fn a_runtime_with_one_thread_will_do() {
    let model = Model::digits("plain", Precision::Fast);
    let cluster = Cluster::start(Setup::new(vec![Arc::clone(&model)])).await;
    let device = cluster.device(0).await.unwrap();
    let got = device.infer(digit(1)).await.unwrap();
    assert_eq!(bits_of(&got), expected(&model, 0, digit(1)));
}

/// Restarts of every role between sessions; epochs and request numbers only rise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_survive_restarts_of_every_role() {
    for scheme in SCHEMES {
        let model = Model::digits(scheme, Precision::Fast);
        let wanted = expected(&model, 0, digit(4));
        let mut cluster = Cluster::start(Setup { requests: 64, ..Setup::new(vec![Arc::clone(&model)]) }).await;
        let (mut epochs, mut numbers) = (Vec::new(), Vec::new());
        for round in 0..4 {
            let device = cluster.device(0).await.unwrap_or_else(|e| panic!("{scheme}, round {round}: {e}"));
            for _ in 0..2 {
                let got = device.infer(digit(4)).await.unwrap_or_else(|e| panic!("{scheme}, round {round}: {e}"));
                assert_eq!(bits_of(&got), wanted, "{scheme}, round {round}");
                numbers.push(got.stats.request);
            }
            epochs.push(KeyFile::read(&cluster.cards[0].key()).unwrap().key.epoch());
            match round {
                0 => device.stop().await,
                1 => {
                    cluster.kill_a().await;
                    cluster.start_a().await;
                }
                _ => {
                    cluster.kill_b().await;
                    cluster.start_b().await;
                }
            }
        }
        match scheme {
            "relay" | "two-edge" => assert_eq!(epochs, [1, 2, 3, 4], "{scheme}: epochs"),
            "one-time" | "stockpile" => {
                assert!(numbers.is_sorted_by(|a, b| a < b), "{scheme}: request numbers {numbers:?}");
            }
            _ => {}
        }
        cluster.stop().await;
    }
}

/// Each link cut in the middle of a request: the error names edge, request and segment, and the session is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_dies_in_a_request_is_named() {
    let cases = SCHEMES.iter().map(|s| (*s, Role::EdgeA)).chain([("two-edge", Role::EdgeB)]);
    for (scheme, victim) in cases {
        let model = Model::digits(scheme, Precision::Fast);
        let mut cluster = Cluster::start(Setup::new(vec![Arc::clone(&model)])).await;
        let at = if victim == Role::EdgeA { &mut cluster.at_a } else { &mut cluster.at_b };
        let wire = Wire::to(&at.address).await;
        at.address = wire.address.clone();
        let device = cluster.device(0).await.unwrap();
        device.infer(digit(0)).await.unwrap();
        // somewhere in the second answer
        let down = model.bundle.slots.iter().find(|s| s.kind == pponnx_plans::plan::SlotKind::Download).unwrap();
        wire.set(Fate::Cut, down.bytes() + 200);
        let error = fail(device.infer(digit(1)).await);
        let NodeError::Lost { edge, request: 1, segment, .. } = &error else { panic!("{scheme}: {error:?}") };
        assert_eq!(*edge, victim, "{scheme}: {error}");
        assert!(model.bundle.slots.iter().any(|s| s.name == *segment), "{scheme}: {error}");
        assert!(error.to_string().contains(&victim.to_string()) && error.to_string().contains(segment), "{error}");
        let after = fail(device.infer(digit(1)).await);
        assert!(matches!(after, NodeError::SessionOver), "{scheme}: {after}");
    }
}

/// An edge that stops answering: the error names edge, segment and the time waited.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_edge_is_named_with_the_time_waited() {
    for (scheme, victim) in [("relay", Role::EdgeA), ("two-edge", Role::EdgeB), ("one-time", Role::EdgeA)] {
        let model = Model::digits(scheme, Precision::Fast);
        let timeouts = Timeouts { connect: 20 * SECOND, reply: Duration::from_millis(1200) };
        let mut cluster = Cluster::start(Setup { timeouts, ..Setup::new(vec![Arc::clone(&model)]) }).await;
        let at = if victim == Role::EdgeA { &mut cluster.at_a } else { &mut cluster.at_b };
        let wire = Wire::to(&at.address).await;
        at.address = wire.address.clone();
        let device = cluster.device(0).await.unwrap();
        wire.set(Fate::Freeze, 0);
        let error = fail(device.infer(digit(1)).await);
        let NodeError::Silent { edge, request: 0, segment, after } = &error else { panic!("{scheme}: {error:?}") };
        assert_eq!((*edge, *after), (victim, timeouts.reply), "{scheme}: {error}");
        assert!(model.bundle.slots.iter().any(|s| s.name == *segment), "{scheme}: {error}");
        assert!(error.to_string().contains("1.2 s"), "{error}");
        assert!(matches!(fail(device.infer(digit(1)).await), NodeError::SessionOver), "{scheme}");
    }
}

/// Under `relay` the device hears of edge B's death from edge A, once the corrections sent ahead are used.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_outlives_edge_b_by_the_corrections_sent_ahead() {
    let model = Model::digits("relay", Precision::Fast);
    let mut cluster = Cluster::start(Setup { record: true, ..Setup::new(vec![Arc::clone(&model)]) }).await;
    let device = cluster.device(0).await.unwrap();
    let ahead = cluster.setup.limits.prefetch * corrections_of_a_request(&model);
    wait_for(|| count(&cluster, "Correction") == ahead && count(&cluster, "Attach") == 1).await;
    cluster.kill_b().await;
    for _ in 0..cluster.setup.limits.prefetch {
        device.infer(digit(2)).await.unwrap();
    }
    let error = fail(device.infer(digit(2)).await);
    let NodeError::Aborted { edge: Role::EdgeA, segment: Some(segment), stock: false, .. } = &error else {
        panic!("{error:?}")
    };
    assert!(model.bundle.slots.iter().any(|s| s.name == *segment), "{error}");
    assert!(error.to_string().contains("edge B ended the session"), "{error}");
    assert!(!error.is_spent());
    assert!(matches!(fail(device.infer(digit(2)).await), NodeError::SessionOver));
    // and edge B comes back
    cluster.start_b().await;
    let device = cluster.device(0).await.unwrap();
    assert_eq!(bits_of(&device.infer(digit(2)).await.unwrap()), expected(&model, 0, digit(2)));
}

fn corrections_of_a_request(model: &Model) -> u64 {
    model.bundle.slots.iter().filter(|s| s.kind == pponnx_plans::plan::SlotKind::Correction).count() as u64
}

fn count(cluster: &Cluster, kind: &str) -> u64 {
    cluster.seen.lock().unwrap().iter().filter(|s| s.kind == kind).count() as u64
}

async fn wait_for(mut done: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("what was waited for did not happen within 10 s");
}

/// Edge A never holds corrections of more than `prefetch` requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_b_runs_ahead_by_the_credit_and_no_further() {
    for prefetch in [1u64, 3] {
        let model = Model::digits("relay", Precision::Fast);
        let each = corrections_of_a_request(&model);
        let setup = Setup::new(vec![Arc::clone(&model)]);
        let limits = Limits { prefetch, ..setup.limits };
        let cluster = Cluster::start(Setup { limits, record: true, ..setup }).await;
        let device = cluster.device(0).await.unwrap();
        wait_for(|| count(&cluster, "Correction") == prefetch * each).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(count(&cluster, "Correction"), prefetch * each, "an idle session fills to the credit");
        for q in 0..5 {
            device.infer(digit(q)).await.unwrap();
        }
        wait_for(|| count(&cluster, "Correction") == (5 + prefetch) * each).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(count(&cluster, "Correction"), (5 + prefetch) * each, "five requests later");
        // at no time were more held: request q arrives only when all but `prefetch` below it are over or running
        let mut begun = 0;
        for seen in cluster.take_seen() {
            match (seen.edge, seen.kind) {
                (PeerRole::EdgeA, "Begin") => begun += 1,
                (PeerRole::EdgeA, "Correction") => {
                    let request = seen.place.unwrap().0;
                    assert!(request < begun + prefetch, "request {request} with {begun} begun, credit {prefetch}");
                }
                _ => {}
            }
        }
        device.stop().await;
        cluster.stop().await;
    }
}

/// Everyone must be who they should be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_and_wrong_addresses_are_refused() {
    let model = Model::digits("relay", Precision::Fast);
    let cluster = Cluster::start(Setup::new(vec![Arc::clone(&model)])).await;
    let other = Identity::generate().unwrap();

    for edge in [Role::EdgeA, Role::EdgeB] {
        let mut settings = cluster.settings(0);
        if edge == Role::EdgeA {
            settings.edge_a.pin = other.pin();
        } else {
            settings.edge_b.as_mut().unwrap().pin = other.pin();
        }
        let error = refusal(Device::start(settings).await);
        let NodeError::Connect { edge: named, source: NetError::PinMismatch { .. } } = &error else {
            panic!("{error:?}")
        };
        assert_eq!(*named, edge);
        assert!(error.to_string().contains(&other.pin().to_string()), "{error}");
    }

    let mut settings = cluster.settings(0);
    settings.identity = Identity::generate().unwrap();
    let own = settings.identity.pin().to_string();
    let error = refusal(Device::start(settings).await);
    assert!(matches!(error, NodeError::Connect { edge: Role::EdgeB, source: NetError::Rejected { .. } }), "{error:?}");
    assert!(error.to_string().contains(&own), "the error tells the pin to add: {error}");

    // an identity that is known, under another device's name
    let two = Cluster::start(Setup { devices: 2, ..Setup::new(vec![Arc::clone(&model)]) }).await;
    let mut settings = two.settings(0);
    settings.identity = Identity::from_pem(&two.cards[1].identity).unwrap();
    let error = refusal(Device::start(settings).await);
    assert!(is_refused(&error, Role::EdgeB, RefuseCode::UnknownDevice), "{error:?}");

    // addresses exchanged
    for scheme in ["relay", "two-edge"] {
        let cluster = Cluster::start(Setup::new(vec![Model::digits(scheme, Precision::Fast)])).await;
        let mut settings = cluster.settings(0);
        let (a, b) = (settings.edge_a.clone(), settings.edge_b.clone().unwrap());
        (settings.edge_a, settings.edge_b) = (b, Some(a));
        let error = refusal(Device::start(settings).await);
        assert!(is_refused(&error, Role::EdgeB, RefuseCode::WrongRole), "{scheme}: {error:?}");
    }

    // one operator for both edges
    let mut settings = cluster.settings(0);
    settings.edge_b = Some(settings.edge_a.clone());
    let error = refusal(Device::start(settings).await);
    assert!(matches!(&error, NodeError::Settings(_)) && error.to_string().contains("collude"), "{error}");

    // no edge B in a scheme that has one
    let mut settings = cluster.settings(0);
    settings.edge_b = None;
    assert!(matches!(refusal(Device::start(settings).await), NodeError::Settings(_)));
}

fn is_refused(error: &NodeError, by: Role, why: RefuseCode) -> bool {
    matches!(error, NodeError::Refused { edge, refuse } if *edge == by && refuse.code == why)
}

/// A bundle that an edge does not serve, and keys of another device.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_bundle_or_key_is_refused() {
    let (served, foreign) = (Model::digits("relay", Precision::Fast), Model::digits("relay", Precision::Balanced));
    let cluster = Cluster::start(Setup::new(vec![served])).await;
    let stranger = Cluster::prepare(Setup::new(vec![foreign]));
    let mut settings = stranger.settings(0);
    settings.identity = Identity::from_pem(&cluster.cards[0].identity).unwrap();
    settings.edge_a = cluster.at_a.clone();
    settings.edge_b = Some(cluster.at_b.clone());
    let error = refusal(Device::start(settings).await);
    assert!(is_refused(&error, Role::EdgeB, RefuseCode::UnknownBundle), "{error:?}");

    for scheme in ["one-time", "plain"] {
        let (served, foreign) = (Model::digits(scheme, Precision::Fast), Model::digits(scheme, Precision::Balanced));
        let cluster = Cluster::start(Setup::new(vec![served])).await;
        let stranger = Cluster::prepare(Setup::new(vec![foreign]));
        let mut settings = stranger.settings(0);
        settings.identity = Identity::from_pem(&cluster.cards[0].identity).unwrap();
        settings.edge_a = cluster.at_a.clone();
        let error = refusal(Device::start(settings).await);
        assert!(is_refused(&error, Role::EdgeA, RefuseCode::UnknownBundle), "{error:?}");
    }

    // another mask key under the same name: edge B derives another session
    let two =
        Cluster::start(Setup { devices: 2, ..Setup::new(vec![Model::digits("two-edge", Precision::Fast)]) }).await;
    let mut key = KeyFile::read(&two.cards[1].key()).unwrap();
    key.device = two.cards[0].id;
    std::fs::remove_file(two.cards[0].key()).unwrap();
    key.create(&two.cards[0].key()).unwrap();
    let error = refusal(two.device(0).await);
    assert!(matches!(error, NodeError::Protocol { edge: Role::EdgeB, .. }), "{error:?}");
    assert!(error.to_string().contains("device keys differ"), "{error}");
}

/// Under `relay` edge B says so when it cannot reach edge A, or when edge A does not take its session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_b_without_edge_a_says_so() {
    let model = Model::digits("relay", Precision::Fast);
    let setup = Setup::new(vec![Arc::clone(&model)]);
    let limits = Limits { handshake: SECOND, ..setup.limits };
    let mut cluster = Cluster::prepare(Setup { limits, ..setup });
    // a port that nobody listens on
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    cluster.at_a.address = free.to_string();
    cluster.start_b().await;
    let error = refusal(cluster.device(0).await);
    assert!(is_refused(&error, Role::EdgeB, RefuseCode::Busy), "{error:?}");
    assert!(error.to_string().contains("no connection to edge A"), "{error}");

    // edge A comes up: edge B finds it by itself
    cluster.start_a().await;
    let mut device = None;
    for _ in 0..20 {
        match cluster.device(0).await {
            Ok(d) => {
                device = Some(d);
                break;
            }
            Err(e) => assert!(is_refused(&e, Role::EdgeB, RefuseCode::Busy), "{e:?}"),
        }
    }
    assert_eq!(bits_of(&device.unwrap().infer(digit(2)).await.unwrap()), expected(&model, 0, digit(2)));
}

/// Edge A holds a bounded number of sessions, and frees those of devices that left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_bounded_and_freed() {
    let model = Model::digits("relay", Precision::Fast);
    let setup = Setup::new(vec![Arc::clone(&model)]);
    let limits = Limits { sessions: 2, ..setup.limits };
    let cluster = Cluster::start(Setup { devices: 3, limits, ..setup }).await;
    let first = cluster.device(0).await.unwrap();
    let second = cluster.device(1).await.unwrap();
    let error = refusal(cluster.device(2).await);
    assert!(is_refused(&error, Role::EdgeB, RefuseCode::Busy), "{error:?}");
    second.infer(digit(0)).await.unwrap();
    drop(first);
    let mut third = None;
    for _ in 0..100 {
        match cluster.device(2).await {
            Ok(device) => {
                third = Some(device);
                break;
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    third.expect("a place becomes free").infer(digit(0)).await.unwrap();
}

/// NaN and wrong shapes are refused before an edge hears of the request, and the session goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unusable_inputs_cost_the_edges_nothing() {
    for scheme in SCHEMES {
        let model = Model::digits(scheme, Precision::Fast);
        let cluster = Cluster::start(Setup { record: true, ..Setup::new(vec![Arc::clone(&model)]) }).await;
        let device = cluster.device(0).await.unwrap();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut grey = vec![0.5; 64];
            grey[17] = bad;
            let error = fail(device.infer(image(grey)).await);
            assert!(matches!(error, NodeError::Engine(EngineError::NotFinite { .. })), "{scheme}: {error:?}");
        }
        let error = fail(device.infer(vec![TensorValue::from_f32(vec![64], vec![0.0; 64]).unwrap()]).await);
        assert!(matches!(error, NodeError::Engine(EngineError::InvalidInput { .. })), "{scheme}: {error:?}");
        let ints = TensorValue::new(vec![1, 1, 8, 8], Elements::I64(vec![0; 64])).unwrap();
        let error = fail(device.infer(vec![ints]).await);
        assert!(matches!(error, NodeError::Engine(EngineError::InvalidInput { .. })), "{scheme}: {error:?}");
        let heard = cluster.seen.lock().unwrap().iter().any(|s| s.kind == "Begin" || s.kind == "Data");
        assert!(!heard, "{scheme}: an edge heard of a request that was never sent");
        let got = device.infer(digit(3)).await.unwrap();
        assert_eq!(got.stats.request, 5, "{scheme}: five numbers are burnt");
        assert_eq!(bits_of(&got), expected(&model, 5, digit(3)), "{scheme}");
    }
}

/// A caller that drops a request in the middle cannot use the session again: the edges are in the middle of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_request_ends_the_session() {
    let model = Model::digits("relay", Precision::Fast);
    let mut cluster = Cluster::start(Setup::new(vec![model])).await;
    let wire = Wire::to(&cluster.at_a.address).await;
    cluster.at_a.address = wire.address.clone();
    let device = cluster.device(0).await.unwrap();
    wire.set(Fate::Freeze, 0);
    let dropped = tokio::time::timeout(Duration::from_millis(300), device.infer(digit(0))).await;
    assert!(dropped.is_err(), "the request must hang");
    wire.set(Fate::Pass, 0);
    assert!(matches!(fail(device.infer(digit(0)).await), NodeError::SessionOver));
}

/// Told to stop, an edge lets the request in progress finish and takes no other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_graceful_stop_says_goodbye() {
    for scheme in ["relay", "stockpile"] {
        let model = Model::digits(scheme, Precision::Fast);
        let cluster = Cluster::start(Setup::new(vec![model])).await;
        let device = cluster.device(0).await.unwrap();
        device.infer(digit(0)).await.unwrap();
        let at = cluster.at_a.address.clone();
        cluster.stop().await;
        let error = fail(device.infer(digit(0)).await);
        assert!(matches!(error, NodeError::Lost { edge: Role::EdgeA, .. }), "{scheme}: {error:?}");
        assert!(tokio::net::TcpStream::connect(at).await.is_err(), "the port is closed");
    }
}
