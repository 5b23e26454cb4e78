//! One file a verb.

pub mod bench;
pub mod compile;
pub mod demo;
pub mod inspect;
pub mod keygen;
pub mod run;
pub mod serve;
pub mod verify;
