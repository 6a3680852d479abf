//! What a node starts from: the durable state, checked, and its settings.
use crate::conf::{self, Members};
use crate::fail::{wrong, Fail, Result};
use crate::log::LogTail;
use raft::prelude::*;

pub struct Start {
    /// (term, vote, commit)
    pub hard_state: (u64, u64, u64),
    /// As of `applied`.
    pub members: Members,
    /// (index, term) just before the first of `entries`.
    pub base: (u64, u64),
    pub entries: Vec<Entry>,
    pub applied: u64,
}

impl Start {
    /// The log, if base <= applied <= commit <= last index holds and nothing is missing.
    pub fn into_log(self) -> Result<LogTail> {
        let (base, applied) = (self.base, self.applied);
        let hard_state = HardState {
            term: self.hard_state.0,
            vote: self.hard_state.1,
            commit: self.hard_state.2,
            ..Default::default()
        };
        let commit = hard_state.commit;
        if self.entries.first().is_some_and(|e| e.index != base.0 + 1) {
            return wrong("the log does not start right after base");
        }
        let mut log = LogTail::new(hard_state, conf::from_members(self.members)?, base);
        log.append(self.entries).map_err(Fail::Value)?;
        let last = log.last();
        if !(base.0 <= applied && applied <= commit && commit <= last) {
            return wrong(format!(
                "need base {} <= applied {applied} <= commit {commit} <= last index {last}",
                base.0
            ));
        }
        Ok(log)
    }
}

/// raft-rs makes room for all of them at once.
const MAX_INFLIGHT: usize = 1 << 20;

/// raft-rs's own checks, and what it leaves out.
pub fn check_config(config: &Config) -> Result<()> {
    config.validate()?;
    if config.max_inflight_msgs > MAX_INFLIGHT {
        return wrong(format!(
            "max inflight messages must not be greater than {MAX_INFLIGHT}"
        ));
    }
    if config.max_size_per_msg == 0 || config.max_committed_size_per_ready == 0 {
        return wrong("sizes must be greater than 0");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(commit: u64, base: u64, entries: &[u64], applied: u64) -> Result<LogTail> {
        let entries = entries.iter().map(|&index| Entry {
            index,
            term: 1,
            ..Default::default()
        });
        let start = Start {
            hard_state: (1, 0, commit),
            members: (vec![1], vec![], vec![], vec![], false),
            base: (base, base.min(1)),
            entries: entries.collect(),
            applied,
        };
        start.into_log()
    }

    #[test]
    fn a_whole_log_is_taken() {
        assert_eq!(start(6, 5, &[6, 7], 5).unwrap().last(), 7);
        assert_eq!(start(0, 0, &[], 0).unwrap().last(), 0);
    }

    #[test]
    fn gaps_and_indexes_out_of_order_are_refused() {
        assert!(start(6, 5, &[7], 5).is_err());
        assert!(start(6, 5, &[6, 8], 5).is_err());
        assert!(start(8, 5, &[6, 7], 5).is_err());
        assert!(start(6, 5, &[6, 7], 7).is_err());
        assert!(start(6, 5, &[6, 7], 4).is_err());
        assert!(start(4, 5, &[6, 7], 5).is_err());
    }
}
