//! The files under `config/` are promises: every example loads, every broken file gets exactly the complaints that
//! stand beside it, the schema is the one that the program prints, and the manual knows every key.
//!
//! `UPDATE_EXPECTED=1 cargo test --test config_examples` writes the schema and the expected complaints anew; read the
//! difference.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use postern::config::{self, Complaints, plan::Plan};
use serde_json::Value;

/// The environment that the examples are written for.
fn environment(name: &str) -> Option<String> {
    (name == "ORIGIN_SECRET").then(|| "not-in-any-complaint".to_owned())
}

fn load(path: &Path) -> Result<Plan, Complaints> {
    config::load(path, &environment)
}

fn json_files(directory: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut files = entries.map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    files
}

/// Compares a file with what it should be, or makes it so when asked to.
fn assert_is(path: &Path, expected: &str) {
    if env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(path, expected).unwrap();
    }
    let committed = fs::read_to_string(path).unwrap_or_default();
    assert_eq!(committed, expected, "{} is not up to date", path.display());
}

fn schema_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/postern.schema.json")
}

#[test]
fn every_example_loads_and_names_the_schema() {
    let examples = json_files("config").into_iter().filter(|path| *path != schema_path()).collect::<Vec<_>>();
    assert!(examples.len() >= 10);
    for path in examples {
        if let Err(complaints) = load(&path) {
            panic!("{}:\n{complaints}", path.display());
        }
        let document = serde_json::from_str::<Value>(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(document["$schema"], "postern.schema.json", "{}", path.display());
    }
}

#[test]
fn every_broken_file_gets_exactly_the_complaints_beside_it() {
    let broken = json_files("config/broken");
    assert!(!broken.is_empty());
    for path in broken {
        let complaints = load(&path).expect_err("a file under config/broken is broken").to_string();
        assert!(!complaints.contains("not-in-any-complaint"), "{complaints}");
        assert_is(&path.with_extension("txt"), &complaints);
    }
}

#[test]
fn the_committed_schema_is_the_generated_one() {
    assert_is(&schema_path(), &config::schema());
}

#[test]
fn the_manual_has_a_row_with_its_default_for_every_key_of_the_schema() {
    let manual = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/README.md")).unwrap();
    let rows = manual.lines().filter(|line| line.starts_with('|')).collect::<Vec<_>>();
    let schema = serde_json::from_str::<Value>(&config::schema()).unwrap();
    let mut keys = Vec::new();
    collect_keys(&schema, &mut keys);
    assert!(keys.iter().any(|(key, _)| *key == "max_requests_per_connection"));

    for (key, schema) in keys {
        let default = match &schema["default"] {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => String::new(),
        };
        let is_there = rows.iter().any(|row| row.contains(&format!("`{key}`")) && row.contains(&default));
        assert!(is_there, "config/README.md has no row for `{key}` with the default {default:?}");
    }
}

/// Every key of every section, with its own schema.
fn collect_keys<'a>(schema: &'a Value, keys: &mut Vec<(&'a str, &'a Value)>) {
    for (key, schema) in schema["properties"].as_object().into_iter().flatten() {
        keys.push((key, schema));
    }
    schema["$defs"].as_object().into_iter().flatten().for_each(|(_, section)| collect_keys(section, keys));
}
