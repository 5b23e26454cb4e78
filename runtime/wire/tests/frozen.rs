//! The bytes of each message type, as another implementation (a few lines of Python `struct`) writes them. They may
//! only change together with the protocol version.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pponnx_wire::{
    Abort, AbortCode, Correction, Data, FrameDecoder, Hello, Kind, Limits, Message, PeerRole, Refuse, RefuseCode,
    Session, SessionNonce, Welcome, codec,
};

const Q: u64 = 0x0102_0304_0506_0708;

fn run<const N: usize>(first: u8) -> [u8; N] {
    std::array::from_fn(|i| first + i as u8)
}

fn vectors() -> Vec<(Message, &'static str)> {
    let (sid, device, bundle) = (run(0x10), run(0xa0), run(0x40));
    let hello = |role, device, bundle, flags| Message::Hello(Hello { version: 1, role, device, bundle, flags });
    vec![
        (
            hello(PeerRole::Device, device, bundle, 0),
            "3700000001010001a0a1a2a3a4a5a6a7a8a9aaabacadaeaf404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f00000000",
        ),
        (
            hello(PeerRole::EdgeB, [0; 16], [0; 32], 0x8000_0001),
            "370000000101000300000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000001000080",
        ),
        (
            Message::Welcome(Welcome { version: 1, mark: Some(Q), in_flight: 4 }),
            "0f00000002010001080706050403020104000000",
        ),
        (
            Message::Welcome(Welcome { version: 1, mark: None, in_flight: u32::MAX }),
            "0f000000020100000000000000000000ffffffff",
        ),
        (
            Message::Refuse(Refuse::new(RefuseCode::UnknownDevice, "no such card")),
            "1800000003020000000000000000000c006e6f20737563682063617264",
        ),
        (
            Message::Refuse(Refuse::new(RefuseCode::EpochBehind { highest: 9 }, "")),
            "0c00000003070009000000000000000000",
        ),
        (Message::Ping { token: Q }, "08000000040807060504030201"),
        (Message::Pong { token: Q }, "08000000050807060504030201"),
        (
            Message::Abort(Abort::new(Q, AbortCode::BadData, Some(5), "süß")),
            "27000000060000000000000000000000000000000000080706050403020103000105000000050073c3bcc39f",
        ),
        (
            Message::Abort(Abort::of_session(sid, Q, AbortCode::Internal, None, "")),
            "220000000601101112131415161718191a1b1c1d1e1f0807060504030201060000000000000000",
        ),
        (Message::Goodbye, "0000000007"),
        (
            Message::OpenSession { epoch: 12, nonce: SessionNonce::new(run(0x60)) },
            "28000000100c00000000000000606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f",
        ),
        (Message::SessionOpen { sid }, "1000000011101112131415161718191a1b1c1d1e1f"),
        (Message::EpochBehind { highest: 13 }, "08000000120d00000000000000"),
        (Message::Attach { sid }, "1000000020101112131415161718191a1b1c1d1e1f"),
        (Message::Begin { request: Q }, "08000000210807060504030201"),
        (
            Message::Data(Data { request: Q, slot: 0x1122_3344, payload: vec![0xde, 0xad, 0xbe, 0xef] }),
            "1000000022080706050403020144332211deadbeef",
        ),
        (
            Message::Session(Session { sid, device, bundle }),
            "4000000030101112131415161718191a1b1c1d1e1fa0a1a2a3a4a5a6a7a8a9aaabacadaeaf404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f",
        ),
        (Message::SessionClosed { sid }, "1000000031101112131415161718191a1b1c1d1e1f"),
        (Message::Credit { sid, upto_request: Q }, "1800000032101112131415161718191a1b1c1d1e1f0807060504030201"),
        (
            Message::Correction(Correction { sid, request: Q, slot: 7, payload: vec![1, 2, 3] }),
            "1f00000033101112131415161718191a1b1c1d1e1f080706050403020107000000010203",
        ),
    ]
}

fn bytes_of(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

#[test]
fn every_type_has_its_frozen_bytes() {
    let vectors = vectors();
    for kind in Kind::ALL {
        assert!(vectors.iter().any(|(message, _)| message.kind() == *kind), "{kind} has no vector");
    }
    for (message, hex) in vectors {
        let bytes = codec::encode(&message).unwrap();
        assert_eq!(bytes.as_slice(), bytes_of(hex).as_slice(), "{message:?}");
        let mut decoder = FrameDecoder::new(Limits::with_payload(16));
        decoder.push(&bytes);
        let frame = decoder.next_frame().unwrap().unwrap();
        assert_eq!(frame.wire_len(), bytes.len() as u64);
        assert_eq!(codec::decode(frame).unwrap(), message);
        assert!(decoder.at_boundary());
    }
}

#[test]
fn kinds_have_distinct_codes_that_read_back() {
    let codes: std::collections::BTreeSet<u8> = Kind::ALL.iter().map(|kind| kind.code()).collect();
    assert_eq!(codes.len(), Kind::ALL.len());
    for code in 0..=u8::MAX {
        assert_eq!(Kind::of_code(code).map(Kind::code), codes.contains(&code).then_some(code));
    }
}

#[test]
fn nothing_secret_is_printed() {
    let nonce = Message::OpenSession { epoch: 1, nonce: SessionNonce::new([0xab; 32]) };
    let data = Message::Data(Data { request: 1, slot: 2, payload: vec![0xab; 3] });
    for message in [nonce, data] {
        let text = format!("{message:?}");
        assert!(!text.contains("171") && !text.contains("ab, "), "{text}");
    }
}
