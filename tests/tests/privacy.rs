//! What each edge sees, recorded on real sockets, does not depend on the input.
//!
//! Keys and nonces are fixed, so each statistic is one number that never changes; were they drawn afresh, a sound build
//! would fail one of these tests with probability below 1e-6 in all (each bound is set at 1e-9, about 150 of them).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, missing_docs)]

use std::collections::BTreeMap;
use std::sync::Arc;

use pponnx_compiler::Precision;
use pponnx_engine::TensorValue;
use pponnx_node::{Device, NodeError};
use pponnx_tests::cluster::{Cluster, Model, Seen, Setup, digit, image};
use pponnx_wire::message::PeerRole;

const REQUESTS: u64 = 200;

/// Nearly nothing, and nearly everything.
fn inputs() -> [Vec<TensorValue>; 2] {
    let strong = (0..64).map(|i| if i % 3 == 0 { -250.0 } else { 1000.0 + i as f32 }).collect();
    [image(vec![0.0; 64]), image(strong)]
}

/// What the edges received during `REQUESTS` requests with one input. Device keys are the same in every run.
async fn record(model: &Arc<Model>, input: &[TensorValue], nonce: u8) -> Vec<Seen> {
    let setup = Setup { requests: REQUESTS, record: true, ..Setup::new(vec![Arc::clone(model)]) };
    let cluster = Cluster::start(setup).await;
    let mut settings = cluster.settings(0);
    settings.nonce = Box::new(move || Ok::<_, NodeError>([nonce; 32]));
    let device = Device::start(settings).await.unwrap();
    for _ in 0..REQUESTS {
        device.infer(input.to_vec()).await.unwrap();
    }
    device.stop().await;
    // whether the farewells still arrive depends on how the edges happen to end
    let mut seen = cluster.stop_and_take().await;
    seen.retain(|s| s.kind != "Goodbye" && s.kind != "SessionClosed");
    seen
}

/// Uploads that edge A received.
fn uploads(seen: &[Seen]) -> Vec<&Seen> {
    seen.iter().filter(|s| (s.edge, s.from, s.kind) == (PeerRole::EdgeA, PeerRole::Device, "Data")).collect()
}

/// Corrections that edge A received, of requests that were made.
fn corrections(seen: &[Seen]) -> Vec<&Seen> {
    let made = |s: &&Seen| s.place.is_some_and(|(q, _)| q < REQUESTS);
    seen.iter().filter(|s| s.edge == PeerRole::EdgeA && s.kind == "Correction").filter(made).collect()
}

/// After so many bytes the elements begin at a byte again: 4 for k = 32, 5 for k = 40, 13 for k = 52.
fn period(k: u32) -> usize {
    let k = k as usize;
    (1..=8).map(|elements| elements * k).find(|bits| bits % 8 == 0).unwrap() / 8
}

/// How often each byte value comes at each position of the period.
fn histogram<'a>(k: u32, payloads: impl IntoIterator<Item = &'a [u8]>) -> Vec<[u64; 256]> {
    let mut counts = vec![[0; 256]; period(k)];
    for payload in payloads {
        for (i, byte) in payload.iter().enumerate() {
            counts[i % period(k)][usize::from(*byte)] += 1;
        }
    }
    counts
}

/// Pearson's statistic against the uniform distribution, 255 degrees of freedom.
fn chi_square(counts: &[u64; 256]) -> f64 {
    let expected = counts.iter().sum::<u64>() as f64 / 256.0;
    assert!(expected >= 20.0, "too few bytes ({expected} a value) for the statistic to be chi-square distributed");
    counts.iter().map(|c| (*c as f64 - expected).powi(2) / expected).sum()
}

/// Whether two samples come from one distribution, 255 degrees of freedom.
fn two_samples(a: &[u64; 256], b: &[u64; 256]) -> f64 {
    let (na, nb) = (a.iter().sum::<u64>() as f64, b.iter().sum::<u64>() as f64);
    let term = |(x, y): (&u64, &u64)| {
        let (x, y) = (*x as f64, *y as f64);
        if x + y == 0.0 { 0.0 } else { ((nb / na).sqrt() * x - (na / nb).sqrt() * y).powi(2) / (x + y) }
    };
    a.iter().zip(b).map(term).sum()
}

/// Bounds that a chi-square variable with 255 degrees of freedom exceeds, or falls short of, with probability 1e-9 each
/// (Wilson and Hilferty 1931: its cube root is nearly normal; 5.998 is the normal quantile).
fn bounds() -> (f64, f64) {
    let (n, z) = (255.0f64, 5.998);
    let bound = |z: f64| n * (1.0 - 2.0 / (9.0 * n) + z * (2.0 / (9.0 * n)).sqrt()).powi(3);
    (bound(-z), bound(z))
}

fn is_uniform(counts: &[u64; 256]) -> bool {
    let (low, high) = bounds();
    (low..high).contains(&chi_square(counts))
}

#[test]
fn the_bounds_are_those_of_the_tables() {
    // by numeric integration of the incomplete gamma function: 141.93 and 414.55
    let (low, high) = bounds();
    assert!((low - 141.93).abs() < 0.5 && (high - 414.55).abs() < 0.5, "{low} {high}");
    // every value equally often is as suspicious as one value far too often
    assert!(!is_uniform(&[1000; 256]));
    let scattered: [u64; 256] = std::array::from_fn(|i| 1000 + (i as u64 * 7919) % 64 + (i as u64 % 2) * 32);
    assert!(is_uniform(&scattered), "{}", chi_square(&scattered));
    let mut skewed = scattered;
    skewed[0] += 1000;
    assert!(!is_uniform(&skewed), "{}", chi_square(&skewed));
}

/// Positions of the period whose bytes are not uniform.
fn uneven(k: u32, payloads: &[&Seen]) -> Vec<usize> {
    let counts = histogram(k, payloads.iter().map(|s| s.bytes.as_slice()));
    counts.iter().enumerate().filter(|(_, c)| !is_uniform(c)).map(|(i, _)| i).collect()
}

/// What a message looks like from outside: type, place, length.
type Look = (&'static str, Option<(u64, u32)>, usize);

/// What an edge received from one sender, in order. The order of two senders is left to the
/// scheduler, so each is looked at on its own.
fn shapes(seen: &[Seen], edge: PeerRole, from: PeerRole) -> Vec<Look> {
    let of = seen.iter().filter(|s| s.edge == edge && s.from == from);
    of.filter(|s| s.place.is_none_or(|(q, _)| q < REQUESTS)).map(|s| (s.kind, s.place, s.bytes.len())).collect()
}

async fn check(scheme: &str, precision: Precision) {
    let model = Model::digits(scheme, precision);
    let k = model.bundle.slots.iter().find(|s| s.kind == pponnx_plans::plan::SlotKind::Upload).unwrap().k;
    let [zero, strong] = inputs();
    let (zero, strong) = (record(&model, &zero, 1).await, record(&model, &strong, 1).await);
    let place = format!("{scheme}, {}", precision.name());

    // counts, sizes and order
    for edge in [PeerRole::EdgeA, PeerRole::EdgeB] {
        for from in [PeerRole::Device, PeerRole::EdgeB] {
            let (a, b) = (shapes(&zero, edge, from), shapes(&strong, edge, from));
            assert_eq!(a, b, "{place}: {edge} could tell two inputs from what it receives from {from}");
        }
    }

    // edge B: the same bytes, not only the same distribution
    let at_b = |seen: &[Seen]| -> Vec<Seen> { seen.iter().filter(|s| s.edge == PeerRole::EdgeB).cloned().collect() };
    assert_eq!(at_b(&zero), at_b(&strong), "{place}: edge B could tell two inputs");
    assert_eq!(at_b(&zero).is_empty(), !matches!(scheme, "relay" | "two-edge"), "{place}: edge B");

    // edge A: uploads of either input are uniform, byte position by byte position
    for (name, seen) in [("nothing", &zero), ("everything", &strong)] {
        let uploads = uploads(seen);
        let requests: u64 = uploads.iter().map(|s| s.place.unwrap().0).max().unwrap() + 1;
        assert_eq!(requests, REQUESTS, "{place}");
        assert_eq!(uneven(k, &uploads), [0usize; 0], "{place}: uploads of {name} are not uniform at these bytes");
        if scheme == "relay" {
            let corrections = corrections(seen);
            assert!(!corrections.is_empty());
            assert_eq!(uneven(k, &corrections), [0usize; 0], "{place}: corrections are not uniform at these bytes");
        }
    }

    // and cannot be told apart: first half of one against second half of the other, whose masks are independent
    let half = |seen: &[Seen], upper: bool| {
        let of = uploads(seen).into_iter().filter(|s| (s.place.unwrap().0 >= REQUESTS / 2) == upper);
        histogram(k, of.map(|s| s.bytes.as_slice()).collect::<Vec<_>>())
    };
    for (at, (a, b)) in half(&zero, false).iter().zip(&half(&strong, true)).enumerate() {
        let (apart, (_, high)) = (two_samples(a, b), bounds());
        assert!(apart < high, "{place}: byte {at} tells the inputs apart ({apart:.0} of {high:.0})");
    }

    // masks of one key and number are the same for both inputs (that is why no pair may be used twice): the difference of
    // the uploads is the difference of the inputs, which shows that what looked uniform was the masked input indeed
    let first = |seen: &[Seen]| uploads(seen)[0].bytes.clone();
    assert_ne!(first(&zero), first(&strong), "{place}: the recording holds no input at all");

    // no two uploads of a run are equal, though the input is
    let mut by_slot: BTreeMap<u32, Vec<&[u8]>> = BTreeMap::new();
    for s in uploads(&zero) {
        by_slot.entry(s.place.unwrap().1).or_default().push(&s.bytes);
    }
    for (slot, mut payloads) in by_slot {
        let before = payloads.len();
        payloads.sort();
        payloads.dedup();
        assert_eq!(payloads.len(), before, "{place}: two equal uploads on slot {slot}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_a_sees_uniform_bytes_under_relay_in_every_precision() {
    for precision in Precision::ALL {
        check("relay", precision).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_a_sees_uniform_bytes_under_two_edge() {
    check("two-edge", Precision::Balanced).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_a_sees_uniform_bytes_under_one_time() {
    check("one-time", Precision::Fast).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_a_sees_uniform_bytes_under_stockpile() {
    check("stockpile", Precision::Precise).await;
}

/// The same statistics on uploads without a mask: they must fail, or they would see nothing above either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_statistics_see_uploads_without_masks() {
    for precision in Precision::ALL {
        let model = Model::digits("plain", precision);
        let k = model.bundle.slots[0].k;
        for (name, input) in
            ["nothing", "everything", "a digit"].into_iter().zip(inputs().into_iter().chain([digit(3)]))
        {
            let seen = record(&model, &input, 1).await;
            let uneven = uneven(k, &uploads(&seen));
            assert_eq!(uneven.len(), period(k), "plain, {}, {name}: only bytes {uneven:?} show", precision.name());
        }
        let [zero, strong] = inputs();
        let (zero, strong) = (record(&model, &zero, 1).await, record(&model, &strong, 1).await);
        let counts = |seen: &[Seen]| histogram(k, uploads(seen).iter().map(|s| s.bytes.as_slice()));
        let apart: Vec<f64> = counts(&zero).iter().zip(&counts(&strong)).map(|(a, b)| two_samples(a, b)).collect();
        let (_, high) = bounds();
        // the highest byte of small numbers is 0 or 255 whatever they are
        assert!(apart[0] > 100.0 * high, "plain, {}: {apart:?}", precision.name());
    }
}
