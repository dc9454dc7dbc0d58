//! What must not be seen: text that `$env(NAME)` and `$file(path)` gave, and private keys.
//!
//! It cannot be printed by accident, because its `Debug` and `Display` say nothing about it, and its memory is wiped
//! when it is dropped. That holds for this copy: what is sent is written into buffers that are used again and not wiped.
//! Whoever sends it says [`expose`](Secret::expose), which is a word to search for in a review.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::PrivateKeyDer;
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

/// A private key; see the module. Its clones share one copy.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey(Arc<Zeroizing<PrivateKeyDer<'static>>>);

impl PrivateKey {
    /// Takes the key over.
    pub fn new(key: PrivateKeyDer<'static>) -> Self {
        Self(Arc::new(Zeroizing::new(key)))
    }

    /// The key itself, for the place that signs with it.
    pub fn expose(&self) -> &PrivateKeyDer<'static> {
        &self.0
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
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

    #[test]
    fn a_private_key_is_not_printed() {
        let key = PrivateKey::new(PrivateKeyDer::Pkcs8(b"hunter2".to_vec().into()));

        assert_eq!(format!("{key:?}"), "PrivateKey(..)");
        assert_eq!(key.expose().secret_der(), b"hunter2");
    }
}
