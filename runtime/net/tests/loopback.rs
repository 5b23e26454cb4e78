//! The reader and writer themselves, over a pipe in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use pponnx_net::{Deadline, NetError, Phase, loopback};
use pponnx_wire::{Data, Invalid, Limits, Message, Misuse, WireError, codec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn long() -> Deadline {
    Deadline::after(Duration::from_secs(60))
}

fn short() -> Deadline {
    Deadline::after(Duration::from_millis(20))
}

fn data(request: u64, payload: Vec<u8>) -> Message {
    Message::Data(Data { request, slot: 1, payload })
}

#[tokio::test]
async fn both_directions_at_once_through_a_small_pipe() {
    let (a, b) = loopback::pair(100);
    let ((mut a_reader, mut a_writer), (mut b_reader, mut b_writer)) = (a.split(), b.split());
    a_reader.set_limits(Limits::with_payload(50_000));
    b_reader.set_limits(Limits::with_payload(50_000));
    let writing_a = tokio::spawn(async move {
        a_writer.write(&data(1, vec![1; 50_000])).await.unwrap();
        a_writer.flush().await.unwrap();
        a_writer
    });
    let writing_b = tokio::spawn(async move {
        b_writer.write(&data(2, vec![2; 40_000])).await.unwrap();
        b_writer.flush().await.unwrap();
        b_writer
    });
    let (at_a, at_b) = tokio::join!(a_reader.read(long()), b_reader.read(long()));
    assert!(at_a.unwrap() == data(2, vec![2; 40_000]));
    assert!(at_b.unwrap() == data(1, vec![1; 50_000]));
    drop((writing_a.await.unwrap(), writing_b.await.unwrap()));
}

#[tokio::test]
async fn small_frames_wait_for_flush_and_arrive_in_order() {
    let (mut a, mut b) = loopback::pair(1 << 16);
    for token in 0..10 {
        a.writer.write(&Message::Ping { token }).await.unwrap();
    }
    assert_eq!(a.traffic().sent().socket_bytes, 0);
    a.writer.flush().await.unwrap();
    let sent = a.traffic().sent();
    assert_eq!((sent.frames, sent.frame_bytes, sent.socket_bytes, sent.payload_bytes), (10, 130, 130, 0));
    for token in 0..10 {
        assert_eq!(b.reader.read(long()).await.unwrap(), Message::Ping { token });
    }
    assert_eq!(b.traffic().received(), sent);
}

/// A frame that comes in pieces, with a deadline passing between any two, is still read whole.
#[tokio::test]
async fn a_read_given_up_half_way_loses_nothing() {
    let (mut connection, mut raw) = loopback::with_raw_peer(1 << 20);
    connection.reader.set_limits(Limits::with_payload(40_000));
    let payload: Vec<u8> = (0..40_000u32).map(|i| i as u8).collect();
    let frame = codec::encode(&data(9, payload.clone())).unwrap();
    for piece in frame.chunks(frame.len() / 7) {
        let error = connection.reader.read(short()).await.unwrap_err();
        assert!(matches!(error, NetError::Timeout { phase: Phase::Read, .. }), "{error}");
        raw.write_all(piece).await.unwrap();
    }
    assert!(connection.reader.read(long()).await.unwrap() == data(9, payload));
}

#[tokio::test]
async fn a_peer_closing_in_mid_frame_is_told_from_a_clean_close() {
    let frame = codec::encode(&Message::Begin { request: 1 }).unwrap();
    for cut in 0..=frame.len() {
        let (mut connection, mut raw) = loopback::with_raw_peer(1000);
        raw.write_all(&frame[..cut]).await.unwrap();
        drop(raw);
        if cut == frame.len() {
            assert_eq!(connection.reader.read(long()).await.unwrap(), Message::Begin { request: 1 });
        }
        let error = connection.reader.read(long()).await.unwrap_err();
        let inside = cut != 0 && cut != frame.len();
        assert!(matches!(error, NetError::Closed { mid_frame } if mid_frame == inside), "{cut}: {error:?}");
    }
}

#[tokio::test]
async fn hostile_bytes_are_refused_for_good() {
    let (mut connection, mut raw) = loopback::with_raw_peer(1000);
    raw.write_all(&[0xff, 0xff, 0xff, 0xff, 0x22]).await.unwrap();
    raw.write_all(&codec::encode(&Message::Goodbye).unwrap()).await.unwrap();
    for _ in 0..2 {
        let error = connection.reader.read(long()).await.unwrap_err();
        assert!(matches!(error, NetError::Wire(WireError::InvalidMessage(Invalid::Length { .. }))), "{error}");
    }
}

#[tokio::test]
async fn a_peer_that_takes_nothing_stalls_the_writer_no_longer_than_allowed() {
    let (mut connection, raw) = loopback::with_raw_peer(1000);
    connection.writer.set_stall_limit(Duration::from_millis(20));
    let error = connection.writer.write(&data(1, vec![0; 100_000])).await.unwrap_err();
    assert!(matches!(error, NetError::Timeout { phase: Phase::Write, .. }), "{error}");
    // What was sent ends in mid-frame, so nothing may follow.
    assert!(matches!(connection.writer.flush().await, Err(NetError::WriterBroken)));
    drop(raw);
}

#[tokio::test]
async fn a_cancelled_write_breaks_the_writer() {
    let (mut connection, mut raw) = loopback::with_raw_peer(1000);
    let message = data(1, vec![0; 100_000]);
    let cancelled = tokio::time::timeout(Duration::from_millis(20), connection.writer.write(&message)).await;
    assert!(cancelled.is_err());
    assert!(matches!(connection.writer.write(&data(2, vec![0; 100_000])).await, Err(NetError::WriterBroken)));
    drop(connection);
    let mut sent = Vec::new();
    raw.read_to_end(&mut sent).await.unwrap();
    assert_eq!(sent.len(), 1000, "nothing followed the torn frame");
}

#[tokio::test]
async fn a_header_must_announce_its_payload() {
    let (mut connection, _raw) = loopback::with_raw_peer(1000);
    let header = codec::encode_data_header(1, 2, 10).unwrap();
    let error = connection.writer.write_data(&header, &[0; 9]).await.unwrap_err();
    let wanted = WireError::from(Misuse::PayloadLength { announced: 10, given: 9 });
    assert!(matches!(error, NetError::Wire(found) if found == wanted));
    connection.writer.write_data(&header, &[0; 10]).await.unwrap();
}

#[tokio::test]
async fn writing_to_a_closed_peer_says_so() {
    let (mut connection, raw) = loopback::with_raw_peer(10);
    drop(raw);
    let error = connection.writer.write(&data(1, vec![0; 100_000])).await.unwrap_err();
    assert!(matches!(error, NetError::Closed { .. }), "{error:?}");
}

#[tokio::test]
async fn deadlines_combine() {
    let (near, far) = (short(), long());
    assert_eq!(near.earlier(far), near);
    assert_eq!(far.earlier(near), near);
    assert_eq!(Deadline::never().earlier(far), far);
    assert_eq!(far.earlier(Deadline::never()), far);
    assert_eq!(Deadline::never().instant(), None);
    assert_eq!(Deadline::after(Duration::MAX), Deadline::never());
}
