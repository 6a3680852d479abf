//! What one `ready()` or `advance()` hands out.
use crate::fail::Result;
use crate::message::{self, Encoded};
use raft::prelude::*;
use raft::{LightReady, ReadState};

/// To send, to write, to send once it is written, to apply: in this order.
pub struct Turn {
    pub must_sync: bool,
    /// (term, vote, commit)
    pub hard_state: Option<(u64, u64, u64)>,
    pub entries: Vec<Entry>,
    pub snapshot: Option<Snapshot>,
    pub messages: Vec<Encoded>,
    pub persisted_messages: Vec<Encoded>,
    pub committed: Vec<Entry>,
    pub reads: Vec<ReadState>,
    /// (leader or 0, role)
    pub soft_state: Option<(u64, i32)>,
}

impl Turn {
    /// Leaves entries, hard state and snapshot in `ready`: `advance()` moves them to the log.
    pub fn take(ready: &mut Ready) -> Result<Self> {
        Ok(Turn {
            must_sync: ready.must_sync(),
            hard_state: ready.hs().map(|h| (h.term, h.vote, h.commit)),
            entries: ready.entries().clone(),
            snapshot: Some(ready.snapshot()).filter(|s| !s.is_empty()).cloned(),
            messages: message::encode(ready.take_messages())?,
            persisted_messages: message::encode(ready.take_persisted_messages())?,
            committed: ready.take_committed_entries(),
            reads: ready.take_read_states(),
            soft_state: ready.ss().map(|s| (s.leader_id, s.raft_state as i32)),
        })
    }

    /// The index up to which the state machine will have everything once this turn is applied.
    pub fn applies_to(&self) -> Option<u64> {
        let snapshot = self.snapshot.as_ref().map(|s| s.get_metadata().index);
        self.committed.last().map(|e| e.index).or(snapshot)
    }
}

/// What became possible by the durable write.
pub struct Rest {
    pub commit: Option<u64>,
    pub messages: Vec<Encoded>,
    pub committed: Vec<Entry>,
}

impl Rest {
    pub fn take(light: &mut LightReady) -> Result<Self> {
        Ok(Rest {
            commit: light.commit_index(),
            messages: message::encode(light.take_messages())?,
            committed: light.take_committed_entries(),
        })
    }
}
