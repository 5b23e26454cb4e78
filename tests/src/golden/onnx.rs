//! The little of the ONNX format that the cases need, written and read by hand: no exporter, no dependency.

/// Fields of a protobuf message.
#[derive(Clone, Debug, Default)]
pub struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut v: u64) {
        while v >= 0x80 {
            self.0.push(v as u8 | 0x80);
            v >>= 7;
        }
        self.0.push(v as u8);
    }

    /// A field of bytes: a string or a message.
    #[must_use]
    pub fn bytes(mut self, field: u64, bytes: &[u8]) -> Message {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    /// A string.
    #[must_use]
    pub fn text(self, field: u64, text: &str) -> Message {
        self.bytes(field, text.as_bytes())
    }

    /// A message.
    #[must_use]
    pub fn message(self, field: u64, message: Message) -> Message {
        self.bytes(field, &message.0)
    }

    /// An integer.
    #[must_use]
    pub fn int(mut self, field: u64, v: i64) -> Message {
        self.varint(field << 3);
        self.varint(v as u64);
        self
    }

    /// A single-precision number.
    #[must_use]
    pub fn float(mut self, field: u64, v: f32) -> Message {
        self.varint(field << 3 | 5);
        self.0.extend_from_slice(&v.to_le_bytes());
        self
    }

    /// The encoded message.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// The operators of a model's nodes, in order, without repeats next to each other; `None` if it is not a model.
pub fn operators(model: &[u8]) -> Option<Vec<String>> {
    let mut found: Vec<String> = Vec::new();
    for (_, graph) in fields(model)?.into_iter().filter(|(n, _)| *n == 7) {
        for (_, node) in fields(graph)?.into_iter().filter(|(n, _)| *n == 1) {
            for (_, op) in fields(node)?.into_iter().filter(|(n, _)| *n == 4) {
                let op = String::from_utf8_lossy(op).into_owned();
                if found.last() != Some(&op) {
                    found.push(op);
                }
            }
        }
    }
    Some(found)
}

/// Number and bytes of the fields of a message; numbers have no bytes.
fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, &[u8])>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let len = match tag & 7 {
            0 => varint(&mut bytes).map(|_| 0)?,
            1 => 8,
            2 => usize::try_from(varint(&mut bytes)?).ok()?,
            5 => 4,
            _ => return None,
        };
        found.push((tag >> 3, bytes.get(..len)?));
        bytes = bytes.get(len..)?;
    }
    Some(found)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let len = bytes.iter().position(|b| *b < 0x80)? + 1;
    let value = bytes.iter().take(len).rev().fold(0u64, |v, b| v << 7 | u64::from(b & 0x7f));
    *bytes = bytes.get(len..)?;
    Some(value)
}
