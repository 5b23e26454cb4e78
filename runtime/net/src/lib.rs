//! Moves frames between two ends over TCP and TLS 1.3, or in memory; knows no plan.
//!
//! | module | purpose |
//! |---|---|
//! | [`identity`] | a key pair with its self-signed certificate, and its [`Pin`] |
//! | [`tls`] | client and server configurations: both ends authenticate by pinned public keys, no authority |
//! | [`tcp`] | dial, listen, handshake |
//! | [`loopback`] | the same [`Connection`] in memory, for tests |
//! | [`connection`] | reading and writing messages |
//! | `inflow` | reads the socket in large pieces |
//! | [`clock`] | deadlines |
//! | [`traffic`] | byte counters |
//! | [`error`] | [`NetError`] |
//!
//! **Invariant**: no time-out is implicit in reading: each `read` takes a [`Deadline`]. Writing has a stall limit
//! ([`FrameWriter::set_stall_limit`]), so a peer that stops reading cannot hold a task for ever.
//!
//! # Example
//!
//! A device and an edge on this machine, over TLS.
//!
//! ```
//! use std::time::Duration;
//! use pponnx_net::{ClientTls, Deadline, Identity, Listener, ServerTls, connect};
//! use pponnx_wire::{Message, states};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (device, edge) = (Identity::generate()?, Identity::generate()?);
//! let device_pin = device.pin();
//!
//! let listener = Listener::bind("127.0.0.1:0").await?;
//! let address = listener.local_addr()?.to_string();
//! let server = ServerTls::new(&edge, move |pin| *pin == device_pin)?;
//! let serving = tokio::spawn(async move {
//!     let incoming = listener.accept().await?; // then, in a task of its own:
//!     let mut connection = incoming.handshake(&server, Deadline::after(Duration::from_secs(10))).await?;
//!     let hello = connection.reader.read(Deadline::after(Duration::from_secs(10))).await?;
//!     connection.writer.write(&Message::Pong { token: 1 }).await?;
//!     connection.writer.flush().await?;
//!     Ok::<_, pponnx_net::NetError>((connection.peer().pin, hello))
//! });
//!
//! let client = ClientTls::new(&device, &[edge.pin()])?;
//! let mut connection = connect(&address, &client, Deadline::after(Duration::from_secs(10))).await?;
//! let (_waiting, hello) = states::device::greet_edge_a([1; 16], [2; 32]);
//! connection.writer.write(&hello).await?;
//! connection.writer.flush().await?;
//! let reply = connection.reader.read(Deadline::after(Duration::from_secs(10))).await?;
//! assert_eq!(reply, Message::Pong { token: 1 });
//!
//! let (pin, received) = serving.await??;
//! assert_eq!(pin, Some(device.pin()));
//! assert_eq!(received, hello);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

pub mod clock;
pub mod connection;
pub mod error;
pub mod identity;
mod inflow;
pub mod loopback;
pub mod tcp;
pub mod tls;
pub mod traffic;
mod verify;

pub use clock::Deadline;
pub use connection::{Connection, FrameReader, FrameWriter, Peer};
pub use error::{NetError, Phase};
pub use identity::{Identity, IdentityError, Pin};
pub use tcp::{Incoming, Listener, connect};
pub use tls::{ClientTls, ServerTls, TlsFacts};
pub use traffic::{Counters, Traffic};
