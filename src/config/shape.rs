//! Checks a document against the schema, and takes away what does not fit.
//!
//! serde stops at the first fault, and an operator wants all of them. So the tree is walked along the schema that
//! [`raw`](super::raw) generates: unknown keys, wrong types and missing keys are complaints, and the value at fault is
//! removed, so that serde then reads the rest without a fault and [`resolve`](super::resolve) can go on to complain
//! about what the values mean. Because the schema itself is what is checked, it cannot say anything else than the
//! program does.
//!
//! Only the vocabulary that schemars produces for our types is understood: `$ref`, `type`, `properties`,
//! `additionalProperties`, `required`, `items` and `anyOf`. Bounds and enumerations are left to `resolve`, which knows
//! the units and the references.

use schemars::generate::SchemaSettings;
use schemars::transform::transform_subschemas;
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value};

use super::complaint::{Complaint, Place, nearest, shown, suggestion};

/// The schema of `T`, without `null`: a key is there with a value, or it is not there.
pub(super) fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with_transform(forbid_null);
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

fn forbid_null(schema: &mut Schema) {
    transform_subschemas(&mut forbid_null, schema);
    if let Some(types) = schema.get_mut("type")
        && let Value::Array(list) = types
    {
        list.retain(|name| name != "null");
        if let [only] = list.as_slice() {
            *types = only.clone();
        }
    }
    if let Some(Value::Array(branches)) = schema.get_mut("anyOf") {
        branches.retain(|branch| branch.get("type").is_none_or(|name| name != "null"));
        if let [Value::Object(only)] = branches.as_slice() {
            let only = only.clone();
            schema.remove("anyOf");
            for (key, value) in only {
                schema.insert(key, value);
            }
        }
    }
}

/// Checks `document` against `schema`, and leaves of it what fits.
pub(super) fn check(document: &mut Value, schema: &Value, complaints: &mut Vec<Complaint>) {
    let mut walk = Walk { root: schema, complaints };
    if !walk.fits(document, schema, &Place::ROOT) {
        *document = Value::Object(Map::new());
    }
}

struct Walk<'a> {
    root: &'a Value,
    complaints: &'a mut Vec<Complaint>,
}

impl<'a> Walk<'a> {
    /// Whether the value is of the type that the schema wants; if so, what does not fit inside of it is gone
    /// afterwards.
    fn fits(&mut self, value: &mut Value, schema: &'a Value, place: &Place<'_>) -> bool {
        let Some(schema) = self.branch_for(value, schema) else {
            let wanted = self.wanted(schema);
            self.complain(
                place,
                shown(value),
                format!("it is {}, and not {wanted}", kind(value)),
                format!("write {wanted} here"),
            );
            return false;
        };
        match value {
            Value::Object(object) => self.check_object(object, schema, place),
            Value::Array(list) => self.check_list(list, schema, place),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
        true
    }

    fn check_object(&mut self, object: &mut Map<String, Value>, schema: &'a Value, place: &Place<'_>) {
        let properties = schema["properties"].as_object();
        let others = schema.get("additionalProperties").filter(|others| others.is_object());
        object.retain(|key, value| {
            let place = place.key(key);
            match properties.and_then(|properties| properties.get(key)).or(others) {
                Some(schema) => self.fits(value, schema, &place),
                None => {
                    let known = properties.into_iter().flat_map(Map::keys).map(String::as_str);
                    let remedy = match nearest(key, known.clone()) {
                        Some(near) => format!("did you mean \"{near}\"?"),
                        None => format!("leave it out; {}", suggestion(key, known)),
                    };
                    self.complain(&place, String::new(), "there is no such key".to_owned(), remedy);
                    false
                }
            }
        });
        for key in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let place = place.key(key);
            let found = object.contains_key(key) || self.complaints.iter().any(|c| c.path == place.to_string());
            if !found {
                let wanted = properties.and_then(|properties| properties.get(key)).map(|schema| self.wanted(schema));
                let remedy = format!("add \"{key}\" with {}", wanted.unwrap_or("a value"));
                self.complain(&place, String::new(), "it is missing".to_owned(), remedy);
            }
        }
    }

    /// Items that do not fit become `null`, so that the others keep their index.
    fn check_list(&mut self, list: &mut [Value], schema: &'a Value, place: &Place<'_>) {
        let items = &schema["items"];
        for (index, item) in list.iter_mut().enumerate() {
            if !self.fits(item, items, &place.index(index)) {
                *item = Value::Null;
            }
        }
    }

    /// The part of the schema that is for values of this type.
    fn branch_for(&self, value: &Value, schema: &'a Value) -> Option<&'a Value> {
        let schema = self.follow(schema);
        match (&schema["type"], &schema["anyOf"]) {
            (Value::Null, Value::Array(branches)) => branches.iter().find_map(|branch| self.branch_for(value, branch)),
            (name, _) => (name == type_of(value)).then_some(schema),
        }
    }

    /// Behind a `$ref`, if it is one.
    fn follow(&self, schema: &'a Value) -> &'a Value {
        let definition = schema["$ref"].as_str().and_then(|name| self.root.pointer(name.strip_prefix('#')?));
        definition.unwrap_or(schema)
    }

    /// What the schema takes, in words.
    fn wanted(&self, schema: &'a Value) -> &'static str {
        let schema = self.follow(schema);
        if let (Value::Null, Value::Array(branches)) = (&schema["type"], &schema["anyOf"]) {
            let takes = |name: &str| branches.iter().any(|branch| self.follow(branch)["type"] == name);
            return if takes("array") {
                "a whole number or a list of them"
            } else {
                "a number of bytes or a string such as \"64KiB\""
            };
        }
        match schema["type"].as_str() {
            Some("object") => "an object",
            Some("array") => "a list",
            Some("string") => "a string",
            Some("boolean") => "true or false",
            _ => "a whole number from 0 on",
        }
    }

    fn complain(&mut self, place: &Place<'_>, value: String, problem: String, remedy: String) {
        self.complaints.push(Complaint { path: place.to_string(), value, problem, remedy });
    }
}

/// What JSON Schema calls the type of a value, where integers are those that serde reads into a `u64`.
fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
