//! Message <-> frame. All numbers little-endian, all layouts fixed; a text is a `u16` byte count and UTF-8 at the end of
//! the body; an optional field is a byte 0 or 1 and the field, zero where absent. One message has one encoding: the
//! decoder refuses every other.
//!
//! | type | fixed part of the body |
//! |---|---|
//! | Hello | version u16, role u8, device \[16\], bundle \[32\], flags u32 |
//! | Welcome | version u16, mark? u64, in-flight u32 |
//! | Refuse | code u16, detail u64, text |
//! | Ping, Pong | token u64 |
//! | Abort | sid? \[16\], request u64, code u16, slot? u32, text |
//! | Goodbye | nothing |
//! | OpenSession | epoch u64, nonce \[32\] |
//! | SessionOpen, Attach, SessionClosed | sid \[16\] |
//! | EpochBehind | highest u64 |
//! | Begin | request u64 |
//! | Data | request u64, slot u32; then the payload |
//! | Session | sid \[16\], device \[16\], bundle \[32\] |
//! | Credit | sid \[16\], upto-request u64 |
//! | Correction | sid \[16\], request u64, slot u32; then the payload |

use zeroize::{Zeroize, Zeroizing};

use crate::error::{Invalid, Misuse, WireError};
use crate::frame::{Frame, HEADER_LEN};
use crate::kind::Kind;
use crate::message::{
    Abort, AbortCode, Correction, Data, Hello, Message, PeerRole, Refuse, RefuseCode, Session, SessionNonce, Sid,
    Welcome,
};
use crate::text::Text;

/// Longest header of a bulk frame in bytes.
const BULK_MAX: usize = HEADER_LEN + 28;

/// Frame header and fixed part of a bulk message; the payload follows it on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BulkHeader {
    bytes: [u8; BULK_MAX],
    len: usize,
    payload: usize,
}

impl BulkHeader {
    /// The bytes to send before the payload.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&self.bytes)
    }

    /// Bytes of payload that must follow.
    pub fn payload_len(&self) -> usize {
        self.payload
    }

    fn new(kind: Kind, payload: usize, fields: &[&[u8]]) -> Result<BulkHeader, WireError> {
        let length = u32::try_from(payload).ok().and_then(|n| n.checked_add(kind.fixed_min() as u32));
        let length = length.ok_or(Misuse::TooLong { kind, bytes: payload })?;
        let mut header = BulkHeader { bytes: [0; BULK_MAX], len: 0, payload };
        header.put(&length.to_le_bytes());
        header.put(&[kind.code()]);
        for field in fields {
            header.put(field);
        }
        Ok(header)
    }

    fn put(&mut self, field: &[u8]) {
        for (to, from) in self.bytes.iter_mut().skip(self.len).zip(field) {
            *to = *from;
        }
        self.len += field.len();
    }
}

/// Header of a `Data` frame with a payload of so many bytes.
///
/// # Errors
/// [`Misuse::TooLong`] if header and payload exceed 4 GiB.
pub fn encode_data_header(request: u64, slot: u32, payload: usize) -> Result<BulkHeader, WireError> {
    BulkHeader::new(Kind::Data, payload, &[&request.to_le_bytes(), &slot.to_le_bytes()])
}

/// Header of a `Correction` frame with a payload of so many bytes.
///
/// # Errors
/// [`Misuse::TooLong`] if header and payload exceed 4 GiB.
pub fn encode_correction_header(sid: &Sid, request: u64, slot: u32, payload: usize) -> Result<BulkHeader, WireError> {
    BulkHeader::new(Kind::Correction, payload, &[sid, &request.to_le_bytes(), &slot.to_le_bytes()])
}

/// The whole frame of a message, header included. For bulk messages prefer the header functions, which copy no payload.
///
/// # Errors
/// [`Misuse::TooLong`] if a payload does not fit a frame.
pub fn encode(message: &Message) -> Result<Zeroizing<Vec<u8>>, WireError> {
    let mut frame = Zeroizing::new(Vec::new());
    encode_into(message, &mut frame)?;
    Ok(frame)
}

/// As [`encode`], appended to `frame`.
///
/// # Errors
/// As [`encode`]; `frame` is then as before.
pub fn encode_into(message: &Message, frame: &mut Vec<u8>) -> Result<(), WireError> {
    match message {
        Message::Data(data) => {
            let header = encode_data_header(data.request, data.slot, data.payload.len())?;
            frame.extend_from_slice(header.as_bytes());
            frame.extend_from_slice(&data.payload);
        }
        Message::Correction(correction) => {
            let Correction { sid, request, slot, payload } = correction;
            let header = encode_correction_header(sid, *request, *slot, payload.len())?;
            frame.extend_from_slice(header.as_bytes());
            frame.extend_from_slice(payload);
        }
        control => {
            // Control bodies are at most `Kind::fixed_max` bytes, so the length is written in full and never wraps.
            let start = frame.len();
            frame.reserve(HEADER_LEN + control.kind().fixed_max());
            frame.extend_from_slice(&[0, 0, 0, 0, control.kind().code()]);
            put_control(control, frame);
            let length = (frame.len() - start - HEADER_LEN) as u32;
            for (to, from) in frame.iter_mut().skip(start).zip(length.to_le_bytes()) {
                *to = from;
            }
        }
    }
    Ok(())
}

/// Writes the body of a control message.
fn put_control(message: &Message, out: &mut Vec<u8>) {
    match message {
        Message::Hello(hello) => {
            out.extend_from_slice(&hello.version.to_le_bytes());
            out.push(hello.role.code());
            out.extend_from_slice(&hello.device);
            out.extend_from_slice(&hello.bundle);
            out.extend_from_slice(&hello.flags.to_le_bytes());
        }
        Message::Welcome(welcome) => {
            out.extend_from_slice(&welcome.version.to_le_bytes());
            out.push(welcome.mark.is_some().into());
            out.extend_from_slice(&welcome.mark.unwrap_or(0).to_le_bytes());
            out.extend_from_slice(&welcome.in_flight.to_le_bytes());
        }
        Message::Refuse(refuse) => {
            let (code, detail) = refuse.code.parts();
            out.extend_from_slice(&code.to_le_bytes());
            out.extend_from_slice(&detail.to_le_bytes());
            put_text(&refuse.message, out);
        }
        Message::Ping { token } | Message::Pong { token } => out.extend_from_slice(&token.to_le_bytes()),
        Message::Abort(abort) => {
            out.push(abort.sid.is_some().into());
            out.extend_from_slice(&abort.sid.unwrap_or([0; 16]));
            out.extend_from_slice(&abort.request.to_le_bytes());
            out.extend_from_slice(&abort.code.code().to_le_bytes());
            out.push(abort.slot.is_some().into());
            out.extend_from_slice(&abort.slot.unwrap_or(0).to_le_bytes());
            put_text(&abort.message, out);
        }
        Message::Goodbye => {}
        Message::OpenSession { epoch, nonce } => {
            out.extend_from_slice(&epoch.to_le_bytes());
            out.extend_from_slice(nonce.as_bytes());
        }
        Message::SessionOpen { sid } | Message::Attach { sid } | Message::SessionClosed { sid } => {
            out.extend_from_slice(sid);
        }
        Message::EpochBehind { highest } => out.extend_from_slice(&highest.to_le_bytes()),
        Message::Begin { request } => out.extend_from_slice(&request.to_le_bytes()),
        Message::Session(session) => {
            out.extend_from_slice(&session.sid);
            out.extend_from_slice(&session.device);
            out.extend_from_slice(&session.bundle);
        }
        Message::Credit { sid, upto_request } => {
            out.extend_from_slice(sid);
            out.extend_from_slice(&upto_request.to_le_bytes());
        }
        // Bulk messages were dealt with by the caller, which needs to see their length first.
        Message::Data(_) | Message::Correction(_) => {}
    }
}

fn put_text(text: &Text, out: &mut Vec<u8>) {
    // A text is at most `Text::MAX` = 512 bytes.
    out.extend_from_slice(&(text.as_str().len() as u16).to_le_bytes());
    out.extend_from_slice(text.as_str().as_bytes());
}

/// The message in a frame. A payload is moved, not copied.
///
/// # Errors
/// [`Invalid`]: cut short, bytes left over, a code or text outside its set.
pub fn decode(frame: Frame) -> Result<Message, WireError> {
    let Frame { kind, mut fixed, payload } = frame;
    let mut fields = Fields { kind, rest: &fixed };
    let message = take_message(&mut fields, payload);
    let message = message.and_then(|message| fields.finish().map(|()| message));
    if kind == Kind::OpenSession {
        fixed.zeroize();
    }
    message.map_err(WireError::from)
}

fn take_message(fields: &mut Fields<'_>, payload: Vec<u8>) -> Result<Message, Invalid> {
    let kind = fields.kind;
    if !kind.is_bulk() && !payload.is_empty() {
        return Err(Invalid::Trailing { kind, extra: payload.len() });
    }
    Ok(match kind {
        Kind::Hello => Message::Hello(Hello {
            version: fields.u16("version")?,
            role: fields.code("role", |f| Ok(PeerRole::of_code(f.u8("role")?)))?,
            device: fields.array("device")?,
            bundle: fields.array("bundle")?,
            flags: fields.u32("flags")?,
        }),
        Kind::Welcome => Message::Welcome(Welcome {
            version: fields.u16("version")?,
            mark: fields.optional("mark")?.map(u64::from_le_bytes),
            in_flight: fields.u32("in-flight")?,
        }),
        Kind::Refuse => Message::Refuse(Refuse {
            code: fields.code("code", |f| Ok(RefuseCode::of_parts(f.u16("code")?, f.u64("detail")?)))?,
            message: fields.text("message")?,
        }),
        Kind::Ping => Message::Ping { token: fields.u64("token")? },
        Kind::Pong => Message::Pong { token: fields.u64("token")? },
        Kind::Abort => Message::Abort(Abort {
            sid: fields.optional("sid")?,
            request: fields.u64("request")?,
            code: fields.code("code", |f| Ok(AbortCode::of_code(f.u16("code")?)))?,
            slot: fields.optional("slot")?.map(u32::from_le_bytes),
            message: fields.text("message")?,
        }),
        Kind::Goodbye => Message::Goodbye,
        Kind::OpenSession => {
            Message::OpenSession { epoch: fields.u64("epoch")?, nonce: SessionNonce::new(fields.array("nonce")?) }
        }
        Kind::SessionOpen => Message::SessionOpen { sid: fields.array("sid")? },
        Kind::EpochBehind => Message::EpochBehind { highest: fields.u64("highest")? },
        Kind::Attach => Message::Attach { sid: fields.array("sid")? },
        Kind::Begin => Message::Begin { request: fields.u64("request")? },
        Kind::Data => Message::Data(Data { request: fields.u64("request")?, slot: fields.u32("slot")?, payload }),
        Kind::Session => Message::Session(Session {
            sid: fields.array("sid")?,
            device: fields.array("device")?,
            bundle: fields.array("bundle")?,
        }),
        Kind::SessionClosed => Message::SessionClosed { sid: fields.array("sid")? },
        Kind::Credit => Message::Credit { sid: fields.array("sid")?, upto_request: fields.u64("upto-request")? },
        Kind::Correction => Message::Correction(Correction {
            sid: fields.array("sid")?,
            request: fields.u64("request")?,
            slot: fields.u32("slot")?,
            payload,
        }),
    })
}

/// Reads fields off the front of a body.
struct Fields<'a> {
    kind: Kind,
    rest: &'a [u8],
}

impl Fields<'_> {
    fn take(&mut self, count: usize, field: &'static str) -> Result<&[u8], Invalid> {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            return Err(Invalid::Truncated { kind: self.kind, field, missing: count - self.rest.len() });
        };
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Invalid> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, field)?);
        Ok(array)
    }

    fn u8(&mut self, field: &'static str) -> Result<u8, Invalid> {
        self.array(field).map(u8::from_le_bytes)
    }

    fn u16(&mut self, field: &'static str) -> Result<u16, Invalid> {
        self.array(field).map(u16::from_le_bytes)
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, Invalid> {
        self.array(field).map(u32::from_le_bytes)
    }

    fn u64(&mut self, field: &'static str) -> Result<u64, Invalid> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// A value of a closed set.
    fn code<T>(
        &mut self,
        field: &'static str,
        read: impl FnOnce(&mut Self) -> Result<Option<T>, Invalid>,
    ) -> Result<T, Invalid> {
        let kind = self.kind;
        read(self)?.ok_or(Invalid::Field { kind, field })
    }

    /// A presence byte and `N` bytes, zero where absent.
    fn optional<const N: usize>(&mut self, field: &'static str) -> Result<Option<[u8; N]>, Invalid> {
        let present = self.u8(field)?;
        let bytes = self.array::<N>(field)?;
        match present {
            0 if bytes == [0; N] => Ok(None),
            1 => Ok(Some(bytes)),
            _ => Err(Invalid::Field { kind: self.kind, field }),
        }
    }

    fn text(&mut self, field: &'static str) -> Result<Text, Invalid> {
        let kind = self.kind;
        let count = self.u16(field)?;
        let bytes = self.take(count.into(), field)?;
        std::str::from_utf8(bytes).ok().and_then(Text::exact).ok_or(Invalid::Field { kind, field })
    }

    fn finish(&self) -> Result<(), Invalid> {
        if self.rest.is_empty() { Ok(()) } else { Err(Invalid::Trailing { kind: self.kind, extra: self.rest.len() }) }
    }
}
