//! What must hold for any text at all. The fuzz target calls this, and a test replays the committed corpus through it.

use std::path::Path;

/// Any bytes are a plan or complaints, each of which can be shown; nothing panics.
pub fn any_text(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    // A name that no environment has, so that the text alone decides.
    let environment = |name: &str| (name == "SET").then(|| "value".to_owned());
    if let Err(complaints) = super::parse(text, Path::new("/nonexistent"), &environment) {
        assert!(!complaints.to_string().is_empty());
        assert!(complaints.to_json().starts_with('['));
    }
}
