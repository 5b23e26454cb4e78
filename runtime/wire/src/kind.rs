//! The one table of message types: name, code on the wire, length of the fixed part of the body.
//!
//! The fixed part has a lower and an upper bound (they differ only where a text ends the body); a bulk type carries a
//! payload after it. A frame whose length cannot be right is refused from its five header bytes alone.

/// Bytes of a text at its longest: a `u16` count and [`crate::text::Text::MAX`] bytes.
const TEXT: usize = crate::text::Text::MAX;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $min:expr, $max:expr, $bulk:literal;)*) => {
        /// Type of a message.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Kind {
            $($(#[$doc])* $name = $code,)*
        }

        impl Kind {
            /// Every type, in the order of the codes.
            pub const ALL: &'static [Kind] = &[$(Kind::$name,)*];

            /// The type with this code, if there is one.
            pub fn of_code(code: u8) -> Option<Kind> {
                match code {
                    $($code => Some(Kind::$name),)*
                    _ => None,
                }
            }

            /// Code on the wire.
            pub fn code(self) -> u8 {
                self as u8
            }

            /// Fewest bytes of the fixed part of the body.
            pub fn fixed_min(self) -> usize {
                match self { $(Kind::$name => $min,)* }
            }

            /// Most bytes of the fixed part of the body.
            pub fn fixed_max(self) -> usize {
                match self { $(Kind::$name => $max,)* }
            }

            /// Whether a payload of any length follows the fixed part.
            pub fn is_bulk(self) -> bool {
                match self { $(Kind::$name => $bulk,)* }
            }

            /// Name, as errors show it.
            pub fn name(self) -> &'static str {
                match self { $(Kind::$name => stringify!($name),)* }
            }
        }
    };
}

kinds! {
    /// First message of the dialling end.
    Hello = 0x01, 55, 55, false;
    /// Answer to `Hello`.
    Welcome = 0x02, 15, 15, false;
    /// A connection or a request is turned down.
    Refuse = 0x03, 12, 12 + TEXT, false;
    /// Asks for a `Pong`.
    Ping = 0x04, 8, 8, false;
    /// Answers a `Ping`.
    Pong = 0x05, 8, 8, false;
    /// One request ends without a result.
    Abort = 0x06, 34, 34 + TEXT, false;
    /// The sender will close the connection.
    Goodbye = 0x07, 0, 0, false;
    /// Device to edge B: derive a session key.
    OpenSession = 0x10, 40, 40, false;
    /// Edge B to device: the session is open.
    SessionOpen = 0x11, 16, 16, false;
    /// Edge B to device: the epoch was used before.
    EpochBehind = 0x12, 8, 8, false;
    /// Device to edge A: use the corrections of this session.
    Attach = 0x20, 16, 16, false;
    /// Device to an edge: a request starts.
    Begin = 0x21, 8, 8, false;
    /// One transferred tensor of a request.
    Data = 0x22, 12, 12, true;
    /// Edge B to edge A: a session was opened.
    Session = 0x30, 64, 64, false;
    /// Between the edges: a session is over.
    SessionClosed = 0x31, 16, 16, false;
    /// Edge A to edge B: how far to run ahead.
    Credit = 0x32, 24, 24, false;
    /// Edge B to edge A: one masked correction.
    Correction = 0x33, 28, 28, true;
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
