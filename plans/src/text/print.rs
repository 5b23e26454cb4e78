//! From a bundle to its text.

use std::fmt::{self, Display, Formatter};

use crate::binary::{FORMAT, Hex};
use crate::field::Attr;
use crate::map::LinearMap;
use crate::plan::{Bound, Bundle, Cost, Header, Patch, Port, Program, Range, Slot, Step};
use crate::value::ValueType;

/// A bundle that displays as its text.
pub(super) struct Page<'a>(pub(super) &'a Bundle);

impl Display for Page<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        // Taken apart without `..`, here and below, so that a new field cannot be forgotten.
        let Bundle { header, inputs, outputs, constants, maps, slots, ranges, programs, cost } = self.0;
        self::header(f, header)?;
        writeln!(f)?;
        inputs.iter().try_for_each(|p| port(f, "input", p))?;
        outputs.iter().try_for_each(|p| port(f, "output", p))?;
        for (i, c) in constants.iter().enumerate() {
            writeln!(f, "constant @{i} {}{} {}", c.dtype.name(), c.shape, Hex(c.digest))?;
        }
        maps.iter().enumerate().try_for_each(|(i, m)| map(f, i, m))?;
        slots.iter().enumerate().try_for_each(|(i, s)| slot(f, i, s))?;
        ranges.iter().enumerate().try_for_each(|(i, r)| range(f, i, r))?;
        programs.iter().try_for_each(|p| program(f, p))?;
        self::cost(f, cost)
    }
}

fn header(f: &mut Formatter<'_>, h: &Header) -> fmt::Result {
    let Header { model, model_digest, scheme, precision, suite, total_mult_adds } = h;
    writeln!(f, "bundle {FORMAT}")?;
    writeln!(f, "model {} {}", Quoted(model), Hex(*model_digest))?;
    writeln!(f, "scheme {}", Quoted(scheme))?;
    writeln!(f, "precision {}", Quoted(precision))?;
    writeln!(f, "suite {}", Quoted(suite))?;
    writeln!(f, "total-mult-adds {total_mult_adds}")
}

fn port(f: &mut Formatter<'_>, what: &str, p: &Port) -> fmt::Result {
    let Port { name, dtype, shape } = p;
    writeln!(f, "{what} {} {}{shape}", Quoted(name), dtype.name())
}

fn map(f: &mut Formatter<'_>, i: usize, map: &LinearMap) -> fmt::Result {
    let LinearMap { name, inputs, ops, output } = map;
    writeln!(f, "map ${i} {} {{", Quoted(name))?;
    for (v, shape) in inputs.iter().enumerate() {
        writeln!(f, "  param %{v} {shape}")?;
    }
    for (v, op) in (inputs.len()..).zip(ops) {
        writeln!(f, "  %{v} = {}{}", op.name(), Fields(&op.fields()))?;
    }
    writeln!(f, "  return {output}\n}}")
}

fn slot(f: &mut Formatter<'_>, i: usize, s: &Slot) -> fmt::Result {
    let Slot { kind, k, shape, name } = s;
    writeln!(f, "slot #{i} {} z{k}{shape} {}", kind.name(), Quoted(name))
}

fn range(f: &mut Formatter<'_>, i: usize, range: &Range) -> fmt::Result {
    writeln!(f, "range {i} {{")?;
    for Bound { k, major, minor, square, patch } in &range.bounds {
        write!(f, "  bound k={k}, major={}, minor={}, square={}, ", Listed(major), Listed(minor), Listed(square))?;
        match patch {
            Patch::Whole => writeln!(f, "patch=whole")?,
            Patch::LastAxis => writeln!(f, "patch=last-axis")?,
            Patch::Window { kernel, strides, dilations, pads_before, pads_after } => {
                write!(f, "patch=window, kernel={}, strides={}, ", Listed(kernel), Listed(strides))?;
                write!(f, "dilations={}, pads_before={}, ", Listed(dilations), Listed(pads_before))?;
                writeln!(f, "pads_after={}", Listed(pads_after))?;
            }
        }
    }
    writeln!(f, "}}")
}

fn program(f: &mut Formatter<'_>, p: &Program) -> fmt::Result {
    let Program { role, params, steps } = p;
    writeln!(f, "{role} {{")?;
    for (v, value_type) in params.iter().enumerate() {
        writeln!(f, "  param %{v} {}", value_type)?;
    }
    let mut next = params.len();
    for Step { op, results } in steps {
        write!(f, "  ")?;
        for i in 0..results.len() {
            write!(f, "%{}{}", next + i, if i + 1 < results.len() { ", " } else { " = " })?;
        }
        next += results.len();
        writeln!(f, "{}{}{}", op.name(), Fields(&op.fields()), Types(results))?;
    }
    writeln!(f, "}}")
}

fn cost(f: &mut Formatter<'_>, c: &Cost) -> fmt::Result {
    let Cost { rounds, bytes_up, bytes_down, bytes_edge_link, mult_adds_edge_a, mult_adds_edge_b } = c;
    write!(f, "cost rounds={rounds}, bytes_up={bytes_up}, bytes_down={bytes_down}, ")?;
    write!(f, "bytes_edge_link={bytes_edge_link}, mult_adds_edge_a={mult_adds_edge_a}, ")?;
    writeln!(f, "mult_adds_edge_b={mult_adds_edge_b}")
}

/// An operation's fields: handles and operands by position, numbers and optional constants by name. An absent
/// constant is left out; no comma stands behind a role.
struct Fields<'a>(&'a [(&'static str, Attr)]);

impl Display for Fields<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut before = " ";
        for (name, attr) in self.0 {
            if *attr == Attr::MaybeConst(None) {
                continue;
            }
            f.write_str(before)?;
            before = ", ";
            match attr {
                Attr::Value(v) => write!(f, "{v}")?,
                Attr::Values(vs) => write!(f, "{}", Listed(vs))?,
                Attr::Slot(s) => write!(f, "{s}")?,
                Attr::Map(m) => write!(f, "{m}")?,
                Attr::Const(c) => write!(f, "{c}")?,
                Attr::MaybeConst(c) => c.iter().try_for_each(|c| write!(f, "{name}={c}"))?,
                Attr::Int(n) => write!(f, "{name}={n}")?,
                Attr::Ints(list) => write!(f, "{name}={}", Listed(list))?,
                Attr::Role(r) => {
                    write!(f, "{r}")?;
                    before = " ";
                }
            }
        }
        Ok(())
    }
}

/// The types of a step's results, if it has any.
struct Types<'a>(&'a [ValueType]);

impl Display for Types<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut before = " : ";
        for value_type in self.0 {
            write!(f, "{before}{value_type}")?;
            before = ", ";
        }
        Ok(())
    }
}

/// `[1,2,3]`, as shapes print.
struct Listed<'a, T>(&'a [T]);

impl<T: Display> Display for Listed<'_, T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, item) in self.0.iter().enumerate() {
            write!(f, "{}{item}", if i > 0 { "," } else { "" })?;
        }
        f.write_str("]")
    }
}

/// A name in quotes. Control characters, also those beyond ASCII, are written as codes, so that a name stays on its
/// line and cannot steer a terminal.
struct Quoted<'a>(&'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for c in self.0.chars() {
            match c {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                c if hidden(c) => write!(f, "\\u{{{:x}}}", u32::from(c))?,
                c => write!(f, "{c}")?,
            }
        }
        f.write_str("\"")
    }
}

/// Control characters, and those that break lines or reorder text on a screen.
fn hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{feff}')
}
