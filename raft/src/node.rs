//! The one class that Python sees: `Core` under a lock, entered with the GIL released.
use crate::conf::Members;
use crate::core::Core;
use crate::entry;
use crate::fail::Result;
use crate::python::{self, Bytes, PyEntry, PyReady, PyRest};
use crate::start::Start;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use raft::{Config, ReadOnlyOption};
use std::sync::Mutex;

#[pyclass(frozen, module = "grampus_raft")]
pub struct RaftNode {
    core: Mutex<Core>,
}

impl RaftNode {
    fn call<T: Send>(
        &self,
        py: Python<'_>,
        f: impl FnOnce(&mut Core) -> Result<T> + Send,
    ) -> PyResult<T> {
        // No call panics under the lock, so it is never poisoned.
        let run = || self.core.lock().unwrap_or_else(|e| e.into_inner()).call(f);
        Ok(py.detach(run)?)
    }
}

#[pymethods]
impl RaftNode {
    #[new]
    #[pyo3(signature = (id, hard_state, conf_state, base, entries, applied, *, election_tick=10,
        max_election_tick=20, heartbeat_tick=2, max_size_per_msg=1048576, max_inflight_msgs=256,
        max_uncommitted_size=67108864, max_committed_size_per_ready=16777216, check_quorum=true,
        pre_vote=true, lease_read=false, priority=0, tell_commits=true, seed=None))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        id: u64,
        hard_state: (u64, u64, u64),
        conf_state: Members,
        base: (u64, u64),
        entries: Vec<PyEntry<'_>>,
        applied: u64,
        election_tick: usize,
        max_election_tick: usize,
        heartbeat_tick: usize,
        max_size_per_msg: u64,
        max_inflight_msgs: usize,
        max_uncommitted_size: u64,
        max_committed_size_per_ready: u64,
        check_quorum: bool,
        pre_vote: bool,
        lease_read: bool,
        priority: i64,
        tell_commits: bool,
        seed: Option<u64>,
    ) -> PyResult<Self> {
        let read_only_option = match lease_read {
            true => ReadOnlyOption::LeaseBased,
            false => ReadOnlyOption::Safe,
        };
        let config = Config {
            id,
            election_tick,
            min_election_tick: election_tick,
            max_election_tick,
            heartbeat_tick,
            max_size_per_msg,
            max_inflight_msgs,
            max_uncommitted_size,
            max_committed_size_per_ready,
            check_quorum,
            pre_vote,
            read_only_option,
            priority,
            skip_bcast_commit: !tell_commits,
            ..Default::default()
        };
        let fields: Vec<entry::Fields<'_>> = entries
            .iter()
            .map(|(index, term, kind, data, context)| {
                (*index, *term, *kind, data.as_bytes(), context.as_bytes())
            })
            .collect();
        let core = py.detach(|| {
            let entries: Result<Vec<_>> = fields.into_iter().map(entry::from_fields).collect();
            let start = Start {
                hard_state,
                members: conf_state,
                base,
                entries: entries?,
                applied,
            };
            Core::new(config, start, seed)
        })?;
        Ok(RaftNode {
            core: Mutex::new(core),
        })
    }

    fn tick(&self, py: Python<'_>) -> PyResult<bool> {
        self.call(py, Core::tick)
    }

    fn campaign(&self, py: Python<'_>) -> PyResult<()> {
        self.call(py, Core::campaign)
    }

    fn step(&self, py: Python<'_>, messages: Vec<Bytes<'_>>) -> PyResult<usize> {
        let encoded: Vec<&[u8]> = messages.iter().map(|m| m.as_bytes()).collect();
        self.call(py, |core| core.step(&encoded))
    }

    fn propose(&self, py: Python<'_>, items: Vec<Bytes<'_>>) -> PyResult<(u64, u64)> {
        let items: Vec<&[u8]> = items.iter().map(|i| i.as_bytes()).collect();
        self.call(py, |core| core.propose(&items))
    }

    fn propose_conf_change(
        &self,
        py: Python<'_>,
        changes: Vec<(i32, u64)>,
        transition: i32,
        context: &[u8],
    ) -> PyResult<(u64, u64)> {
        self.call(py, |core| {
            core.propose_conf_change(&changes, transition, context)
        })
    }

    fn apply_conf_change(&self, py: Python<'_>, kind: i32, data: &[u8]) -> PyResult<Members> {
        self.call(py, |core| core.apply_conf_change(kind, data))
    }

    fn read_index(&self, py: Python<'_>, context: &[u8]) -> PyResult<bool> {
        self.call(py, |core| core.read_index(context))
    }

    fn tell_commit(&self, py: Python<'_>, to: Vec<u64>) -> PyResult<()> {
        self.call(py, |core| core.tell_commit(&to))
    }

    fn transfer_leader(&self, py: Python<'_>, to: u64) -> PyResult<()> {
        self.call(py, |core| core.transfer_leader(to))
    }

    fn report_unreachable(&self, py: Python<'_>, id: u64) -> PyResult<()> {
        self.call(py, |core| core.report_unreachable(id))
    }

    fn report_snapshot(&self, py: Python<'_>, id: u64, ok: bool) -> PyResult<()> {
        self.call(py, |core| core.report_snapshot(id, ok))
    }

    fn has_ready(&self, py: Python<'_>) -> PyResult<bool> {
        self.call(py, |core| Ok(core.has_ready()))
    }

    fn ready<'py>(&self, py: Python<'py>) -> PyResult<Option<PyReady<'py>>> {
        let turn = self.call(py, Core::ready)?;
        Ok(turn.map(|t| python::ready(py, &t)))
    }

    fn advance<'py>(&self, py: Python<'py>) -> PyResult<PyRest<'py>> {
        let rest = self.call(py, Core::advance)?;
        Ok(python::rest(py, &rest))
    }

    fn advance_apply(&self, py: Python<'_>, applied: u64) -> PyResult<()> {
        self.call(py, |core| core.advance_apply(applied))
    }

    fn set_snapshot(
        &self,
        py: Python<'_>,
        index: u64,
        conf_state: Members,
        data: &Bound<'_, PyBytes>,
    ) -> PyResult<()> {
        let data = data.as_bytes();
        self.call(py, |core| core.set_snapshot(index, conf_state, data))
    }

    fn compact(&self, py: Python<'_>, index: u64) -> PyResult<()> {
        self.call(py, |core| core.compact(index))
    }

    fn term(&self, py: Python<'_>, index: u64) -> PyResult<u64> {
        self.call(py, |core| core.term(index))
    }

    fn status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let seen = self.call(py, |core| Ok(core.status()))?;
        let status = PyDict::new(py);
        for (name, value) in seen.fields {
            status.set_item(name, value)?;
        }
        let peers = PyDict::new(py);
        for (id, peer) in seen.peers {
            peers.set_item(id, peer)?;
        }
        status.set_item("peers", peers)?;
        Ok(status)
    }
}
