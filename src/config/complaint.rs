//! What is wrong with a configuration, said so that it can be put right without reading any source.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

/// Characters of a value that a complaint repeats.
const SHOWN_VALUE_CHARS: usize = 60;

/// One thing to put right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Complaint {
    /// Where, as in `upstreams.orders.endpoints[0]`; empty for the file as a whole.
    pub path: String,
    /// What stands there, as written and cut to a line. Empty if nothing stands there or it may be a secret; never what
    /// a reference gave.
    pub value: String,
    /// What is wrong with it.
    pub problem: String,
    /// What to write instead.
    pub remedy: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "the file" } else { &self.path };
        match self.value.as_str() {
            "" => writeln!(f, "{path}")?,
            value => writeln!(f, "{path} = {value}")?,
        }
        writeln!(f, "  problem: {}", self.problem)?;
        writeln!(f, "  remedy:  {}", self.remedy)
    }
}

/// All that is wrong with one file; never empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(transparent)]
pub struct Complaints(Vec<Complaint>);

impl Complaints {
    /// `None` if there is nothing to complain about.
    pub(super) fn new(complaints: Vec<Complaint>) -> Option<Self> {
        (!complaints.is_empty()).then_some(Self(complaints))
    }

    /// In the order in which they were found, which is about that of the file's sections.
    pub fn iter(&self) -> std::slice::Iter<'_, Complaint> {
        self.0.iter()
    }

    /// For machines: a JSON list of objects with `path`, `value`, `problem` and `remedy`.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("strings always serialize")
    }
}

impl From<Complaint> for Complaints {
    fn from(complaint: Complaint) -> Self {
        Self(vec![complaint])
    }
}

/// One block each, with an empty line between.
impl fmt::Display for Complaints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, complaint) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{complaint}")?;
        }
        Ok(())
    }
}

/// Where in the document something stands: a list that grows on the stack of whoever walks down.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    parent: Option<&'a Place<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Key(&'a str),
    Index(usize),
}

impl<'a> Place<'a> {
    pub const ROOT: Place<'static> = Place { parent: None, step: Step::Root };

    pub fn key(&'a self, key: &'a str) -> Place<'a> {
        Place { parent: Some(self), step: Step::Key(key) }
    }

    pub fn index(&'a self, index: usize) -> Place<'a> {
        Place { parent: Some(self), step: Step::Index(index) }
    }

    /// What stands here.
    pub fn find<'d>(&self, document: &'d Value) -> Option<&'d Value> {
        let parent = match self.parent {
            Some(parent) => parent.find(document)?,
            None => document,
        };
        match self.step {
            Step::Root => Some(parent),
            Step::Key(key) => parent.get(key),
            Step::Index(index) => parent.get(index),
        }
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(parent) = self.parent else { return Ok(()) };
        parent.fmt(f)?;
        match self.step {
            Step::Root => Ok(()),
            Step::Key(key) if is_plain(key) => {
                let dot = if parent.parent.is_some() { "." } else { "" };
                write!(f, "{dot}{key}")
            }
            Step::Key(key) => write!(f, "[{}]", Value::from(key)),
            Step::Index(index) => write!(f, "[{index}]"),
        }
    }
}

fn is_plain(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_$".contains(&byte))
}

/// A value as a complaint shows it: on one line, cut short, and of containers only what they are, because secrets may
/// lie deeper.
pub(super) fn shown(value: &Value) -> String {
    let text = match value {
        Value::Object(_) => return "{..}".to_owned(),
        Value::Array(items) if items.is_empty() => return "[]".to_owned(),
        Value::Array(_) => return "[..]".to_owned(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    };
    match text.char_indices().nth(SHOWN_VALUE_CHARS) {
        Some((end, _)) => format!("{}..", &text[..end]),
        None => text,
    }
}

/// The known word that was probably meant, if one is near enough to be a slip of the fingers.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Distance is quadratic in length, and nobody misspells a name of this many bytes.
    if word.len() > 128 {
        return None;
    }
    let tolerated = (word.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= tolerated)
        .min()
        .map(|(_, candidate)| candidate)
}

/// "did you mean" where a near word is known, otherwise all that is known.
pub(super) fn suggestion<'a>(word: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    if let Some(near) = nearest(word, known.clone()) {
        return format!("did you mean \"{near}\"?");
    }
    let mut names = known.into_iter().take(MOST_NAMES_LISTED + 1).map(|name| format!("\"{name}\"")).collect::<Vec<_>>();
    match names.len() {
        0 => "there is none to choose from: define it, or leave this out".to_owned(),
        1 => format!("write {}", names[0]),
        count => {
            if count > MOST_NAMES_LISTED {
                names[MOST_NAMES_LISTED] = "..".to_owned();
            }
            format!("use one of {}", names.join(", "))
        }
    }
}

/// Names in a list of what could be written; more would not be read.
const MOST_NAMES_LISTED: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_as_a_json_path() {
        let upstreams = Place::ROOT.key("upstreams");
        let odd = upstreams.key("or.ders");
        let endpoints = odd.key("endpoints");

        assert_eq!(endpoints.index(3).to_string(), r#"upstreams["or.ders"].endpoints[3]"#);
        assert_eq!(Place::ROOT.to_string(), "");
    }

    #[test]
    fn a_slip_finds_its_word_and_another_word_does_not() {
        let known = ["listener", "host", "path", "methods"];

        assert_eq!(nearest("listner", known), Some("listener"));
        assert_eq!(nearest("method", known), Some("methods"));
        assert_eq!(nearest("upstream", known), None);
    }

    #[test]
    fn long_values_are_cut_and_containers_are_not_opened() {
        assert_eq!(shown(&Value::from("ä".repeat(100))).chars().count(), SHOWN_VALUE_CHARS + 2);
        assert_eq!(shown(&serde_json::json!({"password": "x"})), "{..}");
    }
}
