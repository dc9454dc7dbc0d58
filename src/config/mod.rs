//! What the operator wrote becomes a frozen [`Plan`], or a list of all that is wrong with it.
//!
//! [`load`] and [`parse`] are the only doors. The way through: `json` reads the text and notices keys that are there
//! twice; `shape` checks the tree against the schema and takes out what does not fit; serde reads the rest into the
//! types of `raw`; `resolve` follows references, fills in defaults from [`limits`], reads certificates by
//! [`certificate`], checks every value and turns names into indices. Each of them adds to one list of [`Complaints`], so that a file is put right in one go. This room
//! never keeps state and knows no type of the running system.

pub mod certificate;
mod complaint;
pub mod fuzzing;
mod json;
pub mod limits;
mod pattern;
pub mod plan;
mod raw;
mod reference;
pub mod reread;
mod resolve;
pub mod secret;
mod shape;
mod units;
pub mod validity;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::Deserialize;

pub use complaint::{Complaint, Complaints};
pub use pattern::{PathPattern, PatternError, Segment};
pub use reference::Environment;

use plan::Plan;

/// Reads the configuration at `path`; what it refers to is relative to its directory.
///
/// # Errors
///
/// Everything that is wrong with the file, or the one reason why it cannot be read.
pub fn load(path: &Path, environment: Environment<'_>) -> Result<Plan, Complaints> {
    let text = read_file(path).map_err(|error| Complaint {
        path: String::new(),
        value: String::new(),
        problem: format!("{} cannot be read: {error}", path.display()),
        remedy: "name a readable JSON file".to_owned(),
    })?;
    parse(&text, path.parent().unwrap_or(Path::new("")), environment)
}

/// Reads a configuration from memory; what it refers to is relative to `directory`.
///
/// # Errors
///
/// Everything that is wrong with the text. No text makes this panic.
pub fn parse(text: &str, directory: &Path, environment: Environment<'_>) -> Result<Plan, Complaints> {
    let mut complaints = Vec::new();
    let document = json::read(text, &mut complaints)?;
    let mut fitting = document.clone();
    shape::check(&mut fitting, &shape::schema_of::<raw::Config>(), &mut complaints);
    if !document.is_object() {
        return Err(Complaints::new(complaints).expect("only an object fits the schema"));
    }
    // The shape was checked, so this reads everything that is left; should schema and types ever disagree, serde says
    // where.
    let config = raw::Config::deserialize(fitting).map_err(|error| Complaint {
        path: String::new(),
        value: String::new(),
        problem: format!("it does not fit: {error}"),
        remedy: "see the schema".to_owned(),
    })?;
    resolve::resolve(&config, resolve::Context { document: &document, directory, environment, complaints })
}

/// The JSON Schema of the configuration, for editors and other machines.
pub fn schema() -> String {
    let mut text = serde_json::to_string_pretty(&shape::schema_of::<raw::Config>()).expect("a schema is plain JSON");
    text.push('\n');
    text
}

fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?.take(limits::CONFIG_FILE + 1).read_to_string(&mut text)?;
    if read as u64 > limits::CONFIG_FILE {
        return Err(io::Error::other(format!("it is longer than {} bytes", limits::CONFIG_FILE)));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
