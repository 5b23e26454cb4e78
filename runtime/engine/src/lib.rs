//! The interpreter of plans for every role.
