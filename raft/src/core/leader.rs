//! What only a leader does: proposals, changes of members, reads, the transfer of its leadership.
//!
//! raft-rs forwards these or drops them without a word; here the caller is told.
use super::Core;
use crate::conf;
use crate::entry;
use crate::fail::{wrong, Fail, Result};
use raft::prelude::*;
use raft::{Error, Progress, StateRole};

impl Core {
    /// Appends one entry each, all or none. (index of the first, term)
    pub fn propose(&mut self, items: &[&[u8]]) -> Result<(u64, u64)> {
        self.no_turn_open()?;
        if items.is_empty() {
            return wrong("nothing is proposed");
        }
        let entries: Result<Vec<Entry>> = items.iter().map(|data| entry::proposal(data)).collect();
        self.append(entries?)
    }

    pub fn propose_conf_change(
        &mut self,
        changes: &[(i32, u64)],
        transition: i32,
        context: &[u8],
    ) -> Result<(u64, u64)> {
        self.no_turn_open()?;
        let change = conf::change(changes, transition)?;
        self.must_lead()?;
        // raft-rs would put an empty entry in the place of a change that it cannot take.
        if self.node.raft.has_pending_conf() {
            return Err(Fail::Dropped(
                "an earlier change of members is not applied yet".into(),
            ));
        }
        conf::check(&change, self.node.raft.prs())?;
        let data = protobuf::Message::write_to_bytes(&change)
            .map_err(|e| Fail::Value(format!("cannot encode the change: {e}")))?;
        self.append(vec![Entry {
            entry_type: EntryType::EntryConfChangeV2,
            data: data.into(),
            context: context.to_vec().into(),
            ..Default::default()
        }])
    }

    /// RawNode::propose() takes one entry; several in one message are appended together.
    fn append(&mut self, entries: Vec<Entry>) -> Result<(u64, u64)> {
        self.must_lead()?;
        let raft = &mut self.node.raft;
        if let Some(to) = raft.lead_transferee {
            return Err(Fail::Dropped(format!(
                "leadership is being transferred to {to}"
            )));
        }
        let first = raft.raft_log.last_index() + 1;
        let message = Message {
            msg_type: MessageType::MsgPropose,
            from: raft.id,
            entries: entries.into(),
            ..Default::default()
        };
        match raft.step(message) {
            Ok(()) => Ok((first, raft.term)),
            Err(Error::ProposalDropped) => Err(Fail::Dropped(format!(
                "{} bytes of proposals wait for their commit",
                raft.uncommitted_size()
            ))),
            Err(e) => Err(e.into()),
        }
    }

    /// raft-rs drops a read request silently in the cases that are answered false here.
    pub fn read_index(&mut self, context: &[u8]) -> Result<bool> {
        self.no_turn_open()?;
        let raft = &self.node.raft;
        if context.is_empty() {
            // No peer would confirm it.
            return wrong("a read needs a context");
        }
        if raft.read_only.pending_read_index.contains_key(context) {
            return wrong("a read with this context is under way");
        }
        if !self.leads() || !raft.commit_to_current_term() {
            return Ok(false);
        }
        self.node.read_index(context.to_vec());
        Ok(true)
    }

    /// Tells those of `to` what is committed that have not said that they know, in messages of their
    /// own. Without this they learn it with the next entries or heartbeat.
    pub fn tell_commit(&mut self, to: &[u64]) -> Result<()> {
        self.no_turn_open()?;
        if !self.leads() {
            return Ok(());
        }
        let raft = &mut self.node.raft;
        let commit = raft.raft_log.committed;
        for &id in to {
            let lacks = |p: &Progress| p.committed_index < commit;
            if id != raft.id && raft.prs().get(id).is_some_and(lacks) {
                raft.send_append(id);
            }
        }
        Ok(())
    }

    pub fn transfer_leader(&mut self, to: u64) -> Result<()> {
        self.no_turn_open()?;
        let members = self.node.raft.prs().conf().to_conf_state();
        if !conf::is_voter(&members, to) {
            return wrong(format!("{to} is no voter"));
        }
        self.node.transfer_leader(to);
        Ok(())
    }

    fn leads(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    /// raft-rs would forward a follower's proposal and would not say if it got lost.
    fn must_lead(&self) -> Result<()> {
        match self.leads() {
            true => Ok(()),
            false => Err(Fail::Dropped("not the leader".into())),
        }
    }
}
