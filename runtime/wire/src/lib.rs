//! Sans-IO wire codec, messages, frames and session state machines.
