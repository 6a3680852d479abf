//! Messages between peers: their bytes, and which of them no honest peer sends.
//!
//! raft-rs trusts its peers. What it would answer with a panic or with a wrong state, and can be
//! seen in the message alone, is refused here; `Core::step` refuses what depends on the state.
use crate::conf;
use crate::fail::{wrong, Fail, Result};
use raft::prelude::*;

/// (to, type, encoded)
pub type Encoded = (u64, i32, Vec<u8>);

/// Indexes and terms count up from one: nothing honest comes near.
const LIMIT: u64 = 1 << 62;

pub fn encode(messages: Vec<Message>) -> Result<Vec<Encoded>> {
    messages
        .into_iter()
        .map(|m| {
            let bytes = protobuf::Message::write_to_bytes(&m)
                .map_err(|e| Fail::Fatal(format!("cannot encode a message: {e}")))?;
            Ok((m.to, m.msg_type as i32, bytes))
        })
        .collect()
}

/// The generated code keeps unknown fields and values aside. Here they are refused: without them a
/// newer node's message could mean something else.
pub fn parse<M: protobuf::Message>(bytes: &[u8], what: &str) -> Result<M> {
    let parsed = M::parse_from_bytes(bytes).map_err(|e| Fail::Value(format!("bad {what}: {e}")))?;
    if has_unknown(&parsed) {
        return wrong(format!("bad {what}: unknown field or value"));
    }
    Ok(parsed)
}

/// Of the message itself: each message inside has to be looked at too.
pub fn has_unknown<M: protobuf::Message>(m: &M) -> bool {
    m.get_unknown_fields().fields.is_some()
}

pub fn decode(bytes: &[u8], own_id: u64) -> Result<Message> {
    let m: Message = parse(bytes, "message")?;
    match problem(&m, own_id) {
        None => Ok(m),
        Some(text) => wrong(format!("bad message of type {}: {text}", m.msg_type as i32)),
    }
}

fn problem(m: &Message, own_id: u64) -> Option<&'static str> {
    if !is_between_peers(m.msg_type) {
        // Proposals and reads are not forwarded this way: they could get lost without a trace.
        return Some("peers do not send it");
    }
    if m.to != own_id {
        return Some("it is for another node");
    }
    if m.from == 0 || m.from == own_id {
        return Some("it has no sender");
    }
    if m.term == 0 {
        return Some("it has no term");
    }
    if [m.term, m.log_term, m.index, m.commit, m.reject_hint]
        .iter()
        .any(|&n| n > LIMIT)
    {
        return Some("a number is too large");
    }
    if m.request_snapshot != 0 {
        return Some("snapshots are not sent on request");
    }
    match m.msg_type {
        MessageType::MsgAppend => entries_problem(m),
        MessageType::MsgSnapshot => snapshot_problem(m),
        _ => None,
    }
}

fn is_between_peers(kind: MessageType) -> bool {
    use MessageType::*;
    matches!(
        kind,
        MsgAppend
            | MsgAppendResponse
            | MsgRequestVote
            | MsgRequestVoteResponse
            | MsgSnapshot
            | MsgHeartbeat
            | MsgHeartbeatResponse
            | MsgTransferLeader
            | MsgTimeoutNow
            | MsgRequestPreVote
            | MsgRequestPreVoteResponse
    )
}

fn entries_problem(m: &Message) -> Option<&'static str> {
    let mut term = m.log_term;
    for (index, entry) in (m.index + 1..).zip(m.entries.iter()) {
        if entry.index != index {
            return Some("its entries have a gap");
        }
        if entry.term < term || entry.term > m.term {
            return Some("the terms of its entries are out of order");
        }
        if has_unknown(entry) {
            return Some("an entry has an unknown field or value");
        }
        term = entry.term;
    }
    None
}

fn snapshot_problem(m: &Message) -> Option<&'static str> {
    let snapshot = m.get_snapshot();
    let meta = snapshot.get_metadata();
    if has_unknown(snapshot) || has_unknown(meta) || has_unknown(meta.get_conf_state()) {
        return Some("its snapshot has an unknown field or value");
    }
    if meta.index == 0 || meta.index > LIMIT || meta.term == 0 || meta.term > m.term {
        return Some("its snapshot has no valid index and term");
    }
    let members = conf::to_members(meta.get_conf_state());
    if members.0.is_empty() || conf::from_members(members).is_err() {
        return Some("its snapshot has no valid configuration");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use protobuf::Message as _;

    fn message(kind: MessageType) -> Message {
        Message {
            msg_type: kind,
            to: 1,
            from: 2,
            term: 3,
            log_term: 2,
            index: 5,
            ..Default::default()
        }
    }

    fn append(entries: &[(u64, u64)]) -> Message {
        let entries = entries.iter().map(|&(index, term)| Entry {
            index,
            term,
            ..Default::default()
        });
        Message {
            entries: entries.collect(),
            ..message(MessageType::MsgAppend)
        }
    }

    fn snapshot(index: u64, term: u64, voters: Vec<u64>) -> Message {
        let mut m = message(MessageType::MsgSnapshot);
        let meta = m.mut_snapshot().mut_metadata();
        meta.index = index;
        meta.term = term;
        meta.mut_conf_state().set_voters(voters);
        m
    }

    fn passes(m: &Message) -> bool {
        decode(&m.write_to_bytes().unwrap(), 1).is_ok()
    }

    #[test]
    fn good_messages_pass_unchanged() {
        for good in [
            message(MessageType::MsgHeartbeat),
            append(&[]),
            append(&[(6, 2), (7, 3)]),
            snapshot(9, 2, vec![1, 2]),
        ] {
            assert_eq!(decode(&good.write_to_bytes().unwrap(), 1).unwrap(), good);
        }
    }

    #[test]
    fn what_is_not_for_this_node_is_refused() {
        use MessageType::*;
        let good = message(MsgHeartbeat);
        let with = |change: fn(&mut Message)| {
            let mut m = good.clone();
            change(&mut m);
            m
        };
        assert!(!passes(&with(|m| m.to = 2)));
        assert!(!passes(&with(|m| m.from = 0)));
        assert!(!passes(&with(|m| m.from = 1)));
        assert!(!passes(&with(|m| m.term = 0)));
        assert!(!passes(&with(|m| m.term = u64::MAX)));
        assert!(!passes(&with(|m| m.index = u64::MAX)));
        assert!(!passes(&with(|m| m.request_snapshot = 1)));
        for local in [MsgHup, MsgBeat, MsgPropose, MsgReadIndex, MsgReadIndexResp] {
            assert!(!passes(&message(local)), "{local:?}");
        }
        for local in [MsgUnreachable, MsgSnapStatus, MsgCheckQuorum] {
            assert!(!passes(&message(local)), "{local:?}");
        }
    }

    #[test]
    fn entries_out_of_order_are_refused() {
        assert!(!passes(&append(&[(7, 2)])));
        assert!(!passes(&append(&[(6, 2), (8, 2)])));
        assert!(!passes(&append(&[(6, 3), (7, 2)])));
        assert!(!passes(&append(&[(6, 1)])));
        assert!(!passes(&append(&[(6, 4)])));
    }

    #[test]
    fn impossible_snapshots_are_refused() {
        assert!(!passes(&message(MessageType::MsgSnapshot)));
        assert!(!passes(&snapshot(0, 2, vec![1])));
        assert!(!passes(&snapshot(9, 0, vec![1])));
        assert!(!passes(&snapshot(9, 4, vec![1])));
        assert!(!passes(&snapshot(9, 2, vec![])));
        assert!(!passes(&snapshot(9, 2, vec![1, 1])));
    }

    #[test]
    fn garbage_and_unknown_values_are_refused() {
        assert!(decode(&[0xff, 0xff, 0xff], 1).is_err());
        assert!(decode(&[], 1).is_err());
        let good = message(MessageType::MsgHeartbeat).write_to_bytes().unwrap();
        assert!(decode(&good[..good.len() - 1], 1).is_err());
        // msg_type 77; an unknown field 30; an entry of kind 9.
        assert!(decode(&[&good[..], &[0x08, 77]].concat(), 1).is_err());
        assert!(decode(&[&good[..], &[0xf0, 0x01, 1]].concat(), 1).is_err());
        let entry = [0x3a, 6, 0x08, 9, 0x10, 2, 0x18, 6];
        let good = append(&[]).write_to_bytes().unwrap();
        assert!(decode(&[&good[..], &entry].concat(), 1).is_err());
    }
}
