//! Election timeouts from a seed, so that a simulation repeats exactly.
//!
//! raft-rs draws them from the operating system's randomness whenever it resets. Here its choice is
//! overwritten after every call, and a new one is drawn when term, role or leader has changed.
use crate::log::LogTail;
use raft::{Raft, StateRole};

pub struct SeededTimeouts {
    state: u64,
    min: usize,
    max: usize,
    drawn_for: Option<(u64, StateRole, u64)>,
    timeout: usize,
}

impl SeededTimeouts {
    /// Timeouts are `min <= t < max` ticks.
    pub fn new(seed: u64, min: usize, max: usize) -> Self {
        SeededTimeouts {
            state: seed,
            min,
            max,
            drawn_for: None,
            timeout: 0,
        }
    }

    pub fn impose(&mut self, raft: &mut Raft<LogTail>) {
        let situation = Some((raft.term, raft.state, raft.leader_id));
        if situation != self.drawn_for {
            self.timeout = self.draw();
            self.drawn_for = situation;
        }
        raft.set_randomized_election_timeout(self.timeout);
    }

    fn draw(&mut self) -> usize {
        self.min + (self.next() % (self.max - self.min) as u64) as usize
    }

    /// splitmix64
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_repeat_stay_in_range_and_reach_all_of_it() {
        let draws = |seed| {
            let mut timeouts = SeededTimeouts::new(seed, 10, 20);
            (0..200).map(|_| timeouts.draw()).collect::<Vec<_>>()
        };
        assert_eq!(draws(7), draws(7));
        assert_ne!(draws(7), draws(8));
        for t in 10..20 {
            assert!(draws(7).contains(&t));
        }
        assert!(draws(7).iter().all(|t| (10..20).contains(t)));
    }
}
