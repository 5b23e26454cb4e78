//! Frames: `length: u32 LE` (bytes of the body), `kind: u8`, body.
//!
//! A decoder never allocates more than its [`Limits`] allow, and refuses a length from the header alone. The payload
//! of a bulk frame arrives in a `Vec` of its own: a transport reads it straight from the socket into
//! [`FrameAssembler::space`], so it is never copied through a codec.

use crate::error::{Invalid, WireError};
use crate::kind::Kind;

/// Bytes of a frame header.
pub const HEADER_LEN: usize = 5;

/// What a connection accepts from its peer at this time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of the body of a control frame.
    pub control: u32,
    /// Most bytes of a payload; 0 before the handshake is over.
    pub payload: u32,
}

impl Limits {
    /// Enough for every control message, no payload: for the time before the peer is known.
    pub fn handshake() -> Limits {
        Limits { control: 1024, payload: 0 }
    }

    /// As [`Limits::handshake`], with payloads of up to this many bytes: the largest slot of the plan that the peer
    /// may send.
    pub fn with_payload(payload: u32) -> Limits {
        Limits { payload, ..Limits::handshake() }
    }
}

/// The five bytes before a body, understood and found acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Message type.
    pub kind: Kind,
    /// Bytes of the fixed part of the body.
    pub fixed: usize,
    /// Bytes of the payload after it; 0 for a control message.
    pub payload: usize,
}

impl FrameHeader {
    /// Reads a header; nothing is allocated.
    ///
    /// # Errors
    /// [`Invalid::UnknownKind`]; [`Invalid::Length`] for a body that is too short or too long for its type or exceeds
    /// the limits.
    pub fn parse(bytes: &[u8; HEADER_LEN], limits: &Limits) -> Result<FrameHeader, WireError> {
        let [a, b, c, d, code] = *bytes;
        let length = u32::from_le_bytes([a, b, c, d]);
        let kind = Kind::of_code(code).ok_or(Invalid::UnknownKind(code))?;
        let (min, fixed_max) = (kind.fixed_min() as u64, kind.fixed_max() as u64);
        let max = if kind.is_bulk() {
            fixed_max + u64::from(limits.payload)
        } else {
            fixed_max.min(u64::from(limits.control))
        };
        let refused = WireError::from(Invalid::Length { kind, length: length.into(), min, max });
        if u64::from(length) < min || u64::from(length) > max {
            return Err(refused);
        }
        let Ok(length) = usize::try_from(length) else {
            return Err(refused);
        };
        if kind.is_bulk() {
            let fixed = kind.fixed_min();
            Ok(FrameHeader { kind, fixed, payload: length - fixed })
        } else {
            Ok(FrameHeader { kind, fixed: length, payload: 0 })
        }
    }

    /// Bytes of the whole frame, header included.
    pub fn frame_len(&self) -> u64 {
        (HEADER_LEN + self.fixed) as u64 + self.payload as u64
    }
}

/// One complete frame.
#[derive(PartialEq, Eq)]
pub struct Frame {
    /// Message type.
    pub kind: Kind,
    /// The fixed part of the body: all of it for a control message.
    pub fixed: Vec<u8>,
    /// The payload of a bulk message; empty otherwise.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Bytes of the frame on the wire, header included.
    pub fn wire_len(&self) -> u64 {
        (HEADER_LEN + self.fixed.len()) as u64 + self.payload.len() as u64
    }
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frame")
            .field("kind", &self.kind)
            .field("fixed_bytes", &self.fixed.len())
            .field("payload_bytes", &self.payload.len())
            .finish()
    }
}

/// Where the next bytes go.
enum Part {
    Header { bytes: [u8; HEADER_LEN] },
    Fixed { header: FrameHeader, bytes: Vec<u8> },
    Payload { header: FrameHeader, fixed: Vec<u8>, bytes: Vec<u8> },
    Failed(WireError),
}

/// Builds frames out of bytes that the caller writes where [`FrameAssembler::space`] points. It keeps its place, so a
/// read that is given up half way and resumed later loses nothing.
pub struct FrameAssembler {
    limits: Limits,
    part: Part,
    filled: usize,
}

impl FrameAssembler {
    /// An assembler at the start of a frame.
    pub fn new(limits: Limits) -> FrameAssembler {
        FrameAssembler { limits, part: Part::Header { bytes: [0; HEADER_LEN] }, filled: 0 }
    }

    /// Changes what later headers are measured against.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Whether no byte of the next frame has come yet: the only place where a peer may close.
    pub fn at_boundary(&self) -> bool {
        matches!(self.part, Part::Header { .. }) && self.filled == 0
    }

    /// Where the next bytes belong; empty only after an error. The slice is initialised memory.
    pub fn space(&mut self) -> &mut [u8] {
        let filled = self.filled;
        match &mut self.part {
            Part::Header { bytes } => bytes.get_mut(filled..).unwrap_or_default(),
            Part::Fixed { bytes, .. } | Part::Payload { bytes, .. } => bytes.get_mut(filled..).unwrap_or_default(),
            Part::Failed(_) => &mut [],
        }
    }

    /// Tells that the first `count` bytes of [`FrameAssembler::space`] were written; gives the frame they complete.
    ///
    /// # Errors
    /// As [`FrameHeader::parse`]; the error repeats for ever after.
    pub fn advance(&mut self, count: usize) -> Result<Option<Frame>, WireError> {
        let room = self.space().len();
        if let Part::Failed(error) = &self.part {
            return Err(error.clone());
        }
        self.filled += count.min(room);
        if count < room {
            return Ok(None);
        }
        self.filled = 0;
        let part = std::mem::replace(&mut self.part, Part::Header { bytes: [0; HEADER_LEN] });
        match part {
            Part::Header { bytes } => match FrameHeader::parse(&bytes, &self.limits) {
                Ok(header) if header.fixed == 0 && header.payload == 0 => {
                    Ok(Some(Frame { kind: header.kind, fixed: Vec::new(), payload: Vec::new() }))
                }
                Ok(header) => {
                    self.part = Part::Fixed { header, bytes: vec![0; header.fixed] };
                    Ok(None)
                }
                Err(error) => {
                    self.part = Part::Failed(error.clone());
                    Err(error)
                }
            },
            Part::Fixed { header, bytes } if header.payload == 0 => {
                Ok(Some(Frame { kind: header.kind, fixed: bytes, payload: Vec::new() }))
            }
            Part::Fixed { header, bytes } => {
                // `vec![0; n]` asks the allocator for zeroed pages: they are touched only when the bytes come.
                self.part = Part::Payload { header, fixed: bytes, bytes: vec![0; header.payload] };
                Ok(None)
            }
            Part::Payload { header, fixed, bytes } => Ok(Some(Frame { kind: header.kind, fixed, payload: bytes })),
            Part::Failed(error) => Err(error),
        }
    }

    /// Takes bytes from the front of `input` until a frame is complete or the input is used up.
    ///
    /// # Errors
    /// As [`FrameAssembler::advance`].
    pub fn feed(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, WireError> {
        loop {
            let space = self.space();
            let count = space.len().min(input.len());
            let (now, later) = input.split_at(count);
            if let Some(target) = space.get_mut(..count) {
                target.copy_from_slice(now);
            }
            *input = later;
            let frame = self.advance(count)?;
            if frame.is_some() || input.is_empty() {
                return Ok(frame);
            }
        }
    }
}

/// Incremental decoder for callers that already hold bytes: push what came, take out frames until there are none. It
/// holds what was pushed and not yet taken; a caller that reads from a socket bounds that by taking before pushing.
pub struct FrameDecoder {
    assembler: FrameAssembler,
    pending: Vec<u8>,
    used: usize,
}

impl FrameDecoder {
    /// An empty decoder.
    pub fn new(limits: Limits) -> FrameDecoder {
        FrameDecoder { assembler: FrameAssembler::new(limits), pending: Vec::new(), used: 0 }
    }

    /// Changes what later headers are measured against.
    pub fn set_limits(&mut self, limits: Limits) {
        self.assembler.set_limits(limits);
    }

    /// Adds bytes at the end.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The next complete frame, if it is there.
    ///
    /// # Errors
    /// As [`FrameHeader::parse`]; the error repeats for ever after.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, WireError> {
        let mut rest = self.pending.get(self.used..).unwrap_or_default();
        let before = rest.len();
        let frame = self.assembler.feed(&mut rest)?;
        self.used += before - rest.len();
        if self.used == self.pending.len() {
            self.pending.clear();
            self.used = 0;
        }
        Ok(frame)
    }

    /// Whether all bytes so far made whole frames.
    pub fn at_boundary(&self) -> bool {
        self.pending.is_empty() && self.assembler.at_boundary()
    }
}
