//! Attackers: whoever sits on the wire between two ends ([`Wire`]).
//!
//! Lying edges are in [`crate::adversary_a`] and [`crate::adversary_b`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// What happens to the bytes that the server sends to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// They pass.
    Pass = 0,
    /// They stop, and nothing else happens: a silent edge.
    Freeze = 1,
    /// The connection is closed: an edge that dies.
    Cut = 2,
    /// One bit of the next bytes is flipped.
    Flip = 3,
}

struct Control {
    fate: AtomicU8,
    /// Bytes towards the client that still pass before the fate comes true.
    left: AtomicU64,
    changed: Notify,
}

/// A network attacker or a failing link between a device and an edge: passes TCP bytes on, until told otherwise.
pub struct Wire {
    /// Where the client is to connect.
    pub address: String,
    control: Arc<Control>,
    task: JoinHandle<()>,
}

impl Wire {
    /// A wire to this address.
    pub async fn to(server: &str) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let control = Arc::new(Control { fate: AtomicU8::new(0), left: AtomicU64::new(0), changed: Notify::new() });
        let (server, shared) = (server.to_string(), Arc::clone(&control));
        let task = tokio::spawn(async move {
            let mut calls = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&server).await else { continue };
                calls.spawn(join(client, server, Arc::clone(&shared)));
            }
        });
        Wire { address, control, task }
    }

    /// What becomes of the server's bytes after `left` more of them.
    pub fn set(&self, fate: Fate, left: u64) {
        self.control.left.store(left, Ordering::SeqCst);
        self.control.fate.store(fate as u8, Ordering::SeqCst);
        self.control.changed.notify_waiters();
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn join(client: TcpStream, server: TcpStream, control: Arc<Control>) {
    for stream in [&client, &server] {
        stream.set_nodelay(true).unwrap();
    }
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = async move {
        // an end that closes ends the call; why is no concern of a wire
        let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
        to_server.shutdown().await
    };
    let down = async move {
        let mut buffer = vec![0; 4096];
        loop {
            let fate = control.fate.load(Ordering::SeqCst);
            let left = control.left.load(Ordering::SeqCst);
            let armed = fate != Fate::Pass as u8 && left == 0;
            if armed && fate == Fate::Cut as u8 {
                return;
            }
            if armed && fate == Fate::Freeze as u8 {
                control.changed.notified().await;
                continue;
            }
            let room =
                if fate == Fate::Pass as u8 || left == 0 { buffer.len() } else { buffer.len().min(left as usize) };
            let count = tokio::select! {
                read = from_server.read(&mut buffer[..room]) => read.unwrap_or(0),
                () = control.changed.notified() => continue,
            };
            if count == 0 {
                return;
            }
            if armed && fate == Fate::Flip as u8 {
                buffer[count / 2] ^= 1;
                control.fate.store(0, Ordering::SeqCst);
            }
            if fate != Fate::Pass as u8 {
                control.left.fetch_sub((count as u64).min(left), Ordering::SeqCst);
            }
            if to_client.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    };
    // either direction's end ends the call
    tokio::select! {
        _ = up => {}
        () = down => {}
    }
}
