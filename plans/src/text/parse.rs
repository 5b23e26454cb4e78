//! From text to a bundle: a method for each rule of the grammar.

use super::cursor::{Parser, Result, digits};
use super::lex::Token;
use crate::binary::FORMAT;
use crate::constant::{ConstDecl, Digest};
use crate::field::Attr;
use crate::map::{LinearMap, MapOp};
use crate::op::Op;
use crate::plan::{Bound, Bundle, Cost, Header, Patch, Port, Program, Range, Slot, SlotKind, Step};
use crate::value::{ConstId, DType, MapId, Role, Shape, SlotId, ValueId, ValueType};

pub(super) fn bundle(text: &str) -> Result<Bundle> {
    Parser::new(text)?.bundle()
}

fn names(names: impl IntoIterator<Item = &'static str>) -> String {
    names.into_iter().collect::<Vec<_>>().join(", ")
}

impl Parser {
    fn shape(&mut self) -> Result<Shape> {
        self.list(Parser::size).map(Shape)
    }

    fn dtype(&mut self) -> Result<DType> {
        let expected = format!("an element type ({})", names(DType::ALL.map(DType::name)));
        self.word(expected, DType::from_name)
    }

    fn digest(&mut self) -> Result<Digest> {
        self.word("a digest of 64 lower-case hexadecimal digits", hex)
    }

    fn role(&mut self) -> Result<Role> {
        self.word(format!("a role ({})", names(Role::ALL.map(Role::name))), Role::from_name)
    }

    fn value(&mut self) -> Result<ValueId> {
        self.handle("a value, like `%0`", '%').map(ValueId)
    }

    fn value_type(&mut self) -> Result<ValueType> {
        // The kind is known before the shape is read; the shape is put in afterwards.
        let kind = |w: &str| -> Option<Box<dyn FnOnce(Shape) -> ValueType>> {
            if let Some(dtype) = DType::from_name(w) {
                return Some(Box::new(move |s| ValueType::Tensor(dtype, s)));
            }
            if w == "x" {
                return Some(Box::new(ValueType::Encoded));
            }
            let k = u32::try_from(digits(w.get(1..)?)?).ok()?;
            match w.get(..1)? {
                "z" => Some(Box::new(move |s| ValueType::Ring(k, s))),
                "y" => Some(Box::new(move |s| ValueType::Lifted(k, s))),
                "c" => Some(Box::new(move |s| ValueType::Checked(k, s))),
                _ => None,
            }
        };
        let kind = self.word("a type (`x`, an element type, or `z`, `y`, `c` with a width, like `z32`)", kind)?;
        self.shape().map(kind)
    }

    fn bundle(&mut self) -> Result<Bundle> {
        let mut bundle = Bundle {
            header: self.header()?,
            inputs: Vec::new(),
            outputs: Vec::new(),
            constants: Vec::new(),
            maps: Vec::new(),
            slots: Vec::new(),
            ranges: Vec::new(),
            programs: Vec::new(),
            cost: Cost::default(),
        };
        loop {
            let b = &mut bundle;
            let next = match &self.peek().token {
                Token::Word(word) => word.as_str(),
                _ => "",
            };
            match next {
                "input" => b.inputs.push(self.port()?),
                "output" => b.outputs.push(self.port()?),
                "constant" => b.constants.push(self.constant(b.constants.len())?),
                "map" => b.maps.push(self.map(b.maps.len())?),
                "slot" => b.slots.push(self.slot(b.slots.len())?),
                "range" => b.ranges.push(self.range(b.ranges.len())?),
                "cost" => break,
                word if Role::from_name(word).is_some() => b.programs.push(self.program()?),
                _ => {
                    let entries = "`input`, `output`, `constant`, `map`, `slot`, `range`, a role or `cost`";
                    return Err(self.peek().error(entries));
                }
            }
        }
        bundle.cost = self.cost()?;
        self.take("the end of the text", |t| (*t == Token::End).then_some(()))?;
        Ok(bundle)
    }

    fn header(&mut self) -> Result<Header> {
        self.keyword("bundle")?;
        self.word(format!("format version {FORMAT}"), |w| (digits(w)? == u64::from(FORMAT)).then_some(()))?;
        self.keyword("model")?;
        let (model, model_digest) = (self.quoted()?, self.digest()?);
        self.keyword("scheme")?;
        let scheme = self.quoted()?;
        self.keyword("precision")?;
        let precision = self.quoted()?;
        self.keyword("suite")?;
        let suite = self.quoted()?;
        self.keyword("total-mult-adds")?;
        let total_mult_adds = self.u64()?;
        Ok(Header { model, model_digest, scheme, precision, suite, total_mult_adds })
    }

    /// An input or output; its keyword is the next token. So it is for the entries below.
    fn port(&mut self) -> Result<Port> {
        self.skip();
        Ok(Port { name: self.quoted()?, dtype: self.dtype()?, shape: self.shape()? })
    }

    fn constant(&mut self, number: usize) -> Result<ConstDecl> {
        self.skip();
        self.defines('@', number)?;
        let (dtype, shape) = (self.dtype()?, self.shape()?);
        Ok(ConstDecl { digest: self.digest()?, dtype, shape })
    }

    fn map(&mut self, number: usize) -> Result<LinearMap> {
        self.skip();
        self.defines('$', number)?;
        let name = self.quoted()?;
        self.sign('{')?;
        let (mut inputs, mut ops) = (Vec::new(), Vec::new());
        while self.step_if(self.is_word(0, "param")) {
            self.defines('%', inputs.len())?;
            inputs.push(self.shape()?);
        }
        while !self.step_if(self.is_word(0, "return")) {
            if !matches!(self.peek().token, Token::Handle('%', _)) {
                return Err(self.peek().error(format!("`%{}` or `return`", inputs.len() + ops.len())));
            }
            self.defines('%', inputs.len() + ops.len())?;
            self.sign('=')?;
            ops.push(self.operation(MapOp::<ConstId>::TABLE, MapOp::<ConstId>::signature, MapOp::from_fields)?);
        }
        let output = self.value()?;
        self.sign('}')?;
        Ok(LinearMap { name, inputs, ops, output })
    }

    fn slot(&mut self, number: usize) -> Result<Slot> {
        self.skip();
        self.defines('#', number)?;
        let expected = format!("a kind of slot ({})", names(SlotKind::ALL.map(SlotKind::name)));
        let kind = self.word(expected, SlotKind::from_name)?;
        let k = self.word("a ring, like `z32`", |w| u32::try_from(digits(w.strip_prefix('z')?)?).ok())?;
        Ok(Slot { kind, k, shape: self.shape()?, name: self.quoted()? })
    }

    fn range(&mut self, number: usize) -> Result<Range> {
        self.skip();
        self.word(format!("`{number}`"), |w| (digits(w)? == number as u64).then_some(()))?;
        self.sign('{')?;
        let mut bounds = Vec::new();
        while !self.step_if(self.is_sign('}')) {
            if !self.step_if(self.is_word(0, "bound")) {
                return Err(self.peek().error("`bound` or `}`"));
            }
            bounds.push(self.bound()?);
        }
        Ok(Range { bounds })
    }

    /// `name=`
    fn named(&mut self, name: &str) -> Result<()> {
        self.keyword(name)?;
        self.sign('=')
    }

    /// `, name=[1,2]`
    fn more<T>(&mut self, name: &str, item: impl Fn(&mut Parser) -> Result<T>) -> Result<Vec<T>> {
        self.sign(',')?;
        self.named(name)?;
        self.list(item)
    }

    fn bound(&mut self) -> Result<Bound> {
        self.named("k")?;
        let k = self.u32()?;
        let major = self.more("major", Parser::u64)?;
        let minor = self.more("minor", Parser::u64)?;
        let square = self.more("square", Parser::u64)?;
        self.sign(',')?;
        self.named("patch")?;
        let patch = if self.step_if(self.is_word(0, "whole")) {
            Patch::Whole
        } else if self.step_if(self.is_word(0, "last-axis")) {
            Patch::LastAxis
        } else if self.step_if(self.is_word(0, "window")) {
            Patch::Window {
                kernel: self.more("kernel", Parser::size)?,
                strides: self.more("strides", Parser::size)?,
                dilations: self.more("dilations", Parser::size)?,
                pads_before: self.more("pads_before", Parser::size)?,
                pads_after: self.more("pads_after", Parser::size)?,
            }
        } else {
            return Err(self.peek().error("a patch (whole, last-axis, window)"));
        };
        Ok(Bound { k, major, minor, square, patch })
    }

    fn program(&mut self) -> Result<Program> {
        let mut program = Program::new(self.role()?);
        self.sign('{')?;
        while self.step_if(self.is_word(0, "param")) {
            self.defines('%', program.params.len())?;
            program.params.push(self.value_type()?);
        }
        let mut next = program.params.len();
        while !self.step_if(self.is_sign('}')) {
            program.steps.push(self.step(&mut next)?);
        }
        Ok(program)
    }

    /// A step; `next` is the number of the next value.
    fn step(&mut self, next: &mut usize) -> Result<Step> {
        let mut count = 0;
        if matches!(self.peek().token, Token::Handle(..)) {
            loop {
                self.defines('%', *next)?;
                (*next, count) = (*next + 1, count + 1);
                if !self.step_if(self.is_sign(',')) {
                    break;
                }
            }
            self.sign('=')?;
        }
        let op = self.operation(Op::TABLE, Op::signature, Op::from_fields)?;
        let mut results = Vec::new();
        for i in 0..count {
            self.sign(if i == 0 { ':' } else { ',' })?;
            results.push(self.value_type()?);
        }
        Ok(Step { op, results })
    }

    /// An operation of either table: its name and fields.
    fn operation<T>(
        &mut self,
        table: &[(u32, &'static str)],
        signature: impl Fn(u32) -> Option<Vec<(&'static str, Attr)>>,
        from_fields: impl Fn(u32, Vec<Attr>) -> Option<T>,
    ) -> Result<T> {
        let start = self.peek().clone();
        let expected = format!("an operation ({})", names(table.iter().map(|(_, name)| *name)));
        let (code, op) = self.word(expected, |w| table.iter().find(|(_, name)| *name == w).copied())?;
        let mut fields = Vec::new();
        // Whether a comma stands before the next field: not before the first, and not behind a role.
        let mut comma = false;
        for (name, sample) in signature(code).unwrap_or_default() {
            if let Attr::MaybeConst(_) = sample {
                let ahead = usize::from(comma);
                let equals = self.peek_at(ahead + 1).token == Token::Sign('=');
                if (comma && !self.is_sign(',')) || !self.is_word(ahead, name) || !equals {
                    fields.push(Attr::MaybeConst(None));
                    continue;
                }
            }
            if comma {
                self.sign(',')?;
            }
            comma = !matches!(sample, Attr::Role(_));
            fields.push(self.field(op, name, &sample)?);
        }
        // Kinds are right by now; only a size can be beyond this machine's `usize`.
        from_fields(code, fields).ok_or_else(|| start.error(format!("fields of `{op}` that fit this machine")))
    }

    fn field(&mut self, op: &str, name: &str, sample: &Attr) -> Result<Attr> {
        let expected = |sigil: char| format!("`{name}` of `{op}`, like `{sigil}0`");
        if let Attr::Int(_) | Attr::Ints(_) | Attr::MaybeConst(_) = sample {
            self.word(format!("`{name}` of `{op}`"), |w| (w == name).then_some(()))?;
            self.sign('=')?;
        }
        Ok(match sample {
            Attr::Value(_) => Attr::Value(ValueId(self.handle(expected('%'), '%')?)),
            Attr::Values(_) => Attr::Values(self.list(Parser::value)?),
            Attr::Slot(_) => Attr::Slot(SlotId(self.handle(expected('#'), '#')?)),
            Attr::Map(_) => Attr::Map(MapId(self.handle(expected('$'), '$')?)),
            Attr::Const(_) => Attr::Const(ConstId(self.handle(expected('@'), '@')?)),
            Attr::MaybeConst(_) => Attr::MaybeConst(Some(ConstId(self.handle(expected('@'), '@')?))),
            Attr::Role(_) => Attr::Role(self.role()?),
            Attr::Int(_) => Attr::Int(self.u64()?),
            Attr::Ints(_) => Attr::Ints(self.list(Parser::u64)?),
        })
    }

    fn cost(&mut self) -> Result<Cost> {
        self.keyword("cost")?;
        let mut first = true;
        let mut next = |name: &str| {
            if !std::mem::take(&mut first) {
                self.sign(',')?;
            }
            self.named(name)?;
            self.u64()
        };
        Ok(Cost {
            rounds: next("rounds")?,
            bytes_up: next("bytes_up")?,
            bytes_down: next("bytes_down")?,
            bytes_edge_link: next("bytes_edge_link")?,
            mult_adds_edge_a: next("mult_adds_edge_a")?,
            mult_adds_edge_b: next("mult_adds_edge_b")?,
        })
    }
}

fn hex(word: &str) -> Option<Digest> {
    let nibble = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = word.as_bytes().as_chunks::<2>();
    let bytes: Vec<u8> = pairs.iter().map(|[hi, lo]| Some(nibble(*hi)? << 4 | nibble(*lo)?)).collect::<Option<_>>()?;
    if rest.is_empty() { bytes.try_into().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_64_lower_case_digits() {
        let good = "0123456789abcdef".repeat(4);
        assert_eq!(hex(&good).map(|d| d[..3].to_vec()), Some(vec![0x01, 0x23, 0x45]));
        for bad in [&good[1..], &format!("{good}0"), &good.to_uppercase(), &good.replace('f', "g"), ""] {
            assert_eq!(hex(bad), None, "{bad}");
        }
    }

    /// `param` and `return` head lines of programs and maps: no operation may be called `param`, no map operation
    /// `return`, and no role like an entry.
    #[test]
    fn keywords_are_no_names_of_operations() {
        assert!(Op::TABLE.iter().all(|(_, name)| *name != "param"));
        assert!(MapOp::<ConstId>::TABLE.iter().all(|(_, name)| *name != "return"));
        let entries = ["input", "output", "constant", "map", "slot", "range", "cost"];
        assert!(entries.iter().all(|word| Role::from_name(word).is_none()));
    }
}
