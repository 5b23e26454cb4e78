//! Every scheme and ring agrees with the integer reference, and with real arithmetic as far as its bits go.

use std::collections::BTreeMap;

use pponnx_engine::{LocalModel, TensorValue};
use pponnx_kernels::{Isa, Kernels};
use pponnx_keys::{CheckSecret, Part, StreamAt, Suite};
use pponnx_plans::op::Op;
use pponnx_plans::reference::scalar::Fp;
use pponnx_plans::reference::tensor::Tensor;
use pponnx_plans::reference::{linear, run};
use pponnx_plans::value::{ConstId, MapId, Role, SlotId};

use crate::nets::{Net, SCHEMES, WIDTHS, all, net_chain, net_conv, net_matmul};
use crate::rig::{Rig, session};

fn each(mut f: impl FnMut(&str, &Net, &str, u32)) {
    for (name, net) in all() {
        for scheme in SCHEMES {
            for k in WIDTHS {
                f(name, &net, scheme, k);
            }
        }
    }
}

#[test]
fn counted_traffic_is_the_declared_cost() {
    each(|name, net, scheme, k| {
        let rig = Rig::new(net, scheme, k);
        let traffic = rig.run(0, 1).unwrap().traffic;
        let cost = &rig.bundle.cost;
        let counted = (traffic.rounds, traffic.bytes_up, traffic.bytes_down, traffic.bytes_edge_link);
        let declared = (cost.rounds, cost.bytes_up, cost.bytes_down, cost.bytes_edge_link);
        assert_eq!(counted, declared, "{name} {scheme} {k}");
    });
}

/// Linear maps in f64 with real weights, ReLU between stages.
fn plaintext(rig: &Rig, net: &Net, inputs: &[TensorValue]) -> Vec<Tensor<f64>> {
    let bundle = &rig.bundle;
    let real = |t: &TensorValue| Tensor { shape: t.shape().clone(), data: t.elements().to_f64() };
    let mut outputs: Vec<Tensor<f64>> = Vec::new();
    let mut number = 0;
    for (uploads, uses) in &net.stages {
        let xs: Vec<Tensor<f64>> = uploads
            .iter()
            .map(|u| match u.source {
                crate::nets::Source::Input(i) => real(&inputs[i]),
                crate::nets::Source::Relu(i) => outputs[i].map(|v| v.max(0.0)),
            })
            .collect();
        for using in uses {
            let map = &bundle.maps[number];
            let picked: Vec<Tensor<f64>> = using.uploads.iter().map(|u| xs[*u].clone()).collect();
            let find = |id: &_| rig.written.weights.iter().find(|(c, _)| c == id).map(|(_, t)| t);
            let mut y = linear::apply(map, &picked, find).unwrap();
            let bias = bias_of(rig, number);
            let run: usize = y.shape.0[2..].iter().product();
            let channels = y.shape.0[1];
            for (i, v) in y.data.iter_mut().enumerate() {
                *v = *v * rig.written.inverse + f64::from(bias[i / run % channels]);
            }
            outputs.push(y);
            number += 1;
        }
    }
    outputs
}

fn bias_of(rig: &Rig, number: usize) -> Vec<f32> {
    let decodes = rig.bundle.program(Role::Device).unwrap().steps.iter().filter_map(|s| match &s.op {
        Op::Decode { bias, .. } => Some(*bias),
        _ => None,
    });
    let id = decodes.clone().nth(number).unwrap();
    let digest = &rig.bundle.constants[id.index()].digest;
    pponnx_plans::constant::read_f32(&rig.written.constants.load(digest).unwrap())
}

#[test]
fn results_are_close_to_real_arithmetic() {
    each(|name, net, scheme, k| {
        if name == "sum" {
            return; // Its two inputs have scales of their own, so that the sum means nothing in reals.
        }
        let rig = Rig::new(net, scheme, k);
        let inputs = rig.inputs(2);
        let want = plaintext(&rig, net, &inputs);
        let got = rig.simulation.run(&rig.session, 7, inputs).unwrap().outputs;
        assert_eq!(got.len(), want.len());
        for (got, want) in got.iter().zip(&want) {
            assert_eq!(got.shape(), &want.shape);
            let top = want.data.iter().fold(0f64, |m, v| m.max(v.abs()));
            let error = got.elements().to_f64().iter().zip(&want.data).fold(0f64, |m, (a, b)| m.max((a - b).abs()));
            // What the weights of these nets leave of k bits for the activations.
            let limit = match k {
                32 => 5e-3,
                40 => 3e-4,
                _ => 1e-7,
            };
            assert!(error <= limit * top, "{name} {scheme} {k}: {error:e} of {top:e}");
        }
    });
}

/// The streams of a real session, for the reference.
struct Real<'a> {
    rig: &'a Rig,
    request: u64,
}

impl run::Streams for Real<'_> {
    fn words(&mut self, slot: SlotId, side: run::Side, len: usize) -> Vec<u64> {
        let side = match side {
            run::Side::Mask => pponnx_keys::Side::Mask,
            run::Side::Pad => pponnx_keys::Side::Pad,
        };
        let at = StreamAt { digest: *self.rig.bundle.digest(), request: self.request, slot: slot.0, side };
        let k = self.rig.bundle.slots[slot.index()].k;
        let suite = Suite::from_name(&self.rig.bundle.header.suite).unwrap();
        self.rig.session.mask(suite, &at, len, k).into_words_u64().unwrap().to_vec()
    }

    fn field(&mut self, map: MapId, part: u8, len: usize) -> Vec<Fp> {
        let part = if part == 0 { Part::Channels } else { Part::Positions };
        let secret = CheckSecret::new(&[9; 32]);
        secret.elements(self.rig.bundle.digest(), map.0, part, len).iter().map(|e| Fp::new(*e)).collect()
    }
}

/// Local segments of the reference, run by the same back end.
struct Tract;

impl run::Locals for Tract {
    fn run(&mut self, _: ConstId, bytes: &[u8], inputs: &[&run::Plain]) -> Result<Vec<run::Plain>, String> {
        let inputs: Vec<TensorValue> =
            inputs.iter().map(|p| TensorValue::from_le_bytes(p.dtype, p.shape.clone(), &p.bytes).unwrap()).collect();
        let outputs = LocalModel::load(bytes).unwrap().run(&inputs.iter().collect::<Vec<_>>()).unwrap();
        Ok(outputs.iter().map(plain).collect())
    }
}

fn plain(t: &TensorValue) -> run::Plain {
    run::Plain { dtype: t.dtype(), shape: t.shape().clone(), bytes: t.elements().to_le_bytes() }
}

/// Residues of a payload.
fn residues(bytes: &[u8], k: u32, n: usize) -> Vec<u64> {
    let bit = |i: usize| u64::from(bytes[i / 8] >> (i % 8) & 1);
    (0..n).map(|e| (0..k as usize).fold(0, |v, b| v | bit(e * k as usize + b) << b)).collect()
}

/// What travels over every slot, and the outputs, equal the integer reference bit for bit, for every scheme.
#[test]
fn every_payload_and_output_is_that_of_the_reference() {
    each(|name, net, scheme, k| {
        let rig = Rig::new(net, scheme, k);
        let inputs = rig.inputs(3);
        let mut streams = Real { rig: &rig, request: 9 };
        let given: Vec<run::Plain> = inputs.iter().map(plain).collect();
        let want = run::run(&rig.bundle, &rig.written.constants, &given, &mut streams, &mut Tract).unwrap();
        let got = rig.simulation.run(&rig.session, 9, inputs).unwrap();
        assert_eq!(got.outputs.iter().map(plain).collect::<Vec<_>>(), want.outputs, "{name} {scheme} {k}");
        assert_eq!(got.payloads.len(), want.sent.len(), "{name} {scheme} {k}");
        for payload in &got.payloads {
            let slot = &rig.bundle.slots[payload.slot.index()];
            let words = residues(&payload.bytes, slot.k, slot.shape.len());
            assert_eq!(words, want.sent[&payload.slot], "{name} {scheme} {k} {}", payload.slot);
        }
    });
}

#[test]
fn fused_and_stepwise_evaluation_send_the_same_bytes() {
    each(|name, net, scheme, k| {
        let fused = Rig::new(net, scheme, k).run(6, 2).unwrap();
        let stepwise = Rig::stepwise(net, scheme, k).run(6, 2).unwrap();
        assert_eq!(fused.outputs, stepwise.outputs, "{name} {scheme} {k}");
        let sent = |outcome: pponnx_engine::Outcome| {
            outcome.payloads.into_iter().map(|p| ((p.from, p.to, p.slot), p.bytes)).collect::<BTreeMap<_, _>>()
        };
        assert_eq!(sent(fused), sent(stepwise), "{name} {scheme} {k}");
    });
}

#[test]
fn every_instruction_set_sends_the_same_bytes() {
    for (name, net) in all() {
        for k in WIDTHS {
            let runs: Vec<_> = Kernels::available()
                .into_iter()
                .chain([Isa::Portable])
                .flat_map(|isa| [1, 2].map(|threads| Kernels::with_isa(isa).unwrap().with_threads(threads).unwrap()))
                .map(|kernels| {
                    let outcome = Rig::on(&net, "relay", k, kernels).run(4, 4).unwrap();
                    (outcome.outputs, outcome.payloads)
                })
                .collect();
            assert!(runs.windows(2).all(|w| w[0] == w[1]), "{name} {k}");
        }
    }
}

#[test]
fn masks_are_fresh_for_each_request_and_session_and_repeat_for_neither() {
    for scheme in ["relay", "two-edge", "one-time", "stockpile"] {
        for k in WIDTHS {
            let rig = Rig::new(&net_chain(), scheme, k);
            let sent = |session: &_, request| {
                let payloads = rig.simulation.run(session, request, rig.inputs(5)).unwrap().payloads;
                payloads.into_iter().map(|p| ((p.from, p.to, p.slot), p.bytes)).collect::<BTreeMap<_, _>>()
            };
            let first = sent(&rig.session, 11);
            assert_eq!(first, sent(&rig.session, 11), "{scheme} {k}: a retransmission repeats the bytes");
            let mut others = vec![sent(&rig.session, 12)];
            if matches!(scheme, "relay" | "two-edge") {
                others.push(sent(&session(scheme, 4), 11));
            }
            for other in others {
                for (link, bytes) in &first {
                    assert_ne!(bytes, &other[link], "{scheme} {k} {link:?}");
                    let same = bytes.iter().zip(&other[link]).filter(|(a, b)| a == b).count();
                    assert!(same * 8 < bytes.len() + 200, "{scheme} {k} {link:?}: {same} of {} bytes", bytes.len());
                }
            }
        }
    }
}

/// With scheme `plain` the upload is the encoded input itself; masked it is that plus the mask of its slot.
#[test]
fn an_upload_is_the_encoded_input_plus_its_mask() {
    for (k, bytes) in [(32u32, 4usize), (40, 5)] {
        let upload = |scheme: &str| {
            let rig = Rig::new(&net_matmul(), scheme, k);
            let payloads = rig.run(6, 6).unwrap().payloads;
            let payload = payloads.into_iter().find(|p| p.from == Role::Device).unwrap();
            let words: Vec<u64> =
                payload.bytes.chunks(bytes).map(|c| c.iter().rev().fold(0u64, |v, b| v << 8 | u64::from(*b))).collect();
            (rig, words)
        };
        let (rig, masked) = upload("relay");
        let at =
            StreamAt { digest: *rig.bundle.digest(), request: 6, slot: SlotId(0).0, side: pponnx_keys::Side::Mask };
        let suite = Suite::from_name(&rig.bundle.header.suite).unwrap();
        let mask = rig.session.mask(suite, &at, masked.len(), k).into_words_u64().unwrap();
        let low = (1u64 << k) - 1;
        let bare: Vec<i64> = masked
            .iter()
            .zip(mask.iter())
            .map(|(x, r)| pponnx_plans::reference::number::lift(x.wrapping_sub(*r) & low, k))
            .collect();
        let x = rig.inputs(6);
        let x = x[0].as_f32().unwrap();
        let range = &rig.bundle.ranges[0];
        let exponents = pponnx_plans::reference::number::exponents(x, &rig.bundle.inputs[0].shape, 1, range).unwrap();
        let want: Vec<i64> =
            x.iter().map(|v| i64::from(pponnx_plans::reference::number::encode_one(*v, exponents[0]))).collect();
        assert_eq!(bare, want);
    }
}

#[test]
fn a_zero_input_gives_the_bias() {
    for scheme in SCHEMES {
        let rig = Rig::new(&net_conv(), scheme, 32);
        let shape = rig.bundle.inputs[0].shape.clone();
        let zeros = TensorValue::from_f32(shape.clone(), vec![-0.0; shape.len()]).unwrap();
        let out = rig.simulation.run(&rig.session, 0, vec![zeros]).unwrap().outputs;
        let bias = bias_of(&rig, 0);
        let run: usize = out[0].shape().0[2..].iter().product();
        for (i, v) in out[0].as_f32().unwrap().iter().enumerate() {
            assert_eq!(*v, bias[i / run % bias.len()]);
        }
    }
}
