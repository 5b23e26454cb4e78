//! No mask is used twice, whatever crashes, repeats or is copied back.
//!
//! All requests have the same input: two uploads on one slot are then equal exactly if their masks are.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pponnx_compiler::Precision;
use pponnx_keys::{KeyFile, Ledger, LedgerError, StoreError};
use pponnx_node::{Device, DeviceSettings, NodeError, Observer, edge_a};
use pponnx_plans::value::Role;
use pponnx_tests::adversary::{Fate, Wire};
use pponnx_tests::cluster::{Cluster, Model, Seen, Setup, digit};
use pponnx_wire::message::{Message, PeerRole, RefuseCode};

/// Slot and payload of what edge A received from devices.
fn uploads(seen: &[Seen]) -> Vec<(u32, Vec<u8>)> {
    let of = seen.iter().filter(|s| (s.edge, s.from, s.kind) == (PeerRole::EdgeA, PeerRole::Device, "Data"));
    of.map(|s| (s.place.unwrap().1, s.bytes.clone())).collect()
}

/// Fails if two uploads are equal.
fn assert_fresh(seen: &[Seen], place: &str) -> usize {
    let mut known = BTreeSet::new();
    let all = uploads(seen);
    for (slot, payload) in &all {
        assert!(known.insert((slot, payload)), "{place}: two equal uploads on slot {slot}: one mask for two requests");
    }
    all.len()
}

fn numbered(settings: &mut DeviceSettings, nonce: [u8; 32]) {
    settings.nonce = Box::new(move || Ok(nonce));
}

/// A device killed at any point of a session and started again, many times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_killed_at_any_point_never_repeat_a_mask() {
    for scheme in ["relay", "two-edge", "one-time", "stockpile"] {
        let model = Model::digits(scheme, Precision::Fast);
        let setup = Setup { requests: 300, record: true, ..Setup::new(vec![model]) };
        let mut cluster = Cluster::start(setup).await;
        let wire = Wire::to(&cluster.at_a.address).await;
        cluster.at_a.address = wire.address.clone();
        let mut finished = 0;
        for round in 0..24u64 {
            wire.set(Fate::Pass, 0);
            let device = cluster.device(0).await.unwrap_or_else(|e| panic!("{scheme}, round {round}: {e}"));
            for _ in 0..round % 3 {
                device.infer(digit(3)).await.unwrap();
                finished += 1;
            }
            // the last request stops somewhere on its way, a little further every round
            wire.set(Fate::Freeze, round * 400);
            let cut = tokio::time::timeout(Duration::from_millis(30), device.infer(digit(3))).await;
            drop(device);
            assert!(cut.is_err() || round * 400 > 2000, "{scheme}, round {round}: it should have been cut");
        }
        wire.set(Fate::Pass, 0);
        drop(wire);
        tokio::time::sleep(Duration::from_millis(200)).await;
        let seen = cluster.take_seen();
        let sent = assert_fresh(&seen, scheme);
        assert!(sent > finished + 24, "{scheme}: {sent} uploads, {finished} requests finished");
        let opened: Vec<&Seen> = seen.iter().filter(|s| s.kind == "OpenSession").collect();
        let two = matches!(scheme, "relay" | "two-edge");
        assert_eq!(opened.len(), if two { 24 } else { 0 }, "{scheme}");
        // header (5), epoch (8), nonce (32)
        let epochs: Vec<u64> = opened.iter().map(|s| u64::from_le_bytes(s.bytes[5..13].try_into().unwrap())).collect();
        assert!(epochs.is_sorted_by(|a, b| a < b), "{scheme}: epochs {epochs:?}");
        let nonces: BTreeSet<&[u8]> = opened.iter().map(|s| &s.bytes[13..45]).collect();
        assert_eq!(nonces.len(), opened.len(), "{scheme}: a nonce came twice");
    }
}

/// Two processes of one device at once: each has an epoch of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_of_one_device_have_different_masks() {
    for scheme in ["relay", "two-edge"] {
        let model = Model::digits(scheme, Precision::Fast);
        let cluster = Cluster::start(Setup { record: true, ..Setup::new(vec![model]) }).await;
        let mut running = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let mut settings = cluster.settings(0);
            numbered(&mut settings, [1; 32]);
            running.spawn(async move {
                let device = Device::start(settings).await.unwrap();
                for _ in 0..3 {
                    device.infer(digit(3)).await.unwrap();
                }
            });
        }
        while let Some(done) = running.join_next().await {
            done.unwrap();
        }
        let sent = assert_fresh(&cluster.take_seen(), scheme);
        assert!(sent >= 24, "{scheme}: only {sent} uploads");
    }
}

/// A random source that repeats, and a key file restored from a backup: edge B's memory of the epoch still gives new
/// masks. Only when edge B's is restored as well do they come again: which shows that the test would see it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_nonce_and_a_restored_key_file_are_not_enough() {
    for scheme in ["relay", "two-edge"] {
        let model = Model::digits(scheme, Precision::Fast);
        let cluster = Cluster::start(Setup { record: true, ..Setup::new(vec![model]) }).await;
        let key = cluster.cards[0].key();
        let at_b = cluster.key_at_b(0);
        let (backup, backup_b) = (std::fs::read(&key).unwrap(), std::fs::read(&at_b).unwrap());
        let mut epochs = Vec::new();
        let mut session = async || {
            let mut settings = cluster.settings(0);
            numbered(&mut settings, [42; 32]);
            let device = Device::start(settings).await.unwrap();
            device.infer(digit(3)).await.unwrap();
            device.stop().await;
            epochs.push(KeyFile::read(&key).unwrap().key.epoch());
        };
        session().await;
        session().await;
        std::fs::write(&key, &backup).unwrap();
        session().await;
        std::fs::write(&key, &backup).unwrap();
        session().await;
        assert_eq!(epochs, [1, 2, 3, 4], "{scheme}");
        let before = cluster.take_seen();
        assert_fresh(&before, scheme);

        std::fs::write(&key, &backup).unwrap();
        std::fs::write(&at_b, &backup_b).unwrap();
        let mut settings = cluster.settings(0);
        numbered(&mut settings, [42; 32]);
        Device::start(settings).await.unwrap().infer(digit(3)).await.unwrap();
        let (first, again) = (uploads(&before), uploads(&cluster.take_seen()));
        assert_eq!(first[0], again[0], "{scheme}: nonce, epoch and edge B all rolled back: the same masks");
    }
}

/// The first number that the ledger's newest record does not cover, read behind the device's back. Two records 4096 bytes
/// apart: magic, version, sequence (at 12), owner (64 bytes), end (at 84).
fn ledger_end(path: &Path) -> u64 {
    let bytes = std::fs::read(path).unwrap();
    let at = |i: usize| u64::from_le_bytes(bytes[i..i + 8].try_into().unwrap());
    [0, 4096].into_iter().map(|slot| (at(slot + 12), at(slot + 84))).max().unwrap().1
}

/// When the first byte of a request arrives at edge A, its number is on the device's disk as used.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_are_reserved_before_anything_is_sent() {
    for scheme in ["one-time", "stockpile"] {
        let model = Model::digits(scheme, Precision::Fast);
        let mut cluster = Cluster::prepare(Setup { requests: 40, ..Setup::new(vec![model]) });
        let mut settings = cluster.edge_settings(Role::EdgeA).await;
        let heard: Arc<Mutex<Vec<(u64, u64)>>> = Arc::default();
        let (log, ledger) = (Arc::clone(&heard), cluster.cards[0].ledger());
        let observer: Observer = Arc::new(move |_, message| {
            if let Message::Begin { request } = message {
                log.lock().unwrap().push((*request, ledger_end(&ledger)));
            }
        });
        settings.observer = Some(observer);
        let running = edge_a::serve(settings).await.unwrap();
        cluster.at_a.address = running.address.to_string();
        for block in [1, 3, 8] {
            let mut settings = cluster.settings(0);
            settings.material.ledger.as_mut().unwrap().set_block(block).unwrap();
            let device = Device::start(settings).await.unwrap();
            for _ in 0..4 {
                device.infer(digit(3)).await.unwrap();
            }
        }
        let heard = heard.lock().unwrap();
        assert_eq!(heard.len(), 12, "{scheme}");
        assert!(heard.iter().all(|(request, end)| request < end), "{scheme}: request and end on disk: {heard:?}");
        assert!(heard.is_sorted_by(|a, b| a.0 < b.0), "{scheme}: {heard:?}");
        // blocks of one: never more reserved than used
        assert!(heard[..4].iter().all(|(request, end)| request + 1 == *end), "{scheme}: {heard:?}");
    }
}

/// A ledger copied back: edge A remembers, also across its own restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copied_back_ledger_is_refused() {
    for scheme in ["one-time", "stockpile"] {
        let model = Model::digits(scheme, Precision::Fast);
        let mut cluster = Cluster::start(Setup { record: true, ..Setup::new(vec![model]) }).await;
        let ledger = cluster.cards[0].ledger();
        let backup = std::fs::read(&ledger).unwrap();
        let device = cluster.device(0).await.unwrap();
        for _ in 0..3 {
            device.infer(digit(3)).await.unwrap();
        }
        drop(device);
        std::fs::write(&ledger, &backup).unwrap();
        for restarted in [false, true] {
            if restarted {
                cluster.kill_a().await;
                cluster.start_a().await;
            }
            let error = cluster.device(0).await.err().expect("a restored ledger must be refused");
            let NodeError::Ledger(LedgerError::RolledBack { mark: 2, .. }) = &error else {
                panic!("{scheme}, edge A restarted {restarted}: {error:?}")
            };
            assert!(error.is_spent(), "{scheme}");
            assert!(error.to_string().contains("pponnx keygen"), "{error}");
        }
        assert_eq!(assert_fresh(&cluster.take_seen(), scheme), 3 * uploads_of_a_request(&cluster), "{scheme}");
    }
}

fn uploads_of_a_request(cluster: &Cluster) -> usize {
    let slots = &cluster.cards[0].model.bundle.slots;
    slots.iter().filter(|s| s.kind == pponnx_plans::plan::SlotKind::Upload).count()
}

/// Two copies of a device at once, each with its ledger: edge A takes one connection of a device at a time, so that no two
/// uploads under one number reach it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_copies_of_a_device_one_is_refused() {
    for scheme in ["one-time", "stockpile"] {
        let model = Model::digits(scheme, Precision::Fast);
        let cluster = Cluster::start(Setup::new(vec![Arc::clone(&model)])).await;
        let card = &cluster.cards[0];
        let copy = card.folder.join("ledger-copy");
        std::fs::copy(card.ledger(), &copy).unwrap();
        let mut first = cluster.device(0).await.unwrap();
        drop(first);
        first = cluster.device(0).await.unwrap();
        let mut settings = {
            // the second's settings with its own ledger: the first holds the lock of the other
            let mut settings = cluster.settings_without_ledger(0);
            let ledger = Ledger::open(&copy, &card.id, model.bundle.digest()).unwrap();
            settings.material.ledger = Some(ledger);
            settings
        };
        settings.material.ledger.as_mut().unwrap().set_block(1).unwrap();
        let error = Device::start(settings).await.err().expect("a second copy must not get as far as a request");
        let NodeError::Refused { edge: Role::EdgeA, refuse } = &error else { panic!("{scheme}: {error:?}") };
        assert_eq!(refuse.code, RefuseCode::Busy, "{scheme}: {error}");
        first.infer(digit(3)).await.unwrap();
    }
}

/// Used up: an error that says so, before anything is sent, and again after a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn used_up_pairs_are_an_error_and_never_used_again() {
    for scheme in ["one-time", "stockpile"] {
        let model = Model::digits(scheme, Precision::Fast);
        let cluster = Cluster::start(Setup { requests: 3, record: true, ..Setup::new(vec![model]) }).await;
        let mut device = cluster.device(0).await.unwrap();
        for _ in 0..3 {
            device.infer(digit(3)).await.unwrap();
        }
        for round in 0..3 {
            let error = device.infer(digit(3)).await.err().expect("there are no pairs left");
            assert!(error.is_spent(), "{scheme}, round {round}: {error:?}");
            assert!(error.to_string().contains("pponnx keygen"), "{scheme}: {error}");
            drop(device);
            device = match cluster.device(0).await {
                Ok(device) => device,
                Err(error) => panic!("{scheme}: {error}"),
            };
        }
        let seen = cluster.take_seen();
        assert_fresh(&seen, scheme);
        let mut numbers: BTreeMap<u64, usize> = BTreeMap::new();
        for s in seen.iter().filter(|s| s.kind == "Data") {
            *numbers.entry(s.place.unwrap().0).or_default() += 1;
        }
        let finished = numbers.iter().filter(|(_, n)| **n == uploads_of_a_request(&cluster)).count();
        assert_eq!(finished, 3, "{scheme}: uploads by request {numbers:?}");
        if scheme == "one-time" {
            assert_eq!(numbers.len(), 3, "{scheme}: without a pair nothing is sent");
        }
    }
}

/// One ledger, one process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_in_use_is_locked() {
    for scheme in ["one-time", "stockpile"] {
        let model = Model::digits(scheme, Precision::Fast);
        let cluster = Cluster::start(Setup::new(vec![Arc::clone(&model)])).await;
        let card = &cluster.cards[0];
        let device = cluster.device(0).await.unwrap();
        let error = Ledger::open(&card.ledger(), &card.id, model.bundle.digest()).err().expect("it is in use");
        assert!(matches!(error, StoreError::Busy { .. }), "{scheme}: {error:?}");
        assert!(error.to_string().contains("ledger"), "{scheme}: {error}");
        device.infer(digit(3)).await.unwrap();
        drop(device);
        Ledger::open(&card.ledger(), &card.id, model.bundle.digest()).unwrap();
    }
}

/// Dealt key pairs without the guards against reuse are refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ledger_and_marks_cannot_be_left_out() {
    for scheme in ["one-time", "stockpile"] {
        let cluster = Cluster::start(Setup::new(vec![Model::digits(scheme, Precision::Fast)])).await;
        let error = Device::start(cluster.settings_without_ledger(0)).await.err().expect("no ledger");
        assert!(matches!(&error, NodeError::Settings(why) if why.contains("ledger")), "{scheme}: {error:?}");

        let bare = Cluster::prepare(Setup::new(vec![Model::digits(scheme, Precision::Fast)]));
        let mut settings = bare.edge_settings(Role::EdgeA).await;
        settings.plans[0].marks = None;
        let error = edge_a::serve(settings).await.err().expect("no marks");
        assert!(matches!(&error, NodeError::Settings(why) if why.contains("marks")), "{scheme}: {error:?}");
    }
}
