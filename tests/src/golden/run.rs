//! Cases that run a network: all roles in one process against the integer reference and against plaintext.

use std::sync::Arc;

use pponnx_compiler::Compiled;
use pponnx_engine::offline::deal_check;
use pponnx_engine::simulate::Payload;
use pponnx_engine::{LocalModel, Simulation, TensorValue};
use pponnx_kernels::Kernels;
use pponnx_keys::{EpochKey, Part, SessionKey, StreamAt, Suite};
use pponnx_plans::reference::run as reference;
use pponnx_plans::reference::scalar::Fp;
use pponnx_plans::valid::ValidBundle;
use pponnx_plans::value::{ConstId, MapId, Role, SlotId};

use super::case::Case;
use super::network::{self, Setting, Source};
use crate::{check_secret, rel_err, session};

/// Number of the request that runs.
const REQUEST: u64 = 7;

/// A network that can run.
struct Rig {
    bundle: Arc<ValidBundle>,
    compiled: Compiled,
    simulation: Simulation,
    session: Arc<SessionKey>,
}

impl Rig {
    fn new(compiled: Compiled, setting: Setting) -> Result<Rig, String> {
        let bundle = Arc::new(compiled.bundle.clone());
        let check = deal_check(&bundle, &compiled.constants, [1; 16], check_secret(1)).map_err(|e| e.to_string())?;
        let simulation = Simulation::load(Arc::clone(&bundle), &compiled.constants, &check, Kernels::detect());
        let simulation = simulation.map_err(|e| e.to_string())?;
        let session = match setting.scheme.deals_pairs() {
            true => SessionKey::dealt(&EpochKey::first(&[1; 32])),
            false => session(1),
        };
        Ok(Rig { bundle, compiled, simulation, session: Arc::new(session) })
    }
}

/// Runs the network under each setting: rounds, bytes and exponents, after what travelled and what came out was found to
/// equal the reference, and to agree with plaintext.
///
/// # Errors
/// Any disagreement.
pub fn run(case: &Case) -> Result<Vec<String>, String> {
    let source = Source::of(case)?;
    let seed = case.setting("seed", "1").parse().map_err(|_| "1: the seed is a number".to_string())?;
    let settings = network::settings(case)?;
    let mut lines = Vec::new();
    for setting in settings {
        let name = setting.name();
        let failed = |what: String| format!("1: {name}: {what}");
        let compiled = source.compile(setting).map_err(|e| failed(e.join("\n")))?;
        let (inputs, expected) = source.vectors(&compiled.bundle, seed);
        let rig = Rig::new(compiled, setting).map_err(failed)?;
        lines.extend(honest(&rig, setting, inputs, &expected).map_err(failed)?);
    }
    Ok(lines)
}

fn honest(
    rig: &Rig,
    setting: Setting,
    inputs: Vec<TensorValue>,
    expected: &[TensorValue],
) -> Result<Vec<String>, String> {
    let given: Vec<reference::Plain> = inputs.iter().map(plain).collect();
    let mut streams = Real { rig };
    let want = reference::run(&rig.bundle, &rig.compiled.constants, &given, &mut streams, &mut Tract)
        .map_err(|e| format!("the reference fails: {e}"))?;
    let got = rig.simulation.run(&rig.session, REQUEST, inputs).map_err(|e| e.to_string())?;
    if got.outputs.iter().map(plain).collect::<Vec<_>>() != want.outputs {
        return Err("the outputs differ from the reference".into());
    }
    if got.payloads.len() != want.sent.len() {
        return Err(format!("{} payloads, the reference sends {}", got.payloads.len(), want.sent.len()));
    }
    for payload in &got.payloads {
        let slot = &rig.bundle.slots[payload.slot.index()];
        if Some(&residues(&payload.bytes, slot.k, slot.shape.len())) != want.sent.get(&payload.slot) {
            return Err(format!("the payload of slot {} differs from the reference", payload.slot));
        }
    }
    let tolerance = setting.precision.tolerance();
    if got.outputs.len() != expected.len() {
        return Err(format!("{} outputs, {} expected", got.outputs.len(), expected.len()));
    }
    for (port, (got, want)) in rig.bundle.outputs.iter().zip(got.outputs.iter().zip(expected)) {
        let apart = rel_err(got, want);
        if apart.is_nan() || apart > tolerance {
            return Err(format!("output {} is {apart:e} away from plaintext", port.name));
        }
    }
    let t = got.traffic;
    let c = rig.bundle.cost;
    let (counted, declared) = (
        (t.rounds, t.bytes_up, t.bytes_down, t.bytes_edge_link),
        (c.rounds, c.bytes_up, c.bytes_down, c.bytes_edge_link),
    );
    if counted != declared {
        return Err(format!("rounds and bytes {counted:?} are not the declared {declared:?}"));
    }
    let exponents: Vec<String> = want.exponents.iter().map(|(v, e)| format!("{v} {e:?}")).collect();
    Ok(vec![
        format!(
            "{}: rounds {}, up {}, down {}, edge link {}; {} payloads and {} outputs as the reference",
            setting.name(),
            t.rounds,
            t.bytes_up,
            t.bytes_down,
            t.bytes_edge_link,
            got.payloads.len(),
            got.outputs.len(),
        ),
        format!("  exponents {}; within {tolerance:e} of plaintext", exponents.join(", ")),
    ])
}

/// `cheat ROLE SLOT HOW`: what the device says when one payload is not what it should be.
///
/// # Errors
/// A wrong answer that was accepted, or a header that cannot be read.
pub fn cheat(case: &Case) -> Result<Vec<String>, String> {
    const USAGE: &str =
        "1: expected `test cheat ROLE #SLOT flip-bit N | zero | replay | shorten | lengthen | swap #SLOT | none`";
    let words: Vec<&str> = case.words.iter().skip(1).map(String::as_str).collect();
    let [role, slot, how @ ..] = words.as_slice() else { return Err(USAGE.into()) };
    let role = Role::from_name(role).ok_or(USAGE)?;
    let number = |text: &str| text.trim_start_matches('#').parse::<usize>().map_err(|_| USAGE.to_string());
    let slot = SlotId(number(slot)? as u32);
    let setting = network::setting(case)?;
    let source = Source::of(case)?;
    let compiled = source.compile(setting).map_err(|e| format!("1: {}", e.join("\n")))?;
    let (inputs, _) = source.vectors(&compiled.bundle, 1);
    let rig = Rig::new(compiled, setting).map_err(|e| format!("1: {e}"))?;
    let run = |request| rig.simulation.run(&rig.session, request, inputs.clone()).map_err(|e| format!("1: {e}"));
    let (right, earlier) = (run(REQUEST)?, run(REQUEST - 1)?);
    let of = |payloads: &[Payload], slot: SlotId| {
        let found = payloads.iter().find(|p| p.slot == slot && (p.from == role || how.first() == Some(&"swap")));
        found.map(|p| p.bytes.clone()).ok_or(format!("1: {role} sends nothing on slot {slot}"))
    };
    let mut bytes = of(&right.payloads, slot)?;
    match how {
        ["flip-bit", n] => {
            let n = number(n)?;
            *bytes.get_mut(n / 8).ok_or("1: the payload has no such bit")? ^= 1 << (n % 8);
        }
        ["zero"] => bytes.fill(0),
        ["replay"] => bytes = of(&earlier.payloads, slot)?,
        ["shorten"] => drop(bytes.pop()),
        ["lengthen"] => bytes.push(0),
        ["swap", other] => bytes = of(&right.payloads, SlotId(number(other)? as u32))?,
        ["none"] => {}
        _ => return Err(USAGE.into()),
    }
    let outcome = rig.simulation.run_with(&rig.session, REQUEST, inputs.clone(), |p| {
        if p.slot == slot && p.from == role {
            p.bytes.clone_from(&bytes);
        }
    });
    match outcome {
        Err(e) => Ok(vec![format!("error: {e}")]),
        Ok(o) if o.outputs == right.outputs => Ok(vec!["accepted: the outputs are the same".into()]),
        Ok(_) => Err("1: a wrong result was accepted".into()),
    }
}

/// The streams of a real session, for the reference.
struct Real<'a> {
    rig: &'a Rig,
}

impl reference::Streams for Real<'_> {
    fn words(&mut self, slot: SlotId, side: reference::Side, len: usize) -> Vec<u64> {
        let side = match side {
            reference::Side::Mask => pponnx_keys::Side::Mask,
            reference::Side::Pad => pponnx_keys::Side::Pad,
        };
        let at = StreamAt { digest: *self.rig.bundle.digest(), request: REQUEST, slot: slot.0, side };
        let k = self.rig.bundle.slots[slot.index()].k;
        let suite = Suite::from_name(&self.rig.bundle.header.suite).unwrap();
        self.rig.session.mask(suite, &at, len, k).into_words_u64().unwrap().to_vec()
    }

    fn field(&mut self, map: MapId, part: u8, len: usize) -> Vec<Fp> {
        let part = if part == 0 { Part::Channels } else { Part::Positions };
        check_secret(1).elements(self.rig.bundle.digest(), map.0, part, len).iter().map(|e| Fp::new(*e)).collect()
    }
}

/// Local segments of the reference, run by the same back end.
struct Tract;

impl reference::Locals for Tract {
    fn run(&mut self, _: ConstId, bytes: &[u8], inputs: &[&reference::Plain]) -> Result<Vec<reference::Plain>, String> {
        let inputs: Vec<TensorValue> =
            inputs.iter().map(|p| TensorValue::from_le_bytes(p.dtype, p.shape.clone(), &p.bytes).unwrap()).collect();
        let outputs = LocalModel::load(bytes).and_then(|m| m.run(&inputs.iter().collect::<Vec<_>>()));
        Ok(outputs.map_err(|e| e.to_string())?.iter().map(plain).collect())
    }
}

fn plain(t: &TensorValue) -> reference::Plain {
    reference::Plain { dtype: t.dtype(), shape: t.shape().clone(), bytes: t.elements().to_le_bytes() }
}

/// Elements of a payload: k bits each, lowest first.
fn residues(bytes: &[u8], k: u32, n: usize) -> Vec<u64> {
    let bit = |i: usize| u64::from(bytes.get(i / 8).map_or(0, |b| b >> (i % 8) & 1));
    (0..n).map(|e| (0..k as usize).fold(0, |v, b| v | bit(e * k as usize + b) << b)).collect()
}
