//! Request ids: 128 bits as 32 lower-case hexadecimal digits, from a generator that the caller seeds.
//!
//! An id has to be unique, not secret: it ties log lines together and proves nothing.

/// The field that carries a request's id, both ways.
pub const FIELD: &str = "X-Request-Id";

/// Bytes of the longest incoming id that may be taken over.
pub const INCOMING_BYTES_MAX: usize = 128;

/// Makes ids: `splitmix64` twice for each, fast and well spread from any seed.
#[derive(Clone, Debug)]
pub struct RequestIds {
    state: u64,
    /// Keeps shards apart whose states meet.
    stream: u64,
}

impl RequestIds {
    /// `seed` must differ between shards and between starts of the process.
    pub fn new(seed: [u64; 2]) -> Self {
        RequestIds { state: seed[0], stream: seed[1] }
    }

    /// The next id.
    pub fn next_id(&mut self) -> RequestId {
        let high = self.next_word() ^ self.stream;
        let low = self.next_word();
        let mut digits = [0; 32];
        digits[..16].copy_from_slice(&hexadecimal(high));
        digits[16..].copy_from_slice(&hexadecimal(low));
        RequestId { digits }
    }

    /// Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014, with Stafford's mixing constants.
    fn next_word(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}

/// The digits of `word`, without a loop: half of the bits of each step move apart until every byte holds one digit.
fn hexadecimal(word: u64) -> [u8; 16] {
    const LOW_HALVES: u64 = 0x0f0f_0f0f_0f0f_0f0f;
    let spread = |half: u32| {
        let word = u64::from(half);
        let word = (word | word << 16) & 0x0000_ffff_0000_ffff;
        let word = (word | word << 8) & 0x00ff_00ff_00ff_00ff;
        let word = (word | word << 4) & LOW_HALVES;
        // Six more than a digit above nine carries into the upper half of its byte: those are letters.
        let letters = (word + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
        word + 0x3030_3030_3030_3030 + letters * u64::from(b'a' - b'0' - 10)
    };
    let mut digits = [0; 16];
    digits[..8].copy_from_slice(&spread((word >> 32) as u32).to_be_bytes());
    digits[8..].copy_from_slice(&spread(word as u32).to_be_bytes());
    digits
}

/// One id.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId {
    digits: [u8; 32],
}

impl RequestId {
    /// ASCII digits.
    pub fn as_bytes(&self) -> &[u8] {
        &self.digits
    }

    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.digits).expect("hexadecimal digits are ASCII")
    }
}

impl std::fmt::Debug for RequestId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// The incoming id, if it is one that may be logged and passed on: 1 to 128 letters, digits, `-`, `_`, `.`, `:`, `+`, `/` or `=`.
pub fn acceptable(value: &[u8]) -> Option<&str> {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:+/=".contains(byte);
    let fits = (1..=INCOMING_BYTES_MAX).contains(&value.len()) && value.iter().all(is_plain);
    fits.then(|| str::from_utf8(value).ok())?
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_follow_from_the_seed_and_differ() {
        let mut ids = RequestIds::new([7, 8]);
        let mut again = RequestIds::new([7, 8]);
        let mut other = RequestIds::new([7, 9]);
        let mut seen = HashSet::new();
        for _ in 0..1000 {
            let id = ids.next_id();
            assert_eq!(id, again.next_id());
            assert!(seen.insert(id));
            assert!(seen.insert(other.next_id()));
            assert_eq!(id.as_str().len(), 32);
            assert!(id.as_str().bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
        }
    }

    #[test]
    fn digits_are_those_of_the_standard_library() {
        let mut words = RequestIds::new([1, 2]);
        for word in [0, 1, u64::MAX, 0x0123_4567_89ab_cdef, 0x9a9a_a9a9_0f0f_f0f0]
            .into_iter()
            .chain((0..1000).map(|_| words.next_word()))
        {
            assert_eq!(hexadecimal(word), format!("{word:016x}").as_bytes());
        }
    }

    #[test]
    fn incoming_ids_are_bounded_and_plain() {
        for accepted in ["a", "7f3a-42", "Root=1-67891233-abcdef012345678912345678", &"a".repeat(128)] {
            assert_eq!(acceptable(accepted.as_bytes()), Some(accepted));
        }
        for refused in ["", "a b", "a,b", "a\"b", "a\\b", "<a>", "\u{e9}", "a\n", &"a".repeat(129)] {
            assert_eq!(acceptable(refused.as_bytes()), None, "{refused:?}");
        }
    }
}
