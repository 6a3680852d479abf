//! A node seen from outside: numbers for its driver, for people and for metrics.
use crate::log::LogTail;
use raft::{Raft, StateRole};

/// (matched, next, state, paused, recently active, index of the snapshot under way)
pub type Peer = (u64, u64, i32, bool, bool, u64);

pub struct Status {
    /// By name, as `grampus_raft.pyi` lists them.
    pub fields: [(&'static str, u64); 16],
    /// By id; empty unless leader.
    pub peers: Vec<(u64, Peer)>,
}

impl Status {
    pub fn of(raft: &Raft<LogTail>, store: &LogTail, applied: u64) -> Self {
        let log = &raft.raft_log;
        Status {
            fields: [
                ("id", raft.id),
                ("term", raft.term),
                ("vote", raft.vote),
                ("role", raft.state as u64),
                ("leader", raft.leader_id),
                ("commit", log.committed),
                ("applied", applied),
                ("first", store.base() + 1),
                ("last", log.last_index()),
                ("persisted", log.persisted),
                ("log_bytes", store.bytes() as u64),
                ("uncommitted", raft.uncommitted_size() as u64),
                ("timeout", raft.randomized_election_timeout() as u64),
                ("transferee", raft.lead_transferee.unwrap_or(0)),
                ("pending_reads", raft.pending_read_count() as u64),
                (
                    "snapshot_wanted_by",
                    store.snapshot_wanted_by().unwrap_or(0),
                ),
            ],
            peers: match raft.state {
                StateRole::Leader => peers(raft),
                _ => Vec::new(),
            },
        }
    }
}

fn peers(raft: &Raft<LogTail>) -> Vec<(u64, Peer)> {
    let mut peers: Vec<(u64, Peer)> = raft
        .prs()
        .iter()
        .map(|(&id, p)| {
            let (state, paused) = (p.state as i32, p.is_paused());
            let seen = p.recent_active;
            (
                id,
                (
                    p.matched,
                    p.next_idx,
                    state,
                    paused,
                    seen,
                    p.pending_snapshot,
                ),
            )
        })
        .collect();
    peers.sort_unstable_by_key(|&(id, _)| id);
    peers
}
