//! What a lying edge or a garbled link can do: end the request, and nothing else.

use pponnx_engine::simulate::Payload;
use pponnx_engine::{EngineError, Execution, Progress, Secrets, TensorValue};
use pponnx_plans::value::{Role, SlotId};

use crate::nets::{SCHEMES, WIDTHS, all, net_chain, net_conv, net_depthwise, net_matmul, net_shared};
use crate::rig::Rig;

fn is_check_failure(error: &EngineError) -> bool {
    matches!(error, EngineError::IntegrityCheckFailed { .. })
}

/// Flips one bit at a time, spread over every payload of a request.
#[test]
fn a_flipped_bit_anywhere_fails_the_check() {
    for (name, net) in all() {
        for scheme in SCHEMES {
            for k in WIDTHS {
                let rig = Rig::new(&net, scheme, k);
                let honest = rig.run(0, 1).unwrap();
                for (at, payload) in honest.payloads.iter().enumerate() {
                    let bits = payload.bytes.len() * 8;
                    for bit in [0, bits / 3, bits / 2 + 1, bits - 1 - bits % 8] {
                        let mut seen = 0;
                        let result = rig.simulation.run_with(&rig.session, 0, rig.inputs(1), |p| {
                            if seen == at {
                                p.bytes[bit / 8] ^= 1 << (bit % 8);
                            }
                            seen += 1;
                        });
                        let place = format!("{name} {scheme} {k}: bit {bit} of payload {at}");
                        match result {
                            Err(EngineError::IntegrityCheckFailed { segment, blame, .. }) => {
                                assert!(rig.bundle.maps.iter().any(|m| m.name == segment), "{place}");
                                let one_edge = matches!(scheme, "one-time" | "stockpile" | "plain");
                                assert_eq!(blame, one_edge.then_some(Role::EdgeA), "{place}");
                            }
                            // Bits behind the last element.
                            Err(EngineError::PeerMisbehaved { .. } | EngineError::PlanMismatch { .. }) => {
                                assert!(bit / 8 + 1 == payload.bytes.len(), "{place}");
                            }
                            Err(other) => panic!("{place}: {other}"),
                            // A high bit of an upload vanishes under even weights, and some maps skip elements.
                            Ok(outcome) => {
                                assert_eq!(payload.from, Role::Device, "{place} passed");
                                assert_eq!(outcome.outputs, honest.outputs, "{place} changed the result");
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The top bit is the one that checks inside Z_2^k miss half the time.
#[test]
fn a_flipped_top_bit_of_any_single_element_fails_the_check() {
    for scheme in SCHEMES {
        let rig = Rig::new(&net_depthwise(), scheme, 32);
        let honest = rig.run(0, 1).unwrap();
        let reply = honest.payloads.iter().find(|p| p.from == Role::EdgeA).unwrap();
        for element in 0..reply.bytes.len() / 4 {
            let result = rig.simulation.run_with(&rig.session, 0, rig.inputs(1), |p| {
                if p.from == Role::EdgeA {
                    p.bytes[element * 4 + 3] ^= 0x80;
                }
            });
            assert!(is_check_failure(&result.err().unwrap()), "{scheme} element {element}");
        }
    }
}

#[test]
fn replies_of_two_maps_cannot_be_exchanged() {
    // Both heads of one size, so that only the check can tell.
    let mut net = net_shared();
    net.stages[0].1[1].ops = vec![crate::nets::conv(&[5, 4, 3, 3], 1, 1, 1)];
    for scheme in SCHEMES {
        for k in WIDTHS {
            let rig = Rig::new(&net, scheme, k);
            let honest = rig.run(0, 1).unwrap().payloads;
            let replies: Vec<&Payload> = honest.iter().filter(|p| p.from == Role::EdgeA).collect();
            assert_eq!(replies.len(), 2);
            let result = rig.simulation.run_with(&rig.session, 0, rig.inputs(1), |p| {
                if p.from == Role::EdgeA {
                    let other = if p.slot == replies[0].slot { replies[1] } else { replies[0] };
                    p.bytes.clone_from(&other.bytes);
                }
            });
            assert!(is_check_failure(&result.err().unwrap()), "{scheme} {k}");
        }
    }
}

#[test]
fn a_reply_of_an_earlier_request_fails_the_check() {
    for scheme in SCHEMES {
        for k in WIDTHS {
            let rig = Rig::new(&net_matmul(), scheme, k);
            for from in [Role::EdgeA, Role::EdgeB, Role::Offline] {
                let stale = rig.run(0, 1).unwrap().payloads;
                if !stale.iter().any(|p| p.from == from) {
                    continue;
                }
                let result = rig.simulation.run_with(&rig.session, 1, rig.inputs(2), |p| {
                    if p.from == from {
                        let old = stale.iter().find(|s| (s.from, s.slot) == (p.from, p.slot)).unwrap();
                        p.bytes.clone_from(&old.bytes);
                    }
                });
                assert!(is_check_failure(&result.err().unwrap()), "{scheme} {k} {from}");
            }
        }
    }
}

#[test]
fn payloads_of_wrong_length_are_refused() {
    for scheme in SCHEMES {
        let rig = Rig::new(&net_conv(), scheme, 40);
        let count = rig.run(0, 1).unwrap().payloads.len();
        for at in 0..count {
            for change in [-1isize, 1] {
                let mut seen = 0;
                let result = rig.simulation.run_with(&rig.session, 0, rig.inputs(1), |p| {
                    if seen == at {
                        let len = p.bytes.len().saturating_add_signed(change);
                        p.bytes.resize(len, 0);
                    }
                    seen += 1;
                });
                match result.err().unwrap() {
                    EngineError::PeerMisbehaved { .. } => {}
                    // Stored corrections are the own side's.
                    EngineError::PlanMismatch { .. } => assert!(matches!(scheme, "one-time" | "stockpile")),
                    other => panic!("{scheme} payload {at}: {other}"),
                }
            }
        }
    }
}

fn edge_a(rig: &Rig) -> Execution {
    let secrets = Secrets::EdgeA { loaded: Default::default() };
    Execution::new(rig.plan(Role::EdgeA), 0, secrets, vec![]).unwrap()
}

#[test]
fn strange_slots_and_second_payloads_are_refused() {
    let rig = Rig::new(&net_conv(), "relay", 32);
    let upload = vec![0u8; rig.bundle.slots[0].bytes() as usize];
    let download = vec![0u8; rig.bundle.slots[1].bytes() as usize];
    let cases: [(Role, SlotId, &Vec<u8>); 4] = [
        (Role::Device, SlotId(99), &upload),
        (Role::Device, SlotId(2), &download),
        (Role::EdgeB, SlotId(0), &upload),
        (Role::EdgeA, SlotId(0), &upload),
    ];
    for (from, slot, payload) in cases {
        let mut edge = edge_a(&rig);
        let error = edge.supply(from, slot, payload.clone()).unwrap_err();
        assert!(matches!(error, EngineError::PeerMisbehaved { role, .. } if role == from), "{error}");
        // Whatever came before or after: this request is over.
        assert!(matches!(edge.resume(), Err(EngineError::Misuse { .. })));
    }
    let mut edge = edge_a(&rig);
    edge.supply(Role::Device, SlotId(0), upload.clone()).unwrap();
    assert!(matches!(edge.resume().unwrap(), Progress::Wait { from: Role::EdgeB, .. }));
    let again = edge.supply(Role::Device, SlotId(0), upload).unwrap_err();
    assert!(matches!(again, EngineError::PeerMisbehaved { .. }), "{again}");
}

#[test]
fn nothing_leaves_a_device_whose_tensor_is_not_finite() {
    for scheme in SCHEMES {
        let rig = Rig::new(&net_conv(), scheme, 32);
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut input = rig.inputs(1)[0].as_f32().unwrap().to_vec();
            let last = input.len() - 1;
            input[last] = bad;
            let input = TensorValue::from_f32(rig.bundle.inputs[0].shape.clone(), input).unwrap();
            let mut sent = 0;
            let result = rig.simulation.run_with(&rig.session, 0, vec![input], |p| {
                sent += usize::from(p.from == Role::Device);
            });
            match result.err().unwrap() {
                EngineError::NotFinite { segment, input } => {
                    assert_eq!((segment.as_str(), input.as_str()), ("conv1", "input0"));
                }
                other => panic!("{other}"),
            }
            assert_eq!(sent, 0);
        }
    }
}

#[test]
fn after_a_failed_check_nothing_more_is_sent_and_nothing_returned() {
    let rig = Rig::new(&net_chain(), "relay", 32);
    let honest = rig.run(0, 1).unwrap().payloads;
    let mut device = rig.device(0, rig.inputs(1));
    assert!(matches!(device.resume().unwrap(), Progress::Wait { .. }));
    assert_eq!(device.outgoing().len(), 1);
    let mut reply = honest.iter().find(|p| p.from == Role::EdgeA).unwrap().clone();
    reply.bytes[5] ^= 1;
    device.supply(Role::EdgeA, reply.slot, reply.bytes).unwrap();
    assert!(is_check_failure(&device.resume().unwrap_err()));
    assert!(device.outgoing().is_empty());
    assert!(matches!(device.resume(), Err(EngineError::Misuse { .. })));
    assert!(matches!(device.finish(), Err(EngineError::Misuse { .. })));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(60))]

    /// Whatever an edge answers, in whatever order, the device ends with an error and no panic.
    #[test]
    fn arbitrary_replies_end_in_an_error(
        scheme in proptest::sample::select(vec!["relay", "two-edge", "plain"]),
        k in proptest::sample::select(WIDTHS.to_vec()),
        replies in proptest::collection::vec(
            (proptest::sample::select(Role::ALL.to_vec()), 0u32..6, proptest::prelude::any::<u64>(), -1isize..2),
            1..6,
        ),
    ) {
        let rig = Rig::new(&net_shared(), scheme, k);
        let mut device = rig.device(0, rig.inputs(1));
        for (from, slot, seed, extra) in replies {
            let before = device.resume();
            if let Ok(progress) = before {
                proptest::prop_assert!(progress != Progress::Done);
            }
            let len = rig.bundle.slots.get(slot as usize).map_or(3, |s| s.bytes() as usize);
            // The extra byte is rare, so that some payloads get past the length check.
            let len = if seed % 4 == 0 { len.saturating_add_signed(extra) } else { len };
            let mut dice = crate::nets::Dice(seed);
            let payload = (0..len).map(|_| dice.next() as u8).collect();
            let refused = device.supply(from, SlotId(slot), payload);
            if refused.is_err() {
                proptest::prop_assert!(device.outgoing().is_empty());
            }
        }
        if let Ok(progress) = device.resume() {
            proptest::prop_assert!(progress != Progress::Done);
        }
        proptest::prop_assert!(device.finish().is_err());
    }
}
