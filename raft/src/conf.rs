//! Who is a member: configurations as tuples, and changes of them.
use crate::fail::{wrong, Fail, Result};
use crate::message;
use protobuf::ProtobufEnum;
use raft::prelude::*;
use raft::{Changer, ProgressTracker};
use std::collections::BTreeSet;

/// (voters, learners, voters_outgoing, learners_next, auto_leave)
pub type Members = (Vec<u64>, Vec<u64>, Vec<u64>, Vec<u64>, bool);

pub fn to_members(conf: &ConfState) -> Members {
    (
        conf.voters.clone(),
        conf.learners.clone(),
        conf.voters_outgoing.clone(),
        conf.learners_next.clone(),
        conf.auto_leave,
    )
}

/// Refuses what raft-rs would panic on: it trusts that a configuration came from itself.
pub fn from_members(members: Members) -> Result<ConfState> {
    let (voters, learners, outgoing, next, auto_leave) = &members;
    let sets = [voters, learners, outgoing, next].map(|ids| ids.iter().copied().collect());
    let [v, l, o, n]: [BTreeSet<u64>; 4] = sets;
    let listed = voters.len() + learners.len() + outgoing.len() + next.len();
    let problem = if [&v, &l, &o, &n].iter().any(|ids| ids.contains(&0)) {
        "the id 0"
    } else if v.len() + l.len() + o.len() + n.len() != listed {
        "an id twice in one list"
    } else if v.is_empty() && listed > 0 {
        "members but no voter"
    } else if !l.is_disjoint(&v) || !l.is_disjoint(&o) {
        "a learner that is a voter"
    } else if !n.is_subset(&o) || !n.is_disjoint(&v) {
        "a next learner that is not an outgoing voter"
    } else if *auto_leave && o.is_empty() {
        "auto_leave, and is not joint"
    } else {
        let mut conf = ConfState::default();
        conf.set_voters(members.0);
        conf.set_learners(members.1);
        conf.set_voters_outgoing(members.2);
        conf.set_learners_next(members.3);
        conf.set_auto_leave(members.4);
        return Ok(conf);
    };
    wrong(format!("the configuration has {problem}"))
}

pub fn is_voter(conf: &ConfState, id: u64) -> bool {
    conf.voters.contains(&id) || conf.voters_outgoing.contains(&id)
}

/// `changes`: (0 add voter | 1 remove | 2 add learner, id). `transition`: 0 joint only if needed, 1
/// joint and left by itself, 2 joint until it is left.
pub fn change(changes: &[(i32, u64)], transition: i32) -> Result<ConfChangeV2> {
    let Some(mut transition) = ConfChangeTransition::from_i32(transition) else {
        return wrong(format!("no transition {transition}"));
    };
    if changes.is_empty() {
        // Only so does raft-rs take it for leaving; else it would commit what can never be applied.
        transition = ConfChangeTransition::Auto;
    }
    let mut change = ConfChangeV2 {
        transition,
        ..Default::default()
    };
    for &(kind, node_id) in changes {
        let Some(change_type) = ConfChangeType::from_i32(kind) else {
            return wrong(format!("no change {kind}"));
        };
        if node_id == 0 {
            return wrong("a change of the id 0");
        }
        change.mut_changes().push(ConfChangeSingle {
            change_type,
            node_id,
            ..Default::default()
        });
    }
    Ok(change)
}

/// Refuses a change that every member would refuse once it is committed, so that no such entry
/// gets into the log. Needs that no change is under way.
pub fn check(change: &ConfChangeV2, tracker: &ProgressTracker) -> Result<()> {
    let mut changer = Changer::new(tracker);
    let outcome = if change.leave_joint() {
        changer.leave_joint()
    } else if let Some(auto_leave) = change.enter_joint() {
        changer.enter_joint(auto_leave, &change.changes)
    } else {
        changer.simple(&change.changes)
    };
    outcome.map(drop).map_err(|e| Fail::Value(e.to_string()))
}

/// The change that a committed entry of kind 1 (`ConfChange`) or 2 (`ConfChangeV2`) holds.
pub fn decode_change(kind: i32, data: &[u8]) -> Result<ConfChangeV2> {
    match EntryType::from_i32(kind) {
        Some(EntryType::EntryConfChange) => {
            let single: ConfChange = message::parse(data, "change of members")?;
            let mut change = ConfChangeV2::default();
            change.mut_changes().push(ConfChangeSingle {
                change_type: single.change_type,
                node_id: single.node_id,
                ..Default::default()
            });
            Ok(change)
        }
        Some(EntryType::EntryConfChangeV2) => {
            let change: ConfChangeV2 = message::parse(data, "change of members")?;
            if change.changes.iter().any(message::has_unknown) {
                return wrong("bad change of members: unknown field or value");
            }
            Ok(change)
        }
        _ => wrong(format!("an entry of kind {kind} is no change of members")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_round_trip() {
        let joint = (vec![1, 2], vec![3], vec![1, 4], vec![4], true);
        for members in [joint, Members::default()] {
            assert_eq!(to_members(&from_members(members.clone()).unwrap()), members);
        }
    }

    #[test]
    fn impossible_members_are_refused() {
        for bad in [
            (vec![0], vec![], vec![], vec![], false),
            (vec![1, 1], vec![], vec![], vec![], false),
            (vec![], vec![1], vec![], vec![], false),
            (vec![1], vec![1], vec![], vec![], false),
            (vec![1], vec![2], vec![2], vec![], false),
            (vec![1], vec![], vec![], vec![2], false),
            (vec![1], vec![], vec![1, 2], vec![1], false),
            (vec![1], vec![], vec![], vec![], true),
        ] {
            assert!(from_members(bad.clone()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn unknown_values_are_refused() {
        assert!(change(&[(3, 1)], 0).is_err());
        assert!(change(&[(0, 0)], 0).is_err());
        assert!(change(&[(0, 1)], 3).is_err());
        assert!(decode_change(0, &[]).is_err());
        // ConfChangeSingle with type 9, alone and inside a ConfChangeV2.
        assert!(decode_change(1, &[0x10, 9, 0x18, 1]).is_err());
        assert!(decode_change(2, &[0x12, 4, 0x08, 9, 0x10, 1]).is_err());
        // A field 30 inside.
        assert!(decode_change(2, &[0x12, 5, 0x10, 1, 0xf0, 1, 1]).is_err());
        assert!(decode_change(2, &[0x12, 2, 0x10, 1]).is_ok());
    }

    #[test]
    fn no_changes_mean_leave_whatever_the_transition() {
        for transition in 0..3 {
            assert!(change(&[], transition).unwrap().leave_joint());
        }
        assert!(decode_change(2, &[]).unwrap().leave_joint());
    }
}
