//! Conformance, golden plans, transcripts and adversaries: the contract tested where users stand.
