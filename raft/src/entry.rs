//! A log entry as its plain fields: the durable log stores these and needs no codec.
use crate::fail::{wrong, Result};
use protobuf::ProtobufEnum;
use raft::prelude::*;

/// Index, term, kind, data, context; kind 0 normal, 1 `ConfChange`, 2 `ConfChangeV2`.
pub type Fields<'a> = (u64, u64, i32, &'a [u8], &'a [u8]);

pub fn from_fields((index, term, kind, data, context): Fields<'_>) -> Result<Entry> {
    let Some(entry_type) = EntryType::from_i32(kind) else {
        return wrong(format!("entry {index}: no entry kind {kind}"));
    };
    Ok(Entry {
        index,
        term,
        entry_type,
        data: data.to_vec().into(),
        context: context.to_vec().into(),
        ..Default::default()
    })
}

/// An entry of a proposal: raft-rs fills in index and term.
pub fn proposal(data: &[u8]) -> Result<Entry> {
    // Without data it would look like the entry with which a leader begins its term.
    if data.is_empty() {
        return wrong("an empty proposal");
    }
    Ok(Entry {
        data: data.to_vec().into(),
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_become_an_entry() {
        let e = from_fields((9, 3, 2, &[0, 255], &[1])).unwrap();
        assert_eq!((e.index, e.term, e.entry_type as i32), (9, 3, 2));
        assert_eq!((&e.data[..], &e.context[..]), (&[0, 255][..], &[1][..]));
    }

    #[test]
    fn an_unknown_kind_and_an_empty_proposal_are_refused() {
        assert!(from_fields((9, 3, 3, &[], &[])).is_err());
        assert!(from_fields((9, 3, -1, &[], &[])).is_err());
        assert!(proposal(&[]).is_err());
    }
}
