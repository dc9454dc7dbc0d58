//! `$env(NAME)` and `$file(path)` in strings.
//!
//! Several may stand in one string with text around them. `$$` is one dollar sign; a dollar sign that begins no
//! reference is itself, so that `"$5"` needs no escape. A file's final newline is not part of what it gives, because
//! editors add it and a header field must not have it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use zeroize::Zeroizing;

use super::limits;

/// Looks a variable up; `None` if it is not set or not UTF-8.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What a string is once its references are followed.
pub(super) struct Expanded {
    pub text: Zeroizing<String>,
    /// Whether anything came from outside of the file.
    pub secret: bool,
}

/// Why a reference leads nowhere. None of the messages repeats what a reference gave.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReferenceError {
    #[error("a reference has no closing parenthesis")]
    Unclosed,
    #[error("there is no reference \"${0}(..)\"")]
    Unknown(String),
    #[error("the environment variable {0} is not set, or is not UTF-8")]
    Variable(String),
    #[error("{path} cannot be read: {source}")]
    File { path: String, source: io::Error },
    #[error("what {0} gives is longer than {limit} bytes", limit = limits::REFERENCE)]
    TooLong(String),
}

impl ReferenceError {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::Unclosed => "end it with \")\"; for a plain dollar sign write \"$$\"".to_owned(),
            Self::Unknown(_) => {
                "write \"$env(NAME)\" or \"$file(path)\"; for a plain dollar sign write \"$$\"".to_owned()
            }
            Self::Variable(name) => format!("set {name} in the environment that starts the gateway"),
            Self::File { .. } => "name a readable text file; its path is relative to the configuration file".to_owned(),
            Self::TooLong(_) => "refer to something shorter".to_owned(),
        }
    }
}

/// Follows every reference in `text`.
pub(super) fn expand(text: &str, directory: &Path, environment: Environment<'_>) -> Result<Expanded, ReferenceError> {
    let mut expanded = Expanded { text: Zeroizing::new(String::new()), secret: false };
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        expanded.append(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            expanded.append("$");
            rest = after;
            continue;
        }
        let word_end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (word, after) = rest.split_at(word_end);
        let (false, Some(argument)) = (word.is_empty(), after.strip_prefix('(')) else {
            expanded.append("$");
            continue;
        };
        let (argument, after) = argument.split_once(')').ok_or(ReferenceError::Unclosed)?;
        let given = match word {
            "env" => variable(argument, environment)?,
            "file" => file(argument, directory)?,
            _ => return Err(ReferenceError::Unknown(word.to_owned())),
        };
        expanded.append(&given);
        expanded.secret = true;
        rest = after;
    }
    expanded.append(rest);
    Ok(expanded)
}

impl Expanded {
    /// Grows by moving to a new allocation and wiping the old one; growing in place would leave a copy behind.
    fn append(&mut self, more: &str) {
        if self.text.capacity() - self.text.len() < more.len() {
            let mut larger = String::with_capacity((self.text.len() + more.len()) * 2);
            larger.push_str(&self.text);
            self.text = Zeroizing::new(larger);
        }
        self.text.push_str(more);
    }
}

fn variable(name: &str, environment: Environment<'_>) -> Result<Zeroizing<String>, ReferenceError> {
    let given = environment(name).map(Zeroizing::new).ok_or_else(|| ReferenceError::Variable(name.to_owned()))?;
    if given.len() as u64 > limits::REFERENCE {
        return Err(ReferenceError::TooLong(format!("the variable {name}")));
    }
    Ok(given)
}

fn file(name: &str, directory: &Path) -> Result<Zeroizing<String>, ReferenceError> {
    let failed = |source| ReferenceError::File { path: name.to_owned(), source };
    let path = directory.join(name);
    // A pipe or a device could block or never end.
    let metadata = path.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(failed(io::Error::other("it is not a regular file")));
    }
    // The whole room at once: a buffer that grows would leave copies of its start behind.
    let room = metadata.len().min(limits::REFERENCE) as usize + 1;
    let mut given = Zeroizing::new(String::with_capacity(room));
    let read = File::open(path).and_then(|file| file.take(limits::REFERENCE + 1).read_to_string(&mut given));
    if read.map_err(failed)? as u64 > limits::REFERENCE {
        return Err(ReferenceError::TooLong(name.to_owned()));
    }
    let trimmed = given.strip_suffix('\n').map(|text| text.strip_suffix('\r').unwrap_or(text)).unwrap_or(&given).len();
    given.truncate(trimmed);
    Ok(given)
}
