//! The node: raft-rs, and in front of it the refusal of whatever it would answer with a panic, or
//! would silently drop or replace.
//!
//! Between `ready()` and `advance()` raft-rs must not be changed, but the driver may still be
//! applying what it got before: `advance_apply` waits here for `advance()` then.
mod leader;

use crate::caught::caught;
use crate::conf::{self, Members};
use crate::fail::{wrong, Fail, Result};
use crate::log::LogTail;
use crate::message;
use crate::start::{check_config, Start};
use crate::status::Status;
use crate::timeouts::SeededTimeouts;
use crate::turn::{Rest, Turn};
use raft::prelude::*;
use raft::{Error, SnapshotStatus, StateRole};

pub struct Core {
    node: RawNode<LogTail>,
    /// Set from ready() to advance().
    pending: Option<Ready>,
    /// Everything up to here was handed out to be applied.
    handed_out: u64,
    /// Everything up to here is applied; raft-rs learns it at once or, if `pending`, later.
    applied: u64,
    timeouts: Option<SeededTimeouts>,
    /// Why the node is unusable.
    fatal: Option<String>,
}

impl Core {
    pub fn new(mut config: Config, start: Start, seed: Option<u64>) -> Result<Self> {
        let applied = start.applied;
        config.applied = applied;
        check_config(&config)?;
        let log = start.into_log()?;
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = caught(|| Ok(RawNode::new(&config, log, &logger)?))?;
        let (min, max) = (config.min_election_tick(), config.max_election_tick());
        let mut core = Core {
            node,
            pending: None,
            handed_out: applied,
            applied,
            timeouts: seed.map(|s| SeededTimeouts::new(s, min, max)),
            fatal: None,
        };
        core.impose_timeout();
        Ok(core)
    }

    /// Runs one call. After a panic, and after any other `Fatal` or `Lost`, the node stays unusable:
    /// half of its state may have changed.
    pub fn call<T>(&mut self, f: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if let Some(why) = &self.fatal {
            return Err(Fail::Fatal(why.clone()));
        }
        let result = caught(|| {
            let result = f(self);
            self.impose_timeout();
            result
        });
        if let Err(Fail::Fatal(why) | Fail::Lost(why)) = &result {
            self.fatal = Some(why.clone());
        }
        result
    }

    pub fn tick(&mut self) -> Result<bool> {
        self.no_turn_open()?;
        Ok(self.node.tick())
    }

    /// raft-rs lets anybody stand, and a node that knows of no members wins its election.
    pub fn campaign(&mut self) -> Result<()> {
        self.no_turn_open()?;
        if !self.node.raft.promotable() {
            return wrong("this node is no voter");
        }
        Ok(self.node.campaign()?)
    }

    /// Decodes all messages before it steps the first: a bad one leaves the node unchanged.
    pub fn step(&mut self, encoded: &[&[u8]]) -> Result<usize> {
        self.no_turn_open()?;
        let id = self.node.raft.id;
        let messages: Result<Vec<Message>> =
            encoded.iter().map(|b| message::decode(b, id)).collect();
        let mut refused = 0;
        for m in messages? {
            self.check_against_log(&m)?;
            if self.claims_too_much(&m) {
                refused += 1;
                continue;
            }
            match self.node.step(m) {
                Ok(()) => (),
                Err(Error::StepPeerNotFound) => refused += 1,
                Err(e) => return Err(e.into()),
            }
        }
        Ok(refused)
    }

    /// A leader tells a follower a commit index that the follower has confirmed to hold. If it does
    /// not, it has lost what it said was durable, and must not vote again.
    fn check_against_log(&self, m: &Message) -> Result<()> {
        let last = self.node.raft.raft_log.last_index();
        let is_current = m.term >= self.node.raft.term;
        if m.msg_type == MessageType::MsgHeartbeat && is_current && m.commit > last {
            return Err(Fail::Lost(format!(
                "the leader {} knows that this node had the log up to {}, but it ends at {last}: \
                 durable entries are lost",
                m.from, m.commit
            )));
        }
        Ok(())
    }

    /// A peer cannot have more than its leader: raft-rs would never send it anything again.
    fn claims_too_much(&self, m: &Message) -> bool {
        let raft = &self.node.raft;
        m.msg_type == MessageType::MsgAppendResponse
            && raft.state == StateRole::Leader
            && m.term == raft.term
            && !m.reject
            && m.index > raft.raft_log.last_index()
    }

    pub fn apply_conf_change(&mut self, kind: i32, data: &[u8]) -> Result<Members> {
        let change = conf::decode_change(kind, data)?;
        let conf_state = self.node.apply_conf_change(&change)?;
        // raft-rs lets a leader that is no voter any more go on, and panics at its next commit. It
        // must have nothing to send in an open turn unless it leads; messages may get lost.
        let raft = &mut self.node.raft;
        if raft.state == StateRole::Leader && !conf::is_voter(&conf_state, raft.id) {
            raft.become_follower(raft.term, raft::INVALID_ID);
            if self.pending.is_some() {
                raft.msgs.clear();
            }
        }
        Ok(conf::to_members(&conf_state))
    }

    pub fn report_unreachable(&mut self, id: u64) -> Result<()> {
        self.no_turn_open()?;
        self.node.report_unreachable(id);
        Ok(())
    }

    pub fn report_snapshot(&mut self, id: u64, ok: bool) -> Result<()> {
        self.no_turn_open()?;
        let status = match ok {
            true => SnapshotStatus::Finish,
            false => SnapshotStatus::Failure,
        };
        self.node.report_snapshot(id, status);
        Ok(())
    }

    pub fn has_ready(&self) -> bool {
        self.pending.is_none() && self.node.has_ready()
    }

    pub fn ready(&mut self) -> Result<Option<Turn>> {
        self.no_turn_open()?;
        if !self.node.has_ready() {
            return Ok(None);
        }
        let mut ready = self.node.ready();
        let turn = Turn::take(&mut ready)?;
        self.handed_out = turn.applies_to().unwrap_or(self.handed_out);
        self.pending = Some(ready);
        Ok(Some(turn))
    }

    pub fn advance(&mut self) -> Result<Rest> {
        let Some(mut ready) = self.pending.take() else {
            return wrong("advance() without a ready()");
        };
        let log = self.node.mut_store();
        let snapshot = ready.snapshot().get_metadata().index;
        if snapshot != 0 {
            log.restore(ready.snapshot().clone());
        }
        log.append(ready.take_entries()).map_err(Fail::Fatal)?;
        let mut light = self.node.advance_append(ready);
        let rest = Rest::take(&mut light)?;
        if let Some(last) = rest.committed.last() {
            self.handed_out = last.index;
        }
        self.tell_applied(snapshot.max(self.applied));
        Ok(rest)
    }

    pub fn advance_apply(&mut self, applied: u64) -> Result<()> {
        let log = &self.node.raft.raft_log;
        let (from, to) = (self.applied, self.handed_out.min(log.persisted));
        if applied < from || applied > to {
            return wrong(format!("applied {applied} is not in {from}..={to}"));
        }
        self.applied = applied;
        // A leader that leaves a joint configuration by itself appends an entry to say so, which
        // must not get into the open turn.
        if self.pending.is_none() {
            self.tell_applied(applied);
        }
        Ok(())
    }

    /// raft-rs looks at what is committed and not applied before it stands for election, and panics
    /// when a snapshot has taken the place of that. So a durable snapshot counts as applied there.
    fn tell_applied(&mut self, index: u64) {
        if index > self.node.raft.raft_log.applied {
            self.node.advance_apply_to(index);
        }
    }

    pub fn set_snapshot(&mut self, index: u64, members: Members, data: &[u8]) -> Result<()> {
        self.no_turn_open()?;
        let base = self.node.store().base();
        if index == 0 || index < base || index > self.applied {
            return wrong(format!(
                "a snapshot at {index} is not in {base}..={}",
                self.applied
            ));
        }
        if members.0.is_empty() {
            return wrong("a snapshot needs voters");
        }
        let mut snapshot = Snapshot {
            data: data.to_vec().into(),
            ..Default::default()
        };
        let meta = snapshot.mut_metadata();
        meta.index = index;
        meta.term = raft::Storage::term(self.node.store(), index)?;
        meta.set_conf_state(conf::from_members(members)?);
        self.node.mut_store().set_snapshot(snapshot);
        Ok(())
    }

    pub fn compact(&mut self, index: u64) -> Result<()> {
        self.no_turn_open()?;
        if index > self.applied {
            return wrong(format!(
                "compact({index}) is past applied, {}",
                self.applied
            ));
        }
        self.node.mut_store().compact(index).map_err(Fail::Value)
    }

    pub fn term(&self, index: u64) -> Result<u64> {
        Ok(self.node.raft.raft_log.term(index)?)
    }

    pub fn status(&self) -> Status {
        Status::of(&self.node.raft, self.node.store(), self.applied)
    }

    fn no_turn_open(&self) -> Result<()> {
        match self.pending {
            Some(_) => wrong("call advance() first"),
            None => Ok(()),
        }
    }

    fn impose_timeout(&mut self) {
        if let Some(timeouts) = &mut self.timeouts {
            timeouts.impose(&mut self.node.raft);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn core() -> Core {
        let config = Config {
            id: 1,
            max_size_per_msg: 1024,
            ..Default::default()
        };
        let start = Start {
            hard_state: (1, 0, 1),
            members: (vec![1], vec![], vec![], vec![], false),
            base: (1, 1),
            entries: vec![],
            applied: 1,
        };
        Core::new(config, start, Some(7)).unwrap()
    }

    fn fatal<T>(result: Result<T>) -> String {
        match result {
            Err(Fail::Fatal(text)) => text,
            _ => panic!("not fatal"),
        }
    }

    #[test]
    fn after_a_panic_every_call_fails_with_its_text_and_place() {
        let mut core = core();
        assert!(core.call(Core::tick).is_ok());
        // What no check above lets through: an index that the log does not have.
        let text = fatal(core.call(|c| {
            c.node.raft.raft_log.commit_to(99);
            Ok(())
        }));
        assert!(text.starts_with("to_commit 99 is out of range"), "{text}");
        assert!(text.contains("[raft_log.rs:"), "{text}");
        assert_eq!(fatal(core.call(Core::tick)), text);
        assert_eq!(fatal(core.call(|c| c.propose(&[b"x"]))), text);
    }

    #[test]
    fn a_refusal_leaves_the_node_as_it_was() {
        let mut core = core();
        assert!(core.call(|c| c.propose(&[b"x"])).is_err());
        assert!(core.call(Core::advance).is_err());
        assert!(core.call(Core::campaign).is_ok());
        assert!(core.call(Core::ready).unwrap().is_some());
    }
}
