//! TCP, TLS with pinned keys, and the loopback transport: moves frames, knows no plan.
