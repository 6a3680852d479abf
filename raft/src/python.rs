//! The module, its errors, and tuples of bytes and integers for Python.
use crate::conf::{self, Members};
use crate::fail::Fail;
use crate::message::Encoded;
use crate::node::RaftNode;
use crate::turn::{Rest, Turn};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use raft::prelude::*;

pyo3::create_exception!(grampus_raft, RaftError, PyRuntimeError);
pyo3::create_exception!(grampus_raft, ProposalDropped, RaftError);
pyo3::create_exception!(grampus_raft, RaftFatal, RaftError);
pyo3::create_exception!(grampus_raft, EntriesLost, RaftFatal);

impl From<Fail> for PyErr {
    fn from(fail: Fail) -> PyErr {
        match fail {
            Fail::Value(text) => PyValueError::new_err(text),
            Fail::Dropped(text) => ProposalDropped::new_err(text),
            Fail::Raft(e) => RaftError::new_err(e.to_string()),
            Fail::Fatal(text) => RaftFatal::new_err(text),
            Fail::Lost(text) => EntriesLost::new_err(text),
        }
    }
}

pub type Bytes<'py> = Bound<'py, PyBytes>;
/// (index, term, kind, data, context)
pub type PyEntry<'py> = (u64, u64, i32, Bytes<'py>, Bytes<'py>);
/// (to, type, encoded)
pub type PyMessage<'py> = (u64, i32, Bytes<'py>);
/// (must_sync, hard_state, entries, snapshot, messages, persisted_messages, committed, reads,
/// (leader, role))
pub type PyReady<'py> = (
    bool,
    Option<(u64, u64, u64)>,
    Vec<PyEntry<'py>>,
    Option<(u64, u64, Members, Bytes<'py>)>,
    Vec<PyMessage<'py>>,
    Vec<PyMessage<'py>>,
    Vec<PyEntry<'py>>,
    Vec<(u64, Bytes<'py>)>,
    Option<(u64, i32)>,
);
/// (commit, messages, committed)
pub type PyRest<'py> = (Option<u64>, Vec<PyMessage<'py>>, Vec<PyEntry<'py>>);

fn entries<'py>(py: Python<'py>, entries: &[Entry]) -> Vec<PyEntry<'py>> {
    let fields = |e: &Entry| {
        let data = PyBytes::new(py, &e.data);
        let context = PyBytes::new(py, &e.context);
        (e.index, e.term, e.entry_type as i32, data, context)
    };
    entries.iter().map(fields).collect()
}

fn messages<'py>(py: Python<'py>, messages: &[Encoded]) -> Vec<PyMessage<'py>> {
    messages
        .iter()
        .map(|(to, kind, bytes)| (*to, *kind, PyBytes::new(py, bytes)))
        .collect()
}

pub fn ready<'py>(py: Python<'py>, turn: &Turn) -> PyReady<'py> {
    let snapshot = turn.snapshot.as_ref().map(|s| {
        let meta = s.get_metadata();
        let members = conf::to_members(meta.get_conf_state());
        (meta.index, meta.term, members, PyBytes::new(py, &s.data))
    });
    let reads = turn.reads.iter();
    (
        turn.must_sync,
        turn.hard_state,
        entries(py, &turn.entries),
        snapshot,
        messages(py, &turn.messages),
        messages(py, &turn.persisted_messages),
        entries(py, &turn.committed),
        reads
            .map(|r| (r.index, PyBytes::new(py, &r.request_ctx)))
            .collect(),
        turn.soft_state,
    )
}

pub fn rest<'py>(py: Python<'py>, rest: &Rest) -> PyRest<'py> {
    (
        rest.commit,
        messages(py, &rest.messages),
        entries(py, &rest.committed),
    )
}

#[pymodule]
fn grampus_raft(m: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = m.py();
    m.add_class::<RaftNode>()?;
    m.add("RaftError", py.get_type::<RaftError>())?;
    m.add("ProposalDropped", py.get_type::<ProposalDropped>())?;
    m.add("RaftFatal", py.get_type::<RaftFatal>())?;
    m.add("EntriesLost", py.get_type::<EntriesLost>())?;
    Ok(())
}
