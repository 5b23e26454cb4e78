//! Arbitrary messages survive the round trip; arbitrary bytes never do harm.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pponnx_wire::codec;
use pponnx_wire::{
    Abort, AbortCode, Correction, Data, Frame, FrameAssembler, FrameDecoder, FrameHeader, HEADER_LEN, Hello, Invalid,
    Kind, Limits, Message, PeerRole, Refuse, RefuseCode, Session, SessionNonce, Text, Welcome, WireError,
};
use proptest::collection::vec;
use proptest::prelude::*;

const LIMITS: Limits = Limits { control: 1024, payload: 300 };

fn text() -> impl Strategy<Value = Text> {
    any::<String>().prop_map(|s| Text::new(&s))
}

fn refuse_code() -> impl Strategy<Value = RefuseCode> {
    prop_oneof![
        Just(RefuseCode::Version),
        Just(RefuseCode::UnknownDevice),
        Just(RefuseCode::UnknownBundle),
        Just(RefuseCode::WrongRole),
        Just(RefuseCode::Busy),
        Just(RefuseCode::StaleRequest),
        any::<u64>().prop_map(|highest| RefuseCode::EpochBehind { highest }),
        Just(RefuseCode::Internal),
        Just(RefuseCode::ShuttingDown),
    ]
}

fn abort_code() -> impl Strategy<Value = AbortCode> {
    (1u16..=8).prop_map(|code| AbortCode::of_code(code).unwrap())
}

fn role() -> impl Strategy<Value = PeerRole> {
    (1u8..=3).prop_map(|code| PeerRole::of_code(code).unwrap())
}

fn control() -> impl Strategy<Value = Message> {
    let hello = (any::<u16>(), role(), any::<[u8; 16]>(), any::<[u8; 32]>(), any::<u32>()).prop_map(
        |(version, role, device, bundle, flags)| Message::Hello(Hello { version, role, device, bundle, flags }),
    );
    let welcome = (any::<u16>(), any::<Option<u64>>(), any::<u32>())
        .prop_map(|(version, mark, in_flight)| Message::Welcome(Welcome { version, mark, in_flight }));
    let refuse = (refuse_code(), text()).prop_map(|(code, message)| Message::Refuse(Refuse { code, message }));
    let abort = (any::<Option<[u8; 16]>>(), any::<u64>(), abort_code(), any::<Option<u32>>(), text())
        .prop_map(|(sid, request, code, slot, message)| Message::Abort(Abort { sid, request, code, slot, message }));
    let open = (any::<u64>(), any::<[u8; 32]>())
        .prop_map(|(epoch, nonce)| Message::OpenSession { epoch, nonce: SessionNonce::new(nonce) });
    prop_oneof![
        hello,
        welcome,
        refuse,
        any::<u64>().prop_map(|token| Message::Ping { token }),
        any::<u64>().prop_map(|token| Message::Pong { token }),
        abort,
        Just(()).prop_map(|()| Message::Goodbye),
        open,
        any::<[u8; 16]>().prop_map(|sid| Message::SessionOpen { sid }),
        any::<u64>().prop_map(|highest| Message::EpochBehind { highest }),
        any::<[u8; 16]>().prop_map(|sid| Message::Attach { sid }),
        any::<u64>().prop_map(|request| Message::Begin { request }),
        (any::<[u8; 16]>(), any::<[u8; 16]>(), any::<[u8; 32]>())
            .prop_map(|(sid, device, bundle)| Message::Session(Session { sid, device, bundle })),
        any::<[u8; 16]>().prop_map(|sid| Message::SessionClosed { sid }),
        (any::<[u8; 16]>(), any::<u64>()).prop_map(|(sid, upto_request)| Message::Credit { sid, upto_request }),
    ]
}

fn bulk() -> impl Strategy<Value = Message> {
    let payload = || vec(any::<u8>(), 0..=300);
    prop_oneof![
        (any::<u64>(), any::<u32>(), payload()).prop_map(|(request, slot, payload)| Message::Data(Data {
            request,
            slot,
            payload
        })),
        (any::<[u8; 16]>(), any::<u64>(), any::<u32>(), payload())
            .prop_map(|(sid, request, slot, payload)| Message::Correction(Correction { sid, request, slot, payload })),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    prop_oneof![3 => control(), 1 => bulk()]
}

proptest! {
    #[test]
    fn messages_survive_any_cutting(messages in vec(message(), 1..8), cuts in vec(1usize..200, 1..20)) {
        let mut stream = Vec::new();
        for message in &messages {
            codec::encode_into(message, &mut stream).unwrap();
        }
        let mut decoder = FrameDecoder::new(LIMITS);
        let mut found = Vec::new();
        let (mut rest, mut cuts) = (stream.as_slice(), cuts.iter().cycle());
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
            rest = later;
            decoder.push(now);
            while let Some(frame) = decoder.next_frame().unwrap() {
                found.push(codec::decode(frame).unwrap());
            }
        }
        prop_assert_eq!(found, messages);
        prop_assert!(decoder.at_boundary());
    }

    #[test]
    fn bulk_header_and_payload_are_the_frame(request: u64, slot: u32, sid: [u8; 16], payload in vec(any::<u8>(), 0..100)) {
        let data = codec::encode_data_header(request, slot, payload.len()).unwrap();
        let whole = codec::encode(&Message::Data(Data { request, slot, payload: payload.clone() })).unwrap();
        prop_assert_eq!([data.as_bytes(), &payload].concat(), whole.to_vec());
        let correction = codec::encode_correction_header(&sid, request, slot, payload.len()).unwrap();
        let whole = codec::encode(&Message::Correction(Correction { sid, request, slot, payload: payload.clone() })).unwrap();
        prop_assert_eq!([correction.as_bytes(), &payload].concat(), whole.to_vec());
    }

    #[test]
    fn truncated_and_padded_bodies_are_refused(message in control(), padding in 1usize..4) {
        let bytes = codec::encode(&message).unwrap();
        let body = &bytes[HEADER_LEN..];
        let kind = message.kind();
        for cut in 0..body.len() {
            let frame = Frame { kind, fixed: body[..cut].to_vec(), payload: Vec::new() };
            let error = codec::decode(frame).unwrap_err();
            prop_assert!(matches!(error, WireError::InvalidMessage(Invalid::Truncated { .. })), "{} of {}: {}", cut, kind, error);
        }
        let longer = Frame { kind, fixed: [body, &vec![0; padding]].concat(), payload: Vec::new() };
        prop_assert_eq!(codec::decode(longer).unwrap_err(), Invalid::Trailing { kind, extra: padding }.into());
        let with_payload = Frame { kind, fixed: body.to_vec(), payload: vec![0; padding] };
        prop_assert_eq!(codec::decode(with_payload).unwrap_err(), Invalid::Trailing { kind, extra: padding }.into());
    }

    /// Whatever decodes is encoded to the same bytes again: one message, one encoding.
    #[test]
    fn random_bodies_decode_canonically_or_not_at_all(kind in 0..Kind::ALL.len(), mut body in vec(any::<u8>(), 0..700), tame: bool) {
        let kind = Kind::ALL[kind];
        if tame {
            // Small bytes and a fitting length make it likely that something decodes.
            body.iter_mut().for_each(|byte| *byte &= 1);
            body.resize(kind.fixed_min(), 0);
        }
        if let Ok(message) = codec::decode(Frame { kind, fixed: body.clone(), payload: Vec::new() }) {
            prop_assert_eq!(&codec::encode(&message).unwrap()[HEADER_LEN..], body.as_slice());
        }
    }

    #[test]
    fn random_streams_never_panic_and_errors_stay(bytes in vec(any::<u8>(), 0..400), kind in 0..Kind::ALL.len(), length in 0u32..400) {
        let mut stream = length.to_le_bytes().to_vec();
        stream.push(Kind::ALL[kind].code());
        stream.extend(bytes);
        let mut decoder = FrameDecoder::new(LIMITS);
        decoder.push(&stream);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => drop(codec::decode(frame)),
                Ok(None) => break,
                Err(error) => {
                    decoder.push(&codec::encode(&Message::Goodbye).unwrap());
                    prop_assert_eq!(decoder.next_frame().unwrap_err(), error);
                    break;
                }
            }
        }
    }

    /// A header is accepted exactly if the type exists and the length is one it can have under the limits.
    #[test]
    fn headers_are_judged_before_anything_is_allocated(length in prop_oneof![0u32..700, any::<u32>()], code: u8, control in 0u32..700, payload in prop_oneof![0u32..700, any::<u32>()]) {
        let [a, b, c, d] = length.to_le_bytes();
        let verdict = FrameHeader::parse(&[a, b, c, d, code], &Limits { control, payload });
        let Some(kind) = Kind::of_code(code) else {
            prop_assert_eq!(verdict.unwrap_err(), Invalid::UnknownKind(code).into());
            return Ok(());
        };
        let most = if kind.is_bulk() { kind.fixed_max() as u64 + u64::from(payload) } else { (kind.fixed_max() as u64).min(control.into()) };
        let fits = (kind.fixed_min() as u64..=most).contains(&u64::from(length));
        prop_assert_eq!(verdict.is_ok(), fits);
        if let Ok(header) = verdict {
            prop_assert_eq!(header.frame_len(), HEADER_LEN as u64 + u64::from(length));
        }
    }
}

#[test]
fn a_huge_length_is_refused_from_five_bytes() {
    for (kind, limits) in
        [(Kind::Data, Limits::with_payload(1 << 20)), (Kind::Data, Limits::handshake()), (Kind::Refuse, LIMITS)]
    {
        let mut assembler = FrameAssembler::new(limits);
        let header = [0xff, 0xff, 0xff, 0xff, kind.code()];
        let error = assembler.feed(&mut header.as_slice()).unwrap_err();
        assert!(matches!(error, WireError::InvalidMessage(Invalid::Length { length: 0xffff_ffff, .. })), "{error}");
        assert!(assembler.space().is_empty());
    }
}

#[test]
fn no_payload_before_limits_allow_one() {
    let bytes = codec::encode(&Message::Data(Data { request: 0, slot: 0, payload: vec![1] })).unwrap();
    let mut decoder = FrameDecoder::new(Limits::handshake());
    decoder.push(&bytes);
    assert!(decoder.next_frame().is_err());
    let mut decoder = FrameDecoder::new(Limits::handshake());
    decoder.set_limits(Limits::with_payload(1));
    decoder.push(&bytes);
    assert!(decoder.next_frame().unwrap().is_some());
}

#[test]
fn a_payload_is_read_in_place() {
    let payload: Vec<u8> = (0..100).collect();
    let bytes = codec::encode(&Message::Data(Data { request: 3, slot: 4, payload: payload.clone() })).unwrap();
    let mut assembler = FrameAssembler::new(Limits::with_payload(100));
    let (head, tail) = bytes.split_at(HEADER_LEN + 12);
    assert!(assembler.feed(&mut &*head).unwrap().is_none());
    let space = assembler.space();
    assert_eq!(space.len(), 100);
    let place = space.as_ptr();
    space[..40].copy_from_slice(&tail[..40]);
    assert!(assembler.advance(40).unwrap().is_none());
    assembler.space().copy_from_slice(&tail[40..]);
    let frame = assembler.advance(60).unwrap().unwrap();
    let Message::Data(data) = codec::decode(frame).unwrap() else { panic!("not data") };
    assert_eq!(data.payload, payload);
    assert_eq!(data.payload.as_ptr(), place, "the payload was copied");
}

/// One byte at a time is the worst cutting; also, bytes of the next frame are left alone.
#[test]
fn the_assembler_stops_at_the_end_of_a_frame() {
    let mut bytes = codec::encode(&Message::Ping { token: 1 }).unwrap().to_vec();
    bytes.extend_from_slice(&[9, 9]);
    let mut assembler = FrameAssembler::new(LIMITS);
    let mut input = bytes.as_slice();
    let mut one = &input[..1];
    assert!(assembler.feed(&mut one).unwrap().is_none());
    assert!(!assembler.at_boundary());
    input = &input[1..];
    let frame = assembler.feed(&mut input).unwrap().unwrap();
    assert_eq!(codec::decode(frame).unwrap(), Message::Ping { token: 1 });
    assert_eq!(input, [9, 9]);
    assert!(assembler.at_boundary());
}

#[test]
fn fields_outside_their_sets_are_refused() {
    let abort = codec::encode(&Message::Abort(Abort::new(1, AbortCode::Timeout, None, "abc"))).unwrap();
    let refuse = codec::encode(&Message::Refuse(Refuse::new(RefuseCode::Busy, ""))).unwrap();
    let hello = Hello { version: 1, role: PeerRole::Device, device: [1; 16], bundle: [2; 32], flags: 0 };
    let hello = codec::encode(&Message::Hello(hello)).unwrap();
    let welcome = codec::encode(&Message::Welcome(Welcome { version: 1, mark: None, in_flight: 1 })).unwrap();
    // (frame, offset in the body, new byte, field)
    let cases: [(&[u8], usize, u8, &str); 11] = [
        (&abort, 0, 2, "sid"),
        (&abort, 1, 1, "sid"),
        (&abort, 25, 99, "code"),
        (&abort, 26, 1, "code"),
        (&abort, 27, 7, "slot"),
        (&abort, 28, 1, "slot"),
        (&abort, 34, 0xff, "message"),
        (&abort, 34, 0x1b, "message"),
        (&refuse, 2, 1, "code"),
        (&hello, 2, 4, "role"),
        (&welcome, 3, 1, "mark"),
    ];
    for (frame, offset, byte, field) in cases {
        let mut body = frame[HEADER_LEN..].to_vec();
        body[offset] = byte;
        let kind = Kind::of_code(frame[4]).unwrap();
        let error = codec::decode(Frame { kind, fixed: body, payload: Vec::new() }).unwrap_err();
        assert_eq!(error, Invalid::Field { kind, field }.into(), "{kind} offset {offset}");
    }
}

#[test]
fn a_payload_beyond_four_gigabytes_is_our_own_error() {
    // The sum of fixed part and payload must fit the u32 length, not only the payload.
    assert!(codec::encode_data_header(0, 0, u32::MAX as usize - 12).is_ok());
    assert!(matches!(codec::encode_data_header(0, 0, u32::MAX as usize - 11), Err(WireError::ApiMisuse(_))));
    assert!(matches!(codec::encode_correction_header(&[0; 16], 0, 0, u32::MAX as usize), Err(WireError::ApiMisuse(_))));
}
