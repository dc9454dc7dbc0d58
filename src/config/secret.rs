//! Text that must not be seen: what `$env(NAME)` and `$file(path)` gave.
//!
//! It cannot be printed by accident, because its `Debug` and `Display` say nothing about it, and its memory is wiped
//! when it is dropped. That holds for this copy: what is sent is written into buffers that are used again and not wiped.
//! Whoever sends it says [`expose`](Secret::expose), which is a word to search for in a review.

use std::fmt;

use zeroize::Zeroizing;

/// Text from outside of the file; see the module.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the text over; the copy that the caller may still hold is the caller's to wipe.
    pub fn new(text: Zeroizing<String>) -> Self {
        Self(text)
    }

    /// The text itself, for the place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// A value that goes onto the wire and may be secret: the value of a field, the body of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Text {
    /// All of it stands in the file.
    Plain(String),
    /// Some of it came from a `$env(NAME)` or `$file(path)`.
    Secret(Secret),
}

impl Text {
    /// The text itself, for the place that sends it.
    pub fn expose(&self) -> &str {
        match self {
            Self::Plain(text) => text,
            Self::Secret(secret) => secret.expose(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_printed() {
        let secret = Secret::new(Zeroizing::new("hunter2".to_owned()));
        let text = Text::Secret(secret.clone());

        let printed = format!("{secret} {secret:?} {text:?}");

        assert_eq!(printed, "(secret) Secret(..) Secret(Secret(..))");
        assert_eq!(text.expose(), "hunter2");
    }
}
