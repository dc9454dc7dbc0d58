//! Warnings that a peer could cause as often as it likes, written at most once per second.

use std::cell::Cell;
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_secs(1);

/// One kind of warning of one shard.
#[derive(Default)]
pub struct Seldom {
    last: Cell<Option<Instant>>,
    left_out: Cell<u64>,
}

impl Seldom {
    /// Whether the warning is to be written now: then with how many were left out since the last one.
    pub fn admit(&self, now: Instant) -> Option<u64> {
        if self.last.get().is_some_and(|last| now < last + PAUSE) {
            self.left_out.set(self.left_out.get() + 1);
            return None;
        }
        self.last.set(Some(now));
        Some(self.left_out.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_in_a_second_the_first_is_written_and_the_next_says_how_many_were_not() {
        let seldom = Seldom::default();
        let start = super::super::clock::now();
        let at = |ms| seldom.admit(start + Duration::from_millis(ms));

        assert_eq!(
            [at(0), at(1), at(999), at(1000), at(1001), at(5000)],
            [Some(0), None, None, Some(2), None, Some(1)]
        );
    }
}
