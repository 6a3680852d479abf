//! One member of one Raft group, without I/O, threads or a clock: a thin cover over raft-rs.
//!
//! `Core` is the node: it refuses what raft-rs would answer with a panic, or would silently drop or
//! replace. `LogTail` is its log in memory. The other files are one type each. Only `node` and
//! `python` know Python; `grampus_raft.pyi` says what it sees.
pub mod caught;
pub mod conf;
pub mod core;
pub mod entry;
pub mod fail;
pub mod log;
pub mod message;
pub mod start;
pub mod status;
pub mod timeouts;
pub mod turn;

#[cfg(feature = "python")]
mod node;
#[cfg(feature = "python")]
mod python;
