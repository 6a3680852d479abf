//! The log after the last compaction, in memory: what raft-rs reads.
//!
//! Python owns the durable copy and writes it before it calls `advance()`; only then does this one
//! change. raft-rs's own MemStorage is not used: it makes snapshots at the commit index.
use raft::prelude::*;
use raft::{Error, GetEntriesContext, RaftState, Storage, StorageError};
use std::cell::Cell;

#[derive(Default)]
pub struct LogTail {
    /// What the node starts from; raft-rs asks for it once, and keeps its own.
    initial: RaftState,
    /// (index, term) of the entry just before `entries[0]`.
    base: (u64, u64),
    entries: Vec<Entry>,
    bytes: usize,
    snapshot: Snapshot,
    /// The peer that was last refused a snapshot. A Cell because `Storage::snapshot` takes `&self`.
    snapshot_wanted_by: Cell<Option<u64>>,
}

fn memory_size(entry: &Entry) -> usize {
    entry.data.len() + entry.context.len() + std::mem::size_of::<Entry>()
}

impl LogTail {
    pub fn new(hard_state: HardState, conf_state: ConfState, base: (u64, u64)) -> Self {
        LogTail {
            initial: RaftState::new(hard_state, conf_state),
            base,
            ..Default::default()
        }
    }

    pub fn base(&self) -> u64 {
        self.base.0
    }

    pub fn last(&self) -> u64 {
        self.base.0 + self.entries.len() as u64
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn snapshot_wanted_by(&self) -> Option<u64> {
        self.snapshot_wanted_by.get()
    }

    /// Appends, dropping whatever the log held from the first new index on. Indexes and terms must
    /// be without a gap and must not go back: a driver that breaks this would corrupt the log.
    pub fn append(&mut self, new: Vec<Entry>) -> Result<(), String> {
        let Some(first) = new.first().map(|e| e.index) else {
            return Ok(());
        };
        if first <= self.base.0 || first > self.last() + 1 {
            return Err(format!(
                "append at {first}: the log holds {}..={}",
                self.base.0 + 1,
                self.last()
            ));
        }
        let keep = (first - self.base.0 - 1) as usize;
        let mut term = match keep {
            0 => self.base.1,
            n => self.entries[n - 1].term,
        };
        for (index, entry) in (first..).zip(&new) {
            if entry.index != index || entry.term < term {
                return Err(format!(
                    "entry ({}, term {}) where ({index}, term >= {term}) belongs",
                    entry.index, entry.term
                ));
            }
            term = entry.term;
        }
        self.drop_range(keep..self.entries.len());
        self.bytes += new.iter().map(memory_size).sum::<usize>();
        self.entries.extend(new);
        Ok(())
    }

    /// Drops the entries up to `index`, which must be in the log.
    pub fn compact(&mut self, index: u64) -> Result<(), String> {
        if index <= self.base.0 {
            return Ok(());
        }
        if index > self.last() {
            return Err(format!("compact({index}): the log ends at {}", self.last()));
        }
        let dropped = (index - self.base.0) as usize;
        self.base = (index, self.entries[dropped - 1].term);
        self.drop_range(0..dropped);
        if self.entries.capacity() > 4 * self.entries.len() + 1024 {
            self.entries.shrink_to(self.entries.len() * 2);
        }
        Ok(())
    }

    fn drop_range(&mut self, range: std::ops::Range<usize>) {
        for entry in self.entries.drain(range) {
            self.bytes -= memory_size(&entry);
        }
    }

    /// Takes over a received snapshot: it replaces the whole log.
    pub fn restore(&mut self, snapshot: Snapshot) {
        let meta = snapshot.get_metadata();
        self.base = (meta.index, meta.term);
        self.entries = Vec::new();
        self.bytes = 0;
        self.snapshot = snapshot;
    }

    /// The snapshot to send to peers that need entries from before `base`.
    pub fn set_snapshot(&mut self, snapshot: Snapshot) {
        self.snapshot = snapshot;
        self.snapshot_wanted_by.set(None);
    }
}

impl Storage for LogTail {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(self.initial.clone())
    }

    /// Always at least one entry, even one larger than `max_size`: raft-rs cannot send part of one.
    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.base.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        if high > self.last() + 1 {
            return Err(Error::Store(StorageError::Unavailable));
        }
        let max_size = max_size.into().unwrap_or(u64::MAX);
        let first = self.base.0 + 1;
        let slice = &self.entries[(low - first) as usize..(high - first) as usize];
        let mut size = 0;
        let fit = slice.iter().take_while(|e| {
            size += u64::from(protobuf::Message::compute_size(*e));
            size <= max_size
        });
        let count = fit.count().max(1).min(slice.len());
        Ok(slice[..count].to_vec())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.base.0 {
            return Ok(self.base.1);
        }
        if index < self.base.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        self.entries
            .get((index - self.base.0 - 1) as usize)
            .map(|e| e.term)
            .ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.base.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    /// A snapshot from before `base` would leave the peer with a gap, so it counts as none.
    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let have = self.snapshot.get_metadata().index;
        if have == 0 || have < request_index || have < self.base.0 {
            self.snapshot_wanted_by.set(Some(to));
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        Ok(self.snapshot.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64, size: usize) -> Entry {
        Entry {
            index,
            term,
            data: vec![7; size].into(),
            ..Default::default()
        }
    }

    fn snapshot(index: u64, term: u64) -> Snapshot {
        let mut s = Snapshot::default();
        s.mut_metadata().index = index;
        s.mut_metadata().term = term;
        s
    }

    fn log(base: (u64, u64), count: u64) -> LogTail {
        let mut log = LogTail::new(HardState::default(), ConfState::default(), base);
        let new = (1..=count)
            .map(|k| entry(base.0 + k, base.1, 100))
            .collect();
        log.append(new).unwrap();
        log
    }

    fn read(log: &LogTail, low: u64, high: u64, max: u64) -> raft::Result<Vec<Entry>> {
        Storage::entries(log, low, high, max, GetEntriesContext::empty(false))
    }

    #[test]
    fn append_replaces_a_conflicting_tail_and_counts_bytes() {
        let mut log = log((5, 1), 4);
        log.append(vec![entry(8, 2, 10)]).unwrap();
        assert_eq!((log.last(), log.term(7).unwrap()), (8, 1));
        assert_eq!(log.term(8).unwrap(), 2);
        let expected = 2 * memory_size(&entry(6, 1, 100)) + memory_size(&entry(8, 2, 10));
        assert_eq!(log.bytes(), expected);
    }

    #[test]
    fn append_refuses_gaps_compacted_indexes_and_falling_terms() {
        let mut log = log((5, 3), 2);
        assert!(log.append(vec![entry(9, 3, 1)]).is_err());
        assert!(log.append(vec![entry(5, 3, 1)]).is_err());
        assert!(log.append(vec![entry(8, 2, 1)]).is_err());
        assert!(log.append(vec![entry(8, 3, 1), entry(10, 3, 1)]).is_err());
        assert_eq!(log.last(), 7);
    }

    #[test]
    fn compact_keeps_the_term_before_the_first_entry() {
        let mut log = log((0, 1), 10);
        assert!(log.compact(11).is_err());
        log.compact(6).unwrap();
        log.compact(3).unwrap();
        assert_eq!((log.base(), log.last()), (6, 10));
        assert_eq!(log.term(6).unwrap(), 1);
        assert_eq!(log.term(5), Err(Error::Store(StorageError::Compacted)));
        assert_eq!(log.bytes(), 4 * memory_size(&entry(1, 1, 100)));
    }

    #[test]
    fn entries_obeys_the_limit_but_returns_at_least_one() {
        let log = log((5, 1), 4);
        assert_eq!(read(&log, 6, 10, u64::MAX).unwrap().len(), 4);
        assert_eq!(read(&log, 6, 10, 250).unwrap().len(), 2);
        assert_eq!(read(&log, 6, 10, 0).unwrap().len(), 1);
        assert_eq!(read(&log, 6, 6, 0).unwrap().len(), 0);
        let error = |low, high| read(&log, low, high, 0).unwrap_err();
        assert_eq!(error(5, 7), Error::Store(StorageError::Compacted));
        assert_eq!(error(6, 11), Error::Store(StorageError::Unavailable));
    }

    #[test]
    fn a_missing_snapshot_names_the_peer_that_wanted_it() {
        let mut log = log((0, 1), 10);
        assert!(log.snapshot(0, 3).is_err());
        assert_eq!(log.snapshot_wanted_by(), Some(3));
        log.set_snapshot(snapshot(4, 1));
        assert_eq!(log.snapshot_wanted_by(), None);
        assert!(log.snapshot(5, 2).is_err());
        assert_eq!(log.snapshot(4, 2).unwrap().get_metadata().index, 4);
    }

    #[test]
    fn a_snapshot_from_before_the_base_counts_as_none() {
        let mut log = log((0, 1), 10);
        log.set_snapshot(snapshot(4, 1));
        log.compact(5).unwrap();
        assert!(log.snapshot(0, 3).is_err());
        log.set_snapshot(snapshot(5, 1));
        assert!(log.snapshot(0, 3).is_ok());
    }

    #[test]
    fn restore_replaces_the_log() {
        let mut log = log((0, 1), 10);
        log.restore(snapshot(20, 2));
        assert_eq!((log.base(), log.last(), log.bytes()), (20, 20, 0));
        log.append(vec![entry(21, 2, 1)]).unwrap();
    }
}
