//! Mask streams, session keys, key pairs and the ledger.
