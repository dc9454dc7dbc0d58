//! JSON text into a tree, without looking the other way.
//!
//! `serde_json` keeps the last of two equal keys and says nothing. In a configuration the first of the two is then a
//! setting that somebody wrote, reads every day and does not have, so here it is a complaint.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::complaint::{Complaint, Place};

/// Reads one JSON document.
///
/// # Errors
///
/// The first fault of syntax, with its line and column. Keys that occur twice in one object are added to `complaints`
/// instead, and the first one's value is kept.
pub(super) fn read(text: &str, complaints: &mut Vec<Complaint>) -> Result<Value, Complaint> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let node = Node { place: Place::ROOT, complaints };
    node.deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value)).map_err(|error| {
        Complaint {
            path: String::new(),
            value: String::new(),
            problem: format!("it is not JSON: {error}"),
            remedy: "put the text right at that line and column; comments and trailing commas are not JSON".to_owned(),
        }
    })
}

/// Reads the value at one place.
struct Node<'a> {
    place: Place<'a>,
    complaints: &'a mut Vec<Complaint>,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) =
            items.next_element_seed(Node { place: self.place.index(list.len()), complaints: &mut *self.complaints })?
        {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let place = self.place.key(&key);
            let value = entries.next_value_seed(Node { place, complaints: &mut *self.complaints })?;
            if map.contains_key(&key) {
                self.complaints.push(Complaint {
                    path: place.to_string(),
                    value: String::new(),
                    problem: "the key is there twice".to_owned(),
                    remedy: "keep one of the two".to_owned(),
                });
                continue;
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_what_serde_json_reads() {
        let text = r#"{"a": [1, -2, 2.5, "x\u00e4", null, true, {"b": {}}], "c": 18446744073709551615}"#;
        let mut complaints = Vec::new();

        let value = read(text, &mut complaints).expect("it is JSON");

        assert_eq!(value, serde_json::from_str::<Value>(text).expect("it is JSON"));
        assert!(complaints.is_empty());
    }

    #[test]
    fn every_key_that_is_there_twice_is_a_complaint() {
        let mut complaints = Vec::new();

        read(r#"{"a": 1, "b": [{"c": 1, "c": 2}], "a": 3}"#, &mut complaints).expect("it is JSON");

        let paths = complaints.iter().map(|complaint| complaint.path.as_str()).collect::<Vec<_>>();
        assert_eq!(paths, ["b[0].c", "a"]);
    }

    #[test]
    fn a_fault_of_syntax_names_line_and_column() {
        for (text, position) in
            [("{\n  \"a\" 1\n}", "line 2 column 7"), ("{} x", "line 1 column 4"), ("", "line 1 column 0")]
        {
            let complaint = read(text, &mut Vec::new()).expect_err("it is not JSON");
            assert!(complaint.problem.contains(position), "{}", complaint.problem);
        }
    }

    #[test]
    fn deep_nesting_is_a_complaint_and_not_a_full_stack() {
        assert!(read(&"[".repeat(100_000), &mut Vec::new()).is_err());
    }
}
