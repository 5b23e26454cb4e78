//! What a round costs at each end: `cargo test --release -p pponnx-net --test cost -- --ignored --nocapture`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::time::{Duration, Instant};

use pponnx_net::{ClientTls, Connection, Deadline, Identity, Listener, ServerTls, connect};
use pponnx_wire::{Limits, Message, codec};

fn long() -> Deadline {
    Deadline::after(Duration::from_secs(60))
}

/// CPU seconds of the calling thread.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

async fn send(c: &mut Connection, payload: &[u8]) {
    let header = codec::encode_data_header(1, 2, payload.len()).unwrap();
    c.writer.write_data(&header, payload).await.unwrap();
    c.writer.flush().await.unwrap();
}

async fn receive(c: &mut Connection) -> Vec<u8> {
    match c.reader.read(long()).await.unwrap() {
        Message::Data(data) => data.payload,
        other => panic!("{other:?}"),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Rounds of one payload up and one down; prints CPU time an end and wall time a round.
#[test]
#[ignore = "prints measurements"]
fn cpu_time_of_a_round() {
    for bytes in [4_000usize, 100_000, 400_000, 1_000_000, 3_000_000] {
        let rounds = (200_000_000 / bytes).clamp(20, 4000);
        let (device, server) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let (pin, server_pin) = (device.pin(), server.pin());
        let (told, address) = std::sync::mpsc::channel();
        let serving = std::thread::spawn(move || {
            runtime().block_on(async {
                let listener = Listener::bind("127.0.0.1:0").await.unwrap();
                told.send(listener.local_addr().unwrap().to_string()).unwrap();
                let tls = ServerTls::new(&server, move |p| *p == pin).unwrap();
                let mut c = listener.accept().await.unwrap().handshake(&tls, long()).await.unwrap();
                c.reader.set_limits(Limits::with_payload(1 << 24));
                let before = cpu();
                for _ in 0..rounds {
                    let payload = receive(&mut c).await;
                    send(&mut c, &payload).await;
                }
                cpu() - before
            })
        });
        let address = address.recv().unwrap();
        runtime().block_on(async {
            let tls = ClientTls::new(&device, &[server_pin]).unwrap();
            let mut c = connect(&address, &tls, long()).await.unwrap();
            c.reader.set_limits(Limits::with_payload(1 << 24));
            let payload: Vec<u8> = (0..bytes).map(|i| (i * 31 % 251) as u8).collect();
            let (before, start) = (cpu(), Instant::now());
            let mut shortest = f64::INFINITY;
            for _ in 0..rounds {
                let begun = Instant::now();
                send(&mut c, &payload).await;
                assert_eq!(receive(&mut c).await.len(), bytes);
                shortest = shortest.min(begun.elapsed().as_secs_f64());
            }
            let (own, wall) = (cpu() - before, start.elapsed().as_secs_f64() / rounds as f64);
            let other = serving.join().unwrap();
            let both_ways = 2.0 * bytes as f64 / 1e6 * rounds as f64;
            println!(
                "{bytes:>8} bytes each way, {rounds} rounds: CPU {:.3} and {:.3} ms/MB, {:.1} and {:.1} us a round; wall {:.3} ms, best {:.3}",
                own * 1e3 / both_ways,
                other * 1e3 / both_ways,
                own * 1e6 / rounds as f64,
                other * 1e6 / rounds as f64,
                wall * 1e3,
                shortest * 1e3,
            );
        });
    }
}
