//! Why a call failed: whose fault it is decides which exception Python sees.

#[derive(Debug)]
pub enum Fail {
    /// The caller passed something wrong; nothing has changed.
    Value(String),
    /// A proposal cannot be taken now, or not here; nothing was appended.
    Dropped(String),
    /// raft-rs refused; the node can go on.
    Raft(raft::Error),
    /// The node's state is no longer known to be right.
    Fatal(String),
    /// So too, because it lacks what it had said was durable.
    Lost(String),
}

pub type Result<T> = std::result::Result<T, Fail>;

impl From<raft::Error> for Fail {
    fn from(error: raft::Error) -> Self {
        match error {
            raft::Error::ConfigInvalid(text) => Fail::Value(text),
            other => Fail::Raft(other),
        }
    }
}

/// A `Fail::Value`, as the error of a Result.
pub fn wrong<T>(text: impl Into<String>) -> Result<T> {
    Err(Fail::Value(text.into()))
}
