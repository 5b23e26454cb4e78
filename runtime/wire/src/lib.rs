//! What the three running roles say to each other: bytes in, bytes out, nothing else.
//!
//! The crate opens no socket, reads no clock and draws no random number. `pponnx-net` moves the bytes; the roles
//! themselves live in `pponnx-node`.
//!
//! | module | purpose |
//! |---|---|
//! | [`frame`] | length-prefixed frames, limits, the incremental decoder |
//! | [`kind`] | the table of message types: codes, body lengths |
//! | [`message`] | the typed messages |
//! | [`text`] | bounded, printable text |
//! | [`codec`] | message <-> frame, fixed little-endian layouts |
//! | [`states`] | handshakes, one struct per state, and the rules of an established link |
//! | [`error`] | [`WireError`], by who is to blame |
//!
//! # Links
//!
//! ```text
//! device --> edge A   Hello, [Attach], then per request Begin, Data; back: Welcome, Data, Abort
//! device --> edge B   Hello, OpenSession, (two-edge) Begin; back: Welcome, SessionOpen | EpochBehind, (two-edge) Data
//! edge B --> edge A   Hello, then per session Session, Correction; back: Welcome, Credit, SessionClosed
//! ```
//!
//! The left end dials. **Invariant**: nothing that depends on the device's input ever goes to edge B: the table in
//! [`states::End::may_send`] has no `Data`, no `Abort` and no text towards it.
//!
//! # Example
//!
//! The device greets edge A; both ends are driven by hand, as a transport would.
//!
//! ```
//! use pponnx_wire::{FrameDecoder, Limits, Message, codec, states};
//! # fn main() -> Result<(), pponnx_wire::WireError> {
//! let (waiting, hello) = states::device::greet_edge_a([7; 16], [9; 32]);
//! let bytes = codec::encode(&hello)?;
//!
//! // Edge A: bytes -> frame -> message -> state.
//! let mut decoder = FrameDecoder::new(Limits::handshake());
//! decoder.push(&bytes);
//! let Some(frame) = decoder.next_frame()? else { return Ok(()) };
//! let states::edge::Caller::Device(caller) = states::edge::AwaitHelloAtA.handle(codec::decode(frame)?)? else {
//!     return Ok(());
//! };
//! assert_eq!(caller.hello().device, [7; 16]);
//! let (attaching, welcome) = caller.welcome(None, 4);
//!
//! // Device: the welcome arrives, it attaches to the session that edge B opened.
//! let greeted = waiting.handle(welcome)?;
//! assert_eq!(greeted.welcome().in_flight, 4);
//! let (mut device, attach) = greeted.attach([1; 16]);
//!
//! // Edge A: from now on `receive` admits only what a device may say.
//! let (sid, mut edge) = attaching.handle(attach)?;
//! assert_eq!(sid, [1; 16]);
//! assert!(edge.receive(Message::Begin { request: 0 }).is_ok());
//! assert!(edge.receive(Message::Begin { request: 0 }).is_err());
//! assert!(device.receive(Message::Begin { request: 1 }).is_err());
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

pub mod codec;
pub mod error;
pub mod frame;
pub mod kind;
pub mod message;
pub mod states;
pub mod text;

pub use error::{Incompatible, Invalid, Misbehaviour, Misuse, WireError};
pub use frame::{Frame, FrameAssembler, FrameDecoder, FrameHeader, HEADER_LEN, Limits};
pub use kind::Kind;
pub use message::{
    Abort, AbortCode, BundleDigest, Correction, Data, DeviceId, Hello, Message, PeerRole, Refuse, RefuseCode, Session,
    SessionNonce, Sid, Welcome,
};
pub use text::Text;

/// Highest protocol version this build speaks; what it puts in a `Hello`.
pub const VERSION: u16 = 1;

/// Lowest protocol version this build still speaks.
pub const LOWEST_VERSION: u16 = 1;
