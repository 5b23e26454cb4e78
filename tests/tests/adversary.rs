//! Lying edges and attackers on the wire: every lie is caught, named, and costs a request number and nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, missing_docs)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use pponnx_compiler::Precision;
use pponnx_engine::{EngineError, TensorValue};
use pponnx_net::{Identity, NetError};
use pponnx_node::{Device, NodeError, Timeouts};
use pponnx_plans::plan::{Slot, SlotKind};
use pponnx_plans::value::{Role, SlotId};
use pponnx_tests::adversary::{Fate, Wire};
use pponnx_tests::adversary_a::{EvilA, History, Item, What};
use pponnx_tests::adversary_b::EvilB;
use pponnx_tests::cluster::{Cluster, Model, SCHEMES, Setup, bits, bits_of, digit};
use pponnx_tests::parallel::two_branches;
use pponnx_tests::session;

/// One element of packed ring elements.
fn get(bytes: &[u8], k: u32, element: usize) -> u64 {
    (0..k as usize).fold(0, |v, b| {
        let at = element * k as usize + b;
        v | u64::from(bytes[at / 8] >> (at % 8) & 1) << b
    })
}

fn set(bytes: &mut [u8], k: u32, element: usize, value: u64) {
    for b in 0..k as usize {
        let at = element * k as usize + b;
        bytes[at / 8] = bytes[at / 8] & !(1 << (at % 8)) | ((value >> b & 1) as u8) << (at % 8);
    }
}

fn flip(bytes: &mut [u8], k: u32, element: usize, bit: u32) {
    let value = get(bytes, k, element) ^ 1 << bit;
    set(bytes, k, element, value);
}

fn low(k: u32) -> u64 {
    (1 << k) - 1
}

/// Slots of a kind that reach the device's arithmetic, with their numbers.
fn slots(model: &Model, kind: SlotKind) -> Vec<(u32, Slot)> {
    let all = model.bundle.slots.iter().enumerate();
    all.filter(|(_, s)| s.kind == kind).map(|(i, s)| (i as u32, s.clone())).collect()
}

fn one_edge(scheme: &str) -> bool {
    matches!(scheme, "one-time" | "stockpile" | "plain")
}

/// Fails unless this is the check's error, naming the segment of the slot and the edge where only one can be at fault.
fn assert_check_failed(error: &EngineError, model: &Model, scheme: &str, reply: Option<u32>, place: &str) {
    let EngineError::IntegrityCheckFailed { segment, map, slot, blame } = error else { panic!("{place}: {error:?}") };
    assert_eq!(model.bundle.maps[map.index()].name, *segment, "{place}");
    assert!(error.to_string().contains(segment.as_str()), "{place}: {error}");
    assert_eq!(*blame, one_edge(scheme).then_some(Role::EdgeA), "{place}");
    assert!(!one_edge(scheme) || error.to_string().contains("edge-a"), "{place}: {error}");
    if let Some(reply) = reply {
        assert_eq!(*slot, SlotId(reply), "{place}");
    }
}

/// In memory: one flipped bit in every answer and every correction, for all classes of bits and places.
#[test]
fn a_flipped_bit_of_any_answer_or_correction_is_caught() {
    let mut caught = 0;
    for scheme in SCHEMES {
        for precision in Precision::ALL {
            let model = Model::digits(scheme, precision);
            let simulation = model.simulation();
            let session = Arc::new(session(5));
            let honest = simulation.run(&session, 0, digit(3)).unwrap();
            for (at, payload) in honest.payloads.iter().enumerate().filter(|(_, p)| p.from != Role::Device) {
                let slot = &model.bundle.slots[payload.slot.index()];
                let (k, n) = (slot.k, slot.shape.len());
                for element in BTreeSet::from([0, n / 2, n - 1]) {
                    for bit in BTreeSet::from([0, 1, 7, 8, k / 2, k - 2, k - 1]) {
                        let mut seen = 0;
                        let result = simulation.run_with(&session, 0, digit(3), |p| {
                            if seen == at {
                                flip(&mut p.bytes, k, element, bit);
                            }
                            seen += 1;
                        });
                        let place = format!(
                            "{scheme}, {}, slot {} from {}, element {element}, bit {bit}",
                            precision.name(),
                            payload.slot,
                            payload.from
                        );
                        let error = result.err().unwrap_or_else(|| panic!("{place}: passed"));
                        let reply = (payload.from == Role::EdgeA).then_some(payload.slot.0);
                        assert_check_failed(&error, &model, scheme, reply, &place);
                        caught += 1;
                    }
                }
            }
        }
    }
    assert!(caught > 1000, "only {caught} lies were told");
}

/// In memory: every bit of the last answer, where nothing behind it could hide an error; and the sum of two errors that
/// cancel in a plain sum.
#[test]
fn every_bit_of_the_last_answer_counts() {
    for precision in Precision::ALL {
        let model = Model::digits("relay", precision);
        let simulation = model.simulation();
        let session = Arc::new(session(5));
        let honest = simulation.run(&session, 0, digit(3)).unwrap();
        let last = honest.payloads.iter().rev().find(|p| p.from == Role::EdgeA).unwrap();
        let k = model.bundle.slots[last.slot.index()].k;
        let tell = |lie: &dyn Fn(&mut Vec<u8>)| {
            let result = simulation.run_with(&session, 0, digit(3), |p| {
                if p.from == Role::EdgeA && p.slot == last.slot {
                    lie(&mut p.bytes);
                }
            });
            result.err().map(|e| assert_check_failed(&e, &model, "relay", Some(last.slot.0), precision.name()))
        };
        for bit in 0..last.bytes.len() * 8 {
            assert!(tell(&|b| b[bit / 8] ^= 1 << (bit % 8)).is_some(), "{}: bit {bit} passed", precision.name());
        }
        for (one, other) in [(0, 1), (2, 9), (3, 4)] {
            let moved = tell(&|b| {
                let (x, y) = (get(b, k, one), get(b, k, other));
                set(b, k, one, x.wrapping_add(1) & low(k));
                set(b, k, other, y.wrapping_sub(1) & low(k));
            });
            assert!(moved.is_some(), "{}: +1 on {one} and -1 on {other} passed", precision.name());
        }
        assert!(tell(&|_| {}).is_none(), "an honest answer passes");
    }
}

/// A lie of edge A over one answer; `None` where it cannot be told.
type Told = fn(Item, &History, &Slots) -> Option<Vec<Item>>;

/// What a liar knows about the plan.
#[derive(Clone)]
struct Slots {
    target: (u32, Slot),
    same_size: Option<u32>,
    upload: u32,
}

impl Slots {
    fn k(&self) -> u32 {
        self.target.1.k
    }

    fn n(&self) -> usize {
        self.target.1.shape.len()
    }
}

fn altered(mut item: Item, with: impl FnOnce(&mut Vec<u8>)) -> Option<Vec<Item>> {
    with(&mut item.payload);
    Some(vec![item])
}

/// Lies that only the check can notice.
const WRONG_VALUES: [(&str, Told); 13] = [
    ("bit 0 of the first element", |i, _, s| altered(i, |p| flip(p, s.k(), 0, 0))),
    ("top bit of the first element", |i, _, s| altered(i, |p| flip(p, s.k(), 0, s.k() - 1))),
    ("bit 0 of the last element", |i, _, s| altered(i, |p| flip(p, s.k(), s.n() - 1, 0))),
    ("top bit of the last element", |i, _, s| altered(i, |p| flip(p, s.k(), s.n() - 1, s.k() - 1))),
    ("a middle bit", |i, _, s| altered(i, |p| flip(p, s.k(), s.n() / 2, s.k() / 2))),
    ("plus one", |i, _, s| {
        altered(i, |p| {
            let v = get(p, s.k(), 1);
            set(p, s.k(), 1, v.wrapping_add(1) & low(s.k()));
        })
    }),
    ("all zero", |i, _, _| altered(i, |p| p.fill(0))),
    ("all ones", |i, _, _| altered(i, |p| p.fill(0xff))),
    ("two channels exchanged", |i, _, s| {
        let shape = &s.target.1.shape.0;
        let channel: usize = shape[2..].iter().product();
        altered(i, |p| {
            for e in 0..channel {
                let (x, y) = (get(p, s.k(), e), get(p, s.k(), channel + e));
                set(p, s.k(), e, y);
                set(p, s.k(), channel + e, x);
            }
        })
    }),
    ("the answer to an earlier request", |mut i, h, _| {
        i.payload.clone_from(h.replies.get(&(i.request - 1, i.slot))?);
        Some(vec![i])
    }),
    ("the answer of another segment", |mut i, h, s| {
        i.payload.clone_from(h.replies.get(&(i.request - 1, s.same_size?))?);
        Some(vec![i])
    }),
    ("negated", |i, _, s| {
        altered(i, |p| {
            for e in 0..s.n() {
                let v = get(p, s.k(), e);
                set(p, s.k(), e, v.wrapping_neg() & low(s.k()));
            }
        })
    }),
    ("rotated by one element", |i, _, s| {
        altered(i, |p| {
            let all: Vec<u64> = (0..s.n()).map(|e| get(p, s.k(), e)).collect();
            for e in 0..s.n() {
                set(p, s.k(), e, all[(e + 1) % s.n()]);
            }
        })
    }),
];

/// Answers that do not fit the plan.
const WRONG_FORM: [(&str, Told); 5] = [
    ("one byte too short", |i, _, _| altered(i, |p| p.truncate(p.len() - 1))),
    ("one byte too long", |i, _, _| altered(i, |p| p.push(0))),
    ("empty", |i, _, _| altered(i, Vec::clear)),
    ("on the slot of an upload", |mut i, _, s| {
        i.slot = s.upload;
        Some(vec![i])
    }),
    ("twice", |i, _, _| Some(vec![i.clone(), i])),
];

struct Trial {
    cluster: Cluster,
    evil: EvilA,
    model: Arc<Model>,
    scheme: &'static str,
    precision: Precision,
}

impl Trial {
    async fn start(scheme: &'static str, precision: Precision) -> Trial {
        let model = Model::digits(scheme, precision);
        let setup = Setup::new(vec![Arc::clone(&model)]);
        let timeouts = Timeouts { reply: Duration::from_secs(20), ..setup.timeouts };
        let mut cluster = Cluster::prepare(Setup { requests: 96, timeouts, ..setup });
        let evil = EvilA::start(cluster.edge_settings(Role::EdgeA).await).await;
        cluster.at_a.address = evil.address.clone();
        cluster.start_b().await;
        Trial { cluster, evil, model, scheme, precision }
    }

    async fn device(&self) -> Device {
        let mut settings = self.cluster.settings(0);
        if let Some(ledger) = &mut settings.material.ledger {
            ledger.set_block(1).unwrap();
        }
        Device::start(settings).await.unwrap()
    }

    /// An honest request, then a lie, then whether the device is over and the number burnt. `None` if the lie could not
    /// be told.
    async fn lie(&self, name: &str, slots: &Slots, told: Told) -> Option<NodeError> {
        let place = format!("{}, {}, {name}, slot {}", self.scheme, self.precision.name(), slots.target.0);
        self.evil.honest();
        let device = self.device().await;
        let first = device.infer(digit(1)).await.unwrap_or_else(|e| panic!("{place}: honest: {e}"));
        let (done, known) = std::sync::mpsc::channel();
        let slots = slots.clone();
        self.evil.lie(move |item, history| {
            if item.what == What::Reply && item.slot == slots.target.0 {
                let lied = told(item.clone(), history, &slots);
                // the receiver may have seen enough
                let _ = done.send(lied.is_some());
                return lied.unwrap_or_else(|| vec![item]);
            }
            vec![item]
        });
        let result = device.infer(digit(2)).await;
        if !known.recv().unwrap_or_else(|_| panic!("{place}: the slot was never answered")) {
            return None;
        }
        let error = result.err().unwrap_or_else(|| panic!("{place}: passed"));
        let after = device.infer(digit(2)).await.err();
        assert!(matches!(after, Some(NodeError::SessionOver)), "{place}: {after:?}");
        drop(device);
        self.evil.honest();
        let device = self.device().await;
        let next = device.infer(digit(1)).await.unwrap_or_else(|e| panic!("{place}: after the lie: {e}"));
        assert_eq!(bits_of(&next), bits_of(&first), "{place}: after the lie");
        if self.scheme == "one-time" || self.scheme == "stockpile" {
            let burnt = first.stats.request + 1;
            assert!(next.stats.request > burnt, "{place}: {} after {burnt} was burnt", next.stats.request);
        }
        Some(error)
    }

    fn targets(&self) -> Vec<Slots> {
        let upload = slots(&self.model, SlotKind::Upload)[0].0;
        let all = slots(&self.model, SlotKind::Download);
        let from_a =
            all.into_iter().filter(|(i, _)| self.model.plan(Role::Device).expects(Role::EdgeA, SlotId(*i)).is_some());
        let all: Vec<_> = from_a.collect();
        let of = |target: &(u32, Slot)| Slots {
            target: target.clone(),
            same_size: all.iter().find(|(i, s)| *i != target.0 && s.bytes() == target.1.bytes()).map(|(i, _)| *i),
            upload,
        };
        all.iter().map(of).collect()
    }
}

/// Over sockets: lies of edge A that only the check can notice, in every scheme and precision.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_values_of_edge_a_are_caught_and_named() {
    for precision in Precision::ALL {
        for scheme in SCHEMES {
            let trial = Trial::start(scheme, precision).await;
            let targets = trial.targets();
            assert!(targets.len() >= 2, "{scheme}: a network with several segments");
            for (at, (name, told)) in WRONG_VALUES.into_iter().enumerate() {
                // another segment for every lie; for those that need two of one size, one that has a twin
                let turn = targets.iter().cycle().skip(at).take(targets.len());
                let mut caught = false;
                for slots in turn {
                    let place = format!("{scheme}, {}, {name}, slot {}", precision.name(), slots.target.0);
                    let Some(error) = trial.lie(name, slots, told).await else { continue };
                    let NodeError::Engine(engine) = &error else { panic!("{place}: {error:?}") };
                    assert_check_failed(engine, &trial.model, scheme, Some(slots.target.0), &place);
                    caught = true;
                    break;
                }
                assert!(caught, "{scheme}: no segment for the lie {name:?}");
            }
        }
    }
}

/// Over sockets: answers that do not fit the plan.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_do_not_fit_the_plan_are_refused_and_named() {
    for (scheme, precision) in SCHEMES.into_iter().zip(Precision::ALL.into_iter().cycle()) {
        let trial = Trial::start(scheme, precision).await;
        let targets = trial.targets();
        for (name, told) in WRONG_FORM {
            let slots = &targets[0];
            let error = trial.lie(name, slots, told).await.unwrap();
            let place = format!("{scheme}, {}, {name}: {error}", precision.name());
            let text = error.to_string();
            match &error {
                NodeError::Engine(EngineError::PeerMisbehaved { role: Role::EdgeA, .. })
                | NodeError::Protocol { edge: Role::EdgeA, .. } => {}
                other => panic!("{place}: {other:?}"),
            }
            let named = trial.model.bundle.slots.iter().any(|s| text.contains(&format!("{:?}", s.name)));
            assert!(text.contains("edge-a") && named, "{place}");
        }
    }
}

/// Over sockets: edge A works with a correction of an earlier request, or with none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stale_corrections_are_caught() {
    for precision in Precision::ALL {
        for scheme in ["relay", "stockpile"] {
            for stale in [true, false] {
                let trial = Trial::start(scheme, precision).await;
                let device = trial.device().await;
                let place = format!("{scheme}, {}, stale {stale}", precision.name());
                device.infer(digit(1)).await.unwrap_or_else(|e| panic!("{place}: {e}"));
                trial.evil.lie(move |mut item, history| {
                    if item.what == What::Correction {
                        match stale {
                            true => item.payload.clone_from(&history.corrections[&(item.request - 1, item.slot)]),
                            false => item.payload.fill(0),
                        }
                    }
                    vec![item]
                });
                let error = device.infer(digit(1)).await.err().unwrap_or_else(|| panic!("{place}: passed"));
                let NodeError::Engine(engine) = &error else { panic!("{place}: {error:?}") };
                assert_check_failed(engine, &trial.model, scheme, None, &place);
            }
        }
    }
}

/// An answer for another request is no answer: the device goes on waiting, and then says how long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_for_another_request_does_not_count() {
    let mut trial = Trial::start("relay", Precision::Fast).await;
    trial.cluster.setup.timeouts.reply = Duration::from_millis(500);
    let device = trial.device().await;
    trial.evil.lie(|mut item, _| {
        if item.what == What::Reply {
            item.request += 1;
        }
        vec![item]
    });
    let error = device.infer(digit(1)).await.err().unwrap();
    assert!(matches!(error, NodeError::Silent { edge: Role::EdgeA, request: 0, .. }), "{error:?}");
}

/// Edge B lies: about values it is caught by the device, about form by whoever hears it first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_corrections_of_edge_b_are_caught() {
    type Wrong = (&'static str, fn(u32, &mut Vec<u8>));
    let lies: [Wrong; 5] = [
        ("plus one", |k, p| {
            let v = get(p, k, 0);
            set(p, k, 0, v.wrapping_add(1) & low(k));
        }),
        ("top bit", |k, p| flip(p, k, 1, k - 1)),
        ("zero", |_, p| p.fill(0)),
        ("one byte short", |_, p| p.truncate(p.len() - 1)),
        ("one byte long", |_, p| p.push(7)),
    ];
    for precision in Precision::ALL {
        for scheme in ["relay", "two-edge"] {
            let model = Model::digits(scheme, precision);
            for (name, lie) in lies {
                let place = format!("{scheme}, {}, {name}", precision.name());
                let mut cluster = Cluster::prepare(Setup::new(vec![Arc::clone(&model)]));
                cluster.start_a().await;
                let decls = model.bundle.slots.clone();
                let target = slots(&model, SlotKind::Correction)[1].0;
                let evil = EvilB::start(cluster.edge_settings(Role::EdgeB).await, 2, move |request, slot, payload| {
                    if request == 1 && slot == target {
                        lie(decls[slot as usize].k, payload);
                    }
                })
                .await;
                cluster.at_b.address = evil.address.clone();
                let form = name.starts_with("one byte");
                let device = match cluster.device(0).await {
                    Ok(device) => device,
                    // edge A closed the lying link before the device came
                    Err(e) => {
                        assert!(form && scheme == "relay", "{place}: {e}");
                        continue;
                    }
                };
                let result = device.infer(digit(1)).await;
                let error = match (result, form && scheme == "relay") {
                    (Ok(_), _) => device.infer(digit(2)).await.err().unwrap_or_else(|| panic!("{place}: passed")),
                    (Err(e), true) => e,
                    (Err(e), false) => panic!("{place}: honest: {e}"),
                };
                match (&error, form) {
                    (NodeError::Engine(engine), false) => {
                        assert_check_failed(engine, &model, scheme, None, &place);
                    }
                    // a payload longer than any that the plan knows does not get past the frames
                    (
                        NodeError::Engine(EngineError::PeerMisbehaved { role: Role::EdgeB, .. })
                        | NodeError::Protocol { edge: Role::EdgeB, segment: Some(_), .. },
                        true,
                    ) => assert_eq!(scheme, "two-edge", "{place}"),
                    (
                        NodeError::Aborted { edge: Role::EdgeA, .. } | NodeError::Refused { edge: Role::EdgeA, .. },
                        true,
                    ) => {
                        assert_eq!(scheme, "relay", "{place}");
                    }
                    _ => panic!("{place}: {error:?}"),
                }
                assert!(matches!(device.infer(digit(2)).await.err(), Some(NodeError::SessionOver)), "{place}");
            }
        }
    }
}

/// An edge B that runs further ahead than edge A allows is cut off: edge A's memory is bounded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_b_beyond_its_credit_is_cut_off() {
    let model = Model::digits("relay", Precision::Fast);
    for (ahead, works) in [(4, true), (5, false)] {
        let mut cluster = Cluster::prepare(Setup::new(vec![Arc::clone(&model)]));
        assert_eq!(cluster.setup.limits.prefetch, 4);
        cluster.start_a().await;
        let evil = EvilB::start(cluster.edge_settings(Role::EdgeB).await, ahead, |_, _, _| {}).await;
        cluster.at_b.address = evil.address.clone();
        let device = cluster.device(0).await.unwrap();
        // edge A has read everything once the fifth request's first correction was turned down
        tokio::time::sleep(Duration::from_millis(200)).await;
        let result = device.infer(digit(0)).await;
        assert_eq!(result.is_ok(), works, "{ahead} requests ahead: {:?}", result.err());
    }
}

/// An edge that writes its answers before it reads: more than the sockets buffer, so that a device that only wrote would
/// wait for the edge and the edge for the device. The answers are taken in, and found wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_answers_before_it_reads_does_not_block_the_device() {
    let side = 1024;
    let model = Model::of_bytes(two_branches(side as u64), "plain", Precision::Fast);
    let mut cluster = Cluster::prepare(Setup::new(vec![Arc::clone(&model)]));
    let evil = EvilA::start(cluster.edge_settings(Role::EdgeA).await).await;
    evil.eager();
    cluster.at_a.address = evil.address.clone();
    let device = cluster.device(0).await.unwrap();
    let input = || TensorValue::from_f32(vec![1, 4, side, side], vec![0.25; 4 * side * side]).unwrap();
    let error = device.infer(vec![input(), input()]).await.err().expect("zeros are no answer");
    let NodeError::Engine(engine) = &error else { panic!("{error:?}") };
    assert_check_failed(engine, &model, "plain", None, "eager");
}

/// An impostor at an edge's address holds another key, and is not spoken to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_impostor_is_not_spoken_to() {
    let model = Model::digits("plain", Precision::Fast);
    let mut cluster = Cluster::prepare(Setup::new(vec![model]));
    let mut settings = cluster.edge_settings(Role::EdgeA).await;
    settings.identity = Identity::generate().unwrap();
    let found = settings.identity.pin();
    let evil = EvilA::start(settings).await;
    cluster.at_a.address = evil.address.clone();
    let error = cluster.device(0).await.err().expect("an impostor must be refused");
    let NodeError::Connect { edge: Role::EdgeA, source: NetError::PinMismatch { expected, found: named } } = &error
    else {
        panic!("{error:?}")
    };
    assert_eq!((expected.as_slice(), named), ([cluster.at_a.pin].as_slice(), &found));
}

/// A bit flipped on the wire, or a record cut: TLS notices, and the device names edge and segment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bit_flipped_on_the_wire_is_noticed() {
    for scheme in SCHEMES {
        let model = Model::digits(scheme, Precision::Fast);
        let mut cluster = Cluster::start(Setup::new(vec![Arc::clone(&model)])).await;
        let wire = Wire::to(&cluster.at_a.address).await;
        cluster.at_a.address = wire.address.clone();
        let device = cluster.device(0).await.unwrap();
        device.infer(digit(0)).await.unwrap();
        wire.set(Fate::Flip, 300);
        let error = device.infer(digit(0)).await.err().expect("a flipped bit must be noticed");
        let NodeError::Lost { edge: Role::EdgeA, segment, request: 1, source: NetError::Tls(_) } = &error else {
            panic!("{scheme}: {error:?}")
        };
        assert!(model.bundle.slots.iter().any(|s| s.name == *segment), "{scheme}: {error}");
    }
}

/// Nothing of a caught request shows in the next: the same bits as without the lie. (Guards the guards: the liars above
/// are honest when they do not lie.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lying_edges_are_honest_when_told_so() {
    for scheme in SCHEMES {
        let trial = Trial::start(scheme, Precision::Balanced).await;
        let device = trial.device().await;
        let wanted = trial.model.simulation().run(&Arc::new(session(1)), 0, digit(6)).unwrap();
        let got = device.infer(digit(6)).await.unwrap();
        assert_eq!(bits_of(&got), bits(&wanted.outputs), "{scheme}");
    }
}
