//! The running roles: device client and edge servers, joining engine, wire and net.
