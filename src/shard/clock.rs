//! The only reader of time.

use std::time::{Instant, SystemTime};

/// The monotonic clock, which decides everything.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// The wall clock, for what is shown and for the ends of certificates.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}
