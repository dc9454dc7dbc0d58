//! One absolute end per request; every phase takes the sooner of its own limit and what is left.

use std::time::{Duration, Instant};

/// When a request must be over, fixed once, when it is routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(Instant);

/// The end of one phase, and which limit sets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    pub at: Instant,
    /// The whole request ends here, not only the phase.
    pub is_final: bool,
}

impl Deadline {
    pub fn after(now: Instant, timeout: Duration) -> Self {
        Self(now + timeout)
    }

    /// The end of a phase that begins `now` and may last `limit`.
    pub fn bound(self, now: Instant, limit: Duration) -> Bound {
        let phase = now + limit;
        Bound { at: phase.min(self.0), is_final: self.0 <= phase }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_ends_with_its_limit_or_with_the_request_whichever_is_sooner() {
        let now = Instant::now();
        let deadline = Deadline::after(now, Duration::from_secs(10));
        let short = deadline.bound(now, Duration::from_secs(2));
        assert_eq!(short, Bound { at: now + Duration::from_secs(2), is_final: false });
        let late = deadline.bound(now + Duration::from_secs(9), Duration::from_secs(2));
        assert_eq!(late, Bound { at: now + Duration::from_secs(10), is_final: true });
    }
}
