//! Path patterns, `/fixed/{one_segment}/{*all_the_rest}`, and the paths that are made of their captures.
//!
//! A capture is a whole segment. Patterns are compared with paths that are already normalised, so a pattern that no
//! normalised path can equal (`/a/../b`, `/%7Euser`) is refused instead of never matching.

use std::fmt;

use super::limits;
use super::plan::RewritePart;

/// A path to match, as text and in its segments. There is no other way to make one than [`parse`](Self::parse).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    text: String,
    segments: Vec<Segment>,
}

/// What stands between two slashes of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Exactly this. Empty only after a final slash.
    Literal(String),
    /// `{name}`: any segment that is not empty.
    Capture(String),
    /// `{*name}`: all that follows, slashes included, also nothing. Only the last segment.
    Rest(String),
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("it does not begin with \"/\"")]
    NoSlash,
    #[error("it is longer than {limit} bytes", limit = limits::PATTERN)]
    TooLong,
    #[error("it has an empty segment (\"//\")")]
    EmptySegment,
    #[error("it has a \".\" or \"..\" segment, which requests no longer have when they are matched")]
    DotSegment,
    #[error("a capture is not a whole segment")]
    PartialCapture,
    #[error("a capture has no name of letters, digits and \"_\"")]
    BadName,
    #[error("two captures have the same name")]
    SameName,
    #[error("\"{{*rest}}\" is not the last segment")]
    RestNotLast,
    #[error("it has more than {limit} captures", limit = limits::CAPTURES)]
    TooManyCaptures,
    #[error("it has a character that a path cannot have: write it as %XX")]
    BadCharacter,
    #[error("it has a \"%\" escape that requests no longer have when they are matched")]
    BadEscape,
}

/// Why a text is no path to make of captures.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RewriteError {
    #[error("it does not begin with \"/\"")]
    NoSlash,
    #[error("it is longer than {limit} bytes", limit = limits::PATTERN)]
    TooLong,
    #[error("it has a \".\" or \"..\" segment")]
    DotSegment,
    #[error("a capture has no closing brace")]
    Unclosed,
    #[error("it has a capture that the match does not have")]
    UnknownCapture(String),
    #[error(transparent)]
    Literal(#[from] PatternError),
}

impl PathPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// The first reason why the text is none.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.len() > limits::PATTERN {
            return Err(PatternError::TooLong);
        }
        let Some(after_slash) = text.strip_prefix('/') else { return Err(PatternError::NoSlash) };
        let mut segments = Vec::new();
        for segment in after_slash.split('/') {
            match segments.last() {
                Some(Segment::Rest(_)) => return Err(PatternError::RestNotLast),
                Some(Segment::Literal(literal)) if literal.is_empty() => return Err(PatternError::EmptySegment),
                Some(Segment::Literal(_) | Segment::Capture(_)) | None => segments.push(Segment::parse(segment)?),
            }
        }
        let pattern = Self { text: text.to_owned(), segments };
        let names = pattern.captures().collect::<Vec<_>>();
        if names.len() > limits::CAPTURES {
            return Err(PatternError::TooManyCaptures);
        }
        if names.iter().enumerate().any(|(index, name)| names[..index].contains(name)) {
            return Err(PatternError::SameName);
        }
        Ok(pattern)
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Never empty: `/` is one empty literal.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Names of the captures, in order; never more than [`limits::CAPTURES`].
    pub fn captures(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Literal(_) => None,
            Segment::Capture(name) | Segment::Rest(name) => Some(name.as_str()),
        })
    }
}

impl PathPattern {
    /// Reads a path to send instead, `/fixed/{capture}`. A capture of the rest is `{rest}` here, and `{*rest}` is the
    /// same.
    pub(super) fn parse_rewrite(&self, text: &str) -> Result<Vec<RewritePart>, RewriteError> {
        if !text.starts_with('/') {
            return Err(RewriteError::NoSlash);
        }
        if text.len() > limits::PATTERN {
            return Err(RewriteError::TooLong);
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (literal, capture) = rest.split_at(rest.find('{').unwrap_or(rest.len()));
            check_literal(literal)?;
            if literal.split('/').any(|segment| segment == "." || segment == "..") {
                return Err(RewriteError::DotSegment);
            }
            if !literal.is_empty() {
                parts.push(RewritePart::Literal(literal.to_owned()));
            }
            let Some(capture) = capture.strip_prefix('{') else { break };
            let (name, after) = capture.split_once('}').ok_or(RewriteError::Unclosed)?;
            let name = name.strip_prefix('*').unwrap_or(name);
            let index = self.captures().position(|capture| capture == name);
            parts.push(RewritePart::Capture(index.ok_or_else(|| RewriteError::UnknownCapture(name.to_owned()))?));
            rest = after;
        }
        Ok(parts)
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Segment {
    fn parse(text: &str) -> Result<Self, PatternError> {
        if !text.contains(['{', '}']) {
            check_literal(text)?;
            return match text {
                "." | ".." => Err(PatternError::DotSegment),
                literal => Ok(Self::Literal(literal.to_owned())),
            };
        }
        let inside =
            text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).ok_or(PatternError::PartialCapture)?;
        let (name, rest) = match inside.strip_prefix('*') {
            Some(name) => (name, true),
            None => (inside, false),
        };
        if name.contains(['{', '}']) {
            return Err(PatternError::PartialCapture);
        }
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(PatternError::BadName);
        }
        Ok(if rest { Self::Rest(name.to_owned()) } else { Self::Capture(name.to_owned()) })
    }
}

/// Whether a piece of a path is in the form that a normalised path has: the characters of RFC 3986 section 3.3, escapes
/// in upper case and only where they are needed (section 6.2.2).
fn check_literal(text: &str) -> Result<(), PatternError> {
    let bytes = text.as_bytes();
    for (index, byte) in bytes.iter().enumerate() {
        match byte {
            b'%' => {
                let code = text.get(index + 1..index + 3).ok_or(PatternError::BadEscape)?;
                let upper = code.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'));
                let decoded = u8::from_str_radix(code, 16).map_err(|_| PatternError::BadEscape)?;
                if !upper || is_unreserved(decoded) {
                    return Err(PatternError::BadEscape);
                }
            }
            byte if is_unreserved(*byte) || b"!$&'()*+,;=:@/".contains(byte) => {}
            _ => return Err(PatternError::BadCharacter),
        }
    }
    Ok(())
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_cut_at_its_slashes() {
        let pattern = PathPattern::parse("/a/{x}/%20b/{*rest}").expect("it is a pattern");

        let literal = |text: &str| Segment::Literal(text.to_owned());
        assert_eq!(
            pattern.segments(),
            [literal("a"), Segment::Capture("x".to_owned()), literal("%20b"), Segment::Rest("rest".to_owned())]
        );
        assert_eq!(pattern.captures().collect::<Vec<_>>(), ["x", "rest"]);
        assert_eq!(PathPattern::parse("/").expect("it is a pattern").segments(), [literal("")]);
        assert_eq!(PathPattern::parse("/a/").expect("it is a pattern").segments(), [literal("a"), literal("")]);
    }

    #[test]
    fn what_no_path_can_equal_is_no_pattern() {
        for (text, error) in [
            ("", PatternError::NoSlash),
            ("a", PatternError::NoSlash),
            ("//", PatternError::EmptySegment),
            ("/a//b", PatternError::EmptySegment),
            ("/a/../b", PatternError::DotSegment),
            ("/a/.", PatternError::DotSegment),
            ("/a{x}", PatternError::PartialCapture),
            ("/{x}{y}", PatternError::PartialCapture),
            ("/{x", PatternError::PartialCapture),
            ("/{}", PatternError::BadName),
            ("/{*}", PatternError::BadName),
            ("/{a-b}", PatternError::BadName),
            ("/{x}/{x}", PatternError::SameName),
            ("/{*rest}/b", PatternError::RestNotLast),
            ("/{*rest}/", PatternError::RestNotLast),
            ("/{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}/{i}", PatternError::TooManyCaptures),
            ("/a b", PatternError::BadCharacter),
            ("/ä", PatternError::BadCharacter),
            ("/a?b", PatternError::BadCharacter),
            ("/%7Euser", PatternError::BadEscape),
            ("/%2f", PatternError::BadEscape),
            ("/%2", PatternError::BadEscape),
            ("/%+1", PatternError::BadEscape),
            ("/%ä", PatternError::BadEscape),
        ] {
            assert_eq!(PathPattern::parse(text), Err(error), "{text}");
        }
        assert_eq!(PathPattern::parse(&format!("/{}", "a".repeat(limits::PATTERN))), Err(PatternError::TooLong));
    }

    #[test]
    fn a_rewrite_names_captures_of_its_pattern() {
        let pattern = PathPattern::parse("/v2/{id}/{*rest}").expect("it is a pattern");
        let literal = |text: &str| RewritePart::Literal(text.to_owned());
        let capture = RewritePart::Capture;

        assert_eq!(
            pattern.parse_rewrite("/{rest}/of-{id}/"),
            Ok(vec![literal("/"), capture(1), literal("/of-"), capture(0), literal("/")])
        );
        assert_eq!(pattern.parse_rewrite("/{*rest}"), Ok(vec![literal("/"), capture(1)]));
        assert_eq!(pattern.parse_rewrite("/"), Ok(vec![literal("/")]));
        for (text, error) in [
            ("", RewriteError::NoSlash),
            ("{rest}", RewriteError::NoSlash),
            ("/{rest", RewriteError::Unclosed),
            ("/{x}", RewriteError::UnknownCapture("x".to_owned())),
            ("/{}", RewriteError::UnknownCapture(String::new())),
            ("/rest}", RewriteError::Literal(PatternError::BadCharacter)),
            ("/a?b={id}", RewriteError::Literal(PatternError::BadCharacter)),
            ("/../{id}", RewriteError::DotSegment),
        ] {
            assert_eq!(pattern.parse_rewrite(text), Err(error), "{text}");
        }
    }
}
