//! The handshakes and the rules of established links.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pponnx_wire::states::{End, Established, device, edge};
use pponnx_wire::{
    Abort, AbortCode, Correction, Data, Hello, Incompatible, Kind, Message, Misbehaviour, PeerRole, Refuse, RefuseCode,
    Session, VERSION, Welcome, WireError,
};

const DEVICE: [u8; 16] = [7; 16];
const BUNDLE: [u8; 32] = [9; 32];
const SID: [u8; 16] = [3; 16];

fn device_and_a() -> (Established, Established) {
    let (waiting, hello) = device::greet_edge_a(DEVICE, BUNDLE);
    let edge::Caller::Device(caller) = edge::AwaitHelloAtA.handle(hello).unwrap() else { panic!("not a device") };
    assert_eq!((caller.hello().device, caller.hello().bundle), (DEVICE, BUNDLE));
    let (attaching, welcome) = caller.welcome(Some(41), 2);
    let greeted = waiting.handle(welcome).unwrap();
    assert_eq!(greeted.welcome(), &Welcome { version: VERSION, mark: Some(41), in_flight: 2 });
    let (at_device, attach) = greeted.attach(SID);
    let (sid, at_edge) = attaching.handle(attach).unwrap();
    assert_eq!(sid, SID);
    (at_device, at_edge)
}

fn device_and_b() -> (Established, Established) {
    let (waiting, hello) = device::greet_edge_b(DEVICE, BUNDLE);
    let (opening, welcome) = edge::AwaitHelloAtB.handle(hello).unwrap().welcome(1);
    let (asking, open) = waiting.handle(welcome).unwrap().open(5, [1; 32], SID);
    let asked = opening.handle(open).unwrap();
    assert_eq!((asked.epoch(), asked.nonce().as_bytes()), (5, &[1; 32]));
    let (at_edge, reply) = asked.opened(SID);
    let device::SessionReply::Open(at_device) = asking.handle(reply).unwrap() else { panic!("not open") };
    (at_device, at_edge)
}

fn b_and_a() -> (Established, Established) {
    let (waiting, hello) = edge::greet_edge_a([0; 32]);
    let edge::Caller::EdgeB(caller) = edge::AwaitHelloAtA.handle(hello).unwrap() else { panic!("not edge B") };
    assert_eq!(caller.hello().role, PeerRole::EdgeB);
    let (at_a, welcome) = caller.welcome();
    let (_, at_b) = waiting.handle(welcome).unwrap();
    (at_b, at_a)
}

/// One message of each type, as a session would carry it.
fn sample(kind: Kind, from: End) -> Message {
    match kind {
        Kind::Hello => {
            Message::Hello(Hello { version: 1, role: PeerRole::Device, device: DEVICE, bundle: BUNDLE, flags: 0 })
        }
        Kind::Welcome => Message::Welcome(Welcome { version: 1, mark: None, in_flight: 1 }),
        Kind::Refuse => Message::Refuse(Refuse::new(RefuseCode::Busy, "")),
        Kind::Ping => Message::Ping { token: 1 },
        Kind::Pong => Message::Pong { token: 1 },
        Kind::Abort if from == End::BToA => Message::Abort(Abort::of_session(SID, 6, AbortCode::Timeout, None, "")),
        Kind::Abort => Message::Abort(Abort::new(6, AbortCode::Timeout, None, "")),
        Kind::Goodbye => Message::Goodbye,
        Kind::OpenSession => Message::OpenSession { epoch: 1, nonce: [0; 32].into() },
        Kind::SessionOpen => Message::SessionOpen { sid: SID },
        Kind::EpochBehind => Message::EpochBehind { highest: 1 },
        Kind::Attach => Message::Attach { sid: SID },
        Kind::Begin => Message::Begin { request: 7 },
        Kind::Data => Message::Data(Data { request: 6, slot: 0, payload: vec![0] }),
        Kind::Session => Message::Session(Session { sid: SID, device: DEVICE, bundle: BUNDLE }),
        Kind::SessionClosed => Message::SessionClosed { sid: SID },
        Kind::Credit => Message::Credit { sid: SID, upto_request: 1 },
        Kind::Correction => Message::Correction(Correction { sid: SID, request: 6, slot: 0, payload: vec![0] }),
    }
}

#[test]
fn each_end_accepts_exactly_what_the_other_may_send() {
    use Kind::*;
    let expected: [(End, &[Kind]); 6] = [
        (End::DeviceToA, &[Begin, Data, Abort]),
        (End::AToDevice, &[Data, Abort, Refuse]),
        (End::DeviceToB, &[Begin]),
        (End::BToDevice, &[Data, Abort, Refuse]),
        (End::BToA, &[Session, SessionClosed, Correction, Abort]),
        (End::AToB, &[Credit, SessionClosed]),
    ];
    let (device_a, a_device) = device_and_a();
    let (device_b, b_device) = device_and_b();
    let (b_a, a_b) = b_and_a();
    for mut established in [device_a, a_device, device_b, b_device, b_a, a_b] {
        let from = established.end().opposite();
        let (_, own_words) = expected.iter().find(|(end, _)| *end == from).unwrap();
        if own_words.contains(&Begin) {
            established.receive(Message::Begin { request: 6 }).unwrap();
        }
        for &kind in Kind::ALL {
            let verdict = established.receive(sample(kind, from));
            let allowed = own_words.contains(&kind) || matches!(kind, Ping | Pong | Goodbye);
            match verdict {
                Err(WireError::Refused(refuse)) => assert!(allowed && refuse.code == RefuseCode::Busy),
                Err(WireError::PeerMisbehaved(Misbehaviour::NotAllowed { from: role, got })) => {
                    assert!(!allowed, "{from:?} may send {kind}");
                    assert_eq!((role, got), (from.own(), kind));
                }
                Err(error) => panic!("{from:?} {kind}: {error}"),
                Ok(message) => {
                    assert!(allowed, "{from:?} may not send {kind}");
                    assert_eq!(message, sample(kind, from));
                }
            }
            assert_eq!(established.check_send(kind).is_ok(), established.end().may_send().contains(&kind));
        }
    }
}

/// Theorem 2 of the protocol rests on this: no message towards edge B can carry anything of the input.
#[test]
fn nothing_that_could_depend_on_the_input_goes_to_edge_b() {
    for end in End::ALL.into_iter().filter(|end| end.peer() == PeerRole::EdgeB) {
        for kind in end.may_send() {
            assert!(!kind.is_bulk() && !matches!(kind, Kind::Abort | Kind::Refuse), "{end:?} may send {kind}");
        }
    }
}

#[test]
fn ends_pair_up() {
    for end in End::ALL {
        assert_eq!(end.opposite().opposite(), end);
        assert_eq!((end.own(), end.peer()), (end.opposite().peer(), end.opposite().own()));
        assert_ne!(end.own(), end.peer());
    }
}

#[test]
fn request_numbers_rise_and_data_needs_a_begin() {
    let (_, mut at_a) = device_and_a();
    let data = |request| Message::Data(Data { request, slot: 0, payload: vec![] });
    let not_begun = |got, request| Misbehaviour::NotBegun { got, request }.into();
    assert_eq!(at_a.receive(data(0)).unwrap_err(), not_begun(Kind::Data, 0));
    at_a.receive(Message::Begin { request: 0 }).unwrap();
    at_a.receive(data(0)).unwrap();
    assert_eq!(at_a.receive(data(1)).unwrap_err(), not_begun(Kind::Data, 1));
    at_a.receive(Message::Begin { request: 4 }).unwrap();
    at_a.receive(data(0)).unwrap();
    for request in [0, 3, 4] {
        let error = at_a.receive(Message::Begin { request }).unwrap_err();
        assert_eq!(error, Misbehaviour::RequestNotRising { request, last: 4 }.into());
    }
    let early = Message::Abort(Abort::new(5, AbortCode::Cancelled, None, ""));
    assert_eq!(at_a.receive(early).unwrap_err(), not_begun(Kind::Abort, 5));
}

#[test]
fn a_session_is_named_in_aborts_of_edge_b_only() {
    let (mut at_device, mut at_a) = device_and_a();
    let (_, mut a_from_b) = b_and_a();
    at_a.receive(Message::Begin { request: 1 }).unwrap();
    let named = || Message::Abort(Abort::of_session(SID, 1, AbortCode::Internal, None, ""));
    let unnamed = || Message::Abort(Abort::new(1, AbortCode::Internal, None, ""));
    let wrong = WireError::from(Misbehaviour::SessionName { got: Kind::Abort });
    assert_eq!(at_device.receive(named()).unwrap_err(), wrong);
    assert_eq!(at_a.receive(named()).unwrap_err(), wrong);
    assert_eq!(a_from_b.receive(unnamed()).unwrap_err(), wrong);
    at_device.receive(unnamed()).unwrap();
    a_from_b.receive(named()).unwrap();
}

#[test]
fn edge_b_turns_an_old_epoch_down_and_the_device_goes_on() {
    let (waiting, hello) = device::greet_edge_b(DEVICE, BUNDLE);
    let (opening, welcome) = edge::AwaitHelloAtB.handle(hello).unwrap().welcome(1);
    let (asking, open) = waiting.handle(welcome).unwrap().open(5, [1; 32], SID);
    let (opening, behind) = opening.handle(open).unwrap().behind(8);
    let device::SessionReply::Behind { highest, retry } = asking.handle(behind).unwrap() else { panic!("not behind") };
    assert_eq!(highest, 8);
    let (asking, open) = retry.open(9, [2; 32], SID);
    let asked = opening.handle(open).unwrap();
    assert_eq!(asked.epoch(), 9);
    let (_, reply) = asked.opened(SID);
    assert!(matches!(asking.handle(reply).unwrap(), device::SessionReply::Open(_)));
}

fn asking(epoch: u64) -> device::AwaitSession {
    let (waiting, _) = device::greet_edge_b(DEVICE, BUNDLE);
    let welcome = Message::Welcome(Welcome { version: 1, mark: None, in_flight: 1 });
    waiting.handle(welcome).unwrap().open(epoch, [1; 32], SID).0
}

#[test]
fn the_device_sees_through_odd_answers_of_edge_b() {
    let error = asking(5).handle(Message::SessionOpen { sid: [4; 16] }).unwrap_err();
    assert_eq!(error, Incompatible::SessionName.into());
    let error = asking(5).handle(Message::EpochBehind { highest: 4 }).unwrap_err();
    assert_eq!(error, Misbehaviour::EpochNotBehind { offered: 5, highest: 4 }.into());
    assert!(asking(5).handle(Message::EpochBehind { highest: 5 }).is_ok());
    let refuse = Refuse::new(RefuseCode::Internal, "disk full");
    assert_eq!(asking(5).handle(Message::Refuse(refuse.clone())).unwrap_err(), WireError::Refused(refuse));
    let error = asking(5).handle(Message::Pong { token: 0 }).unwrap_err();
    assert_eq!(error, Misbehaviour::Unexpected { expected: "SessionOpen or EpochBehind", got: Kind::Pong }.into());
    assert!(error.to_string().contains("expected SessionOpen or EpochBehind, got Pong"), "{error}");
}

#[test]
fn a_device_cannot_try_epochs_for_ever() {
    let (_, hello) = device::greet_edge_b(DEVICE, BUNDLE);
    let (mut opening, _) = edge::AwaitHelloAtB.handle(hello).unwrap().welcome(1);
    for epoch in 0..8 {
        let asked = opening.handle(Message::OpenSession { epoch, nonce: [0; 32].into() }).unwrap();
        opening = asked.behind(100).0;
    }
    let error = opening.handle(Message::OpenSession { epoch: 8, nonce: [0; 32].into() }).unwrap_err();
    assert_eq!(error, Misbehaviour::TooManyTries { tries: 9 }.into());
}

#[test]
fn hellos_that_do_not_fit_are_answered_with_a_refusal() {
    let hello = |version, role, device| Message::Hello(Hello { version, role, device, bundle: BUNDLE, flags: 0 });
    let at_a = |message| edge::AwaitHelloAtA.handle(message).map(drop).unwrap_err();
    let at_b = |message| edge::AwaitHelloAtB.handle(message).map(drop).unwrap_err();
    let cases = [
        (at_a(hello(0, PeerRole::Device, DEVICE)), RefuseCode::Version),
        (at_a(hello(1, PeerRole::EdgeA, DEVICE)), RefuseCode::WrongRole),
        (at_b(hello(1, PeerRole::EdgeB, [0; 16])), RefuseCode::WrongRole),
        (at_b(hello(1, PeerRole::EdgeA, [0; 16])), RefuseCode::WrongRole),
        (at_a(hello(1, PeerRole::Device, [0; 16])), RefuseCode::UnknownDevice),
        (at_b(hello(1, PeerRole::Device, [0; 16])), RefuseCode::UnknownDevice),
        (at_a(hello(1, PeerRole::EdgeB, DEVICE)), RefuseCode::UnknownDevice),
    ];
    for (error, code) in cases {
        assert!(matches!(error, WireError::PeerIncompatible(_)), "{error}");
        assert_eq!(error.refusal().unwrap().code, code);
    }
    let surprise = at_a(Message::Attach { sid: SID });
    assert_eq!(surprise, Misbehaviour::Unexpected { expected: "Hello", got: Kind::Attach }.into());
    assert_eq!(surprise.refusal(), None);
}

#[test]
fn versions_meet_at_the_lower() {
    let newer = Hello { version: VERSION + 5, role: PeerRole::Device, device: DEVICE, bundle: BUNDLE, flags: 6 };
    let edge::Caller::Device(caller) = edge::AwaitHelloAtA.handle(Message::Hello(newer)).unwrap() else {
        panic!("not a device")
    };
    let (attaching, welcome) = caller.welcome(None, 1);
    assert!(matches!(welcome, Message::Welcome(Welcome { version: VERSION, .. })));
    assert_eq!(attaching.without_session().version(), VERSION);

    let welcome = |version| Message::Welcome(Welcome { version, mark: None, in_flight: 1 });
    let waiting = || device::greet_edge_a(DEVICE, BUNDLE).0;
    let above = Misbehaviour::VersionAboveOffer { chosen: VERSION + 1, offered: VERSION };
    assert_eq!(waiting().handle(welcome(VERSION + 1)).unwrap_err(), above.into());
    assert_eq!(waiting().handle(welcome(0)).unwrap_err(), Incompatible::Version { theirs: 0 }.into());
    assert_eq!(waiting().handle(welcome(VERSION)).unwrap().without_session().end(), End::DeviceToA);
    assert!(edge::greet_edge_a(BUNDLE).0.handle(Message::Goodbye).is_err());
    assert!(device::greet_edge_b(DEVICE, BUNDLE).0.handle(Message::SessionOpen { sid: SID }).is_err());
}
