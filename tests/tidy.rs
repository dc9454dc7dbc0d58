//! The repository tests itself: rooms import only what they may, files stay short, banned words stay out, links in the documents lead somewhere.

use std::fs;
use std::path::{Path, PathBuf};

/// A file above this has a second reason to change.
const FILE_LINES: usize = 620;

struct Room {
    path: &'static str,
    /// Words that may not appear in its code, each with the reason.
    banned: &'static [(&'static str, &'static str)],
}

const ROOMS: &[Room] = &[
    Room {
        path: "src/config",
        banned: &[
            ("crate::logic", "config knows no policy: others read its plan"),
            ("crate::ring", "config knows no runtime"),
            ("crate::shard", "config knows no runtime"),
            ("crate::mesh", "config knows no runtime"),
            ("RefCell", "a plan is frozen"),
        ],
    },
    Room {
        path: "src/logic",
        banned: &[
            ("crate::ring", "logic does no I/O"),
            ("crate::shard", "logic does not know who runs it"),
            ("crate::mesh", "logic knows one core only"),
            ("async ", "logic is synchronous: facts in, decisions out"),
            (".await", "logic is synchronous: facts in, decisions out"),
            ("Instant::now", "time is an argument"),
            ("SystemTime", "time is an argument"),
            ("std::rc::", "logic is plain values"),
            ("std::cell::", "logic is plain values"),
            ("std::net::Tcp", "logic does no I/O"),
            ("std::fs::", "logic does no I/O"),
            ("thread_local", "logic has no hidden state"),
            ("Mutex", "logic has one owner"),
        ],
    },
    Room {
        path: "src/ring",
        banned: &[
            ("crate::logic", "the ring takes no decisions"),
            ("crate::config", "the ring is configured by arguments"),
            ("crate::shard", "the ring does not know who drives it"),
            ("crate::mesh", "the ring offers a doorbell; who rings it is not its business"),
            ("glommio", "the executor can be replaced"),
        ],
    },
    Room {
        path: "src/mesh",
        banned: &[
            ("crate::logic", "the mesh knows no policy"),
            ("crate::shard", "the mesh does not know who uses it"),
            ("glommio", "the executor can be replaced"),
        ],
    },
];

/// Not anywhere in code: what is unfinished, and what hides.
const BANNED_EVERYWHERE: &[(&str, &str)] = &[
    ("todo!(", "unfinished"),
    ("unimplemented!(", "unfinished"),
    ("dbg!(", "left over"),
    ("TODO", "an issue tracker is the place"),
    ("FIXME", "an issue tracker is the place"),
    ("#[allow(", "use #[expect(.., reason = \"..\")]"),
    ("#![allow(", "use #![expect(.., reason = \"..\")]"),
    ("#[ignore", "a test runs or does not exist"),
];

fn files_under(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(directory) else { return found };
    for entry in entries.map(|entry| entry.expect("readable").path()) {
        if entry.is_dir() {
            if !entry.ends_with("target") {
                found.extend(files_under(&entry, extension));
            }
        } else if entry.extension().is_some_and(|found| found == extension) {
            found.push(entry);
        }
    }
    found.sort();
    found
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files() -> Vec<PathBuf> {
    let folders = ["src", "tests", "benches", "fuzz/fuzz_targets"];
    folders.iter().flat_map(|folder| files_under(&root().join(folder), "rs")).collect()
}

/// Code without its comments and without the test module at its end. One that is declared only, in a file of its own, ends nothing.
fn production_code(text: &str) -> String {
    let is_inline = |rest: &str| rest.lines().next().is_some_and(|line| line.ends_with('{'));
    let tests = text.match_indices(TEST_MODULE).find(|(at, _)| is_inline(&text[at + TEST_MODULE.len()..]));
    let code = tests.map_or(text, |(at, _)| &text[..at]);
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

const TEST_MODULE: &str = "\n#[cfg(test)]\nmod ";

#[test]
fn production_code_ends_with_an_inline_test_module_only() {
    let text = "//! a\nmod a;\n#[cfg(test)]\nmod tests;\nfn b() {}\n#[cfg(test)]\nmod more {\nfn c() {}\n}\n";
    assert_eq!(production_code(text), "mod a;\n#[cfg(test)]\nmod tests;\nfn b() {}");
}

fn is_test(file: &Path) -> bool {
    file.ends_with("tests.rs") || file.components().any(|part| part.as_os_str() == "tests")
}

fn assert_none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn rooms_import_only_what_they_may() {
    let mut complaints = Vec::new();
    for room in ROOMS {
        let files = files_under(&root().join(room.path), "rs");
        assert!(!files.is_empty(), "{} is empty", room.path);
        for file in files.iter().filter(|file| !is_test(file)) {
            let code = production_code(&fs::read_to_string(file).expect("readable"));
            for (word, reason) in room.banned {
                if code.contains(word) {
                    complaints.push(format!("{}: `{word}`: {reason}", file.display()));
                }
            }
        }
    }
    assert_none(complaints);
}

#[test]
fn unsafe_code_lives_in_the_ring_only_and_each_block_says_why_it_is_sound() {
    let mut complaints = Vec::new();
    for file in files_under(&root().join("src"), "rs") {
        let text = fs::read_to_string(&file).expect("readable");
        let in_ring = file.starts_with(root().join("src/ring"));
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let has_unsafe = code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe");
            if !has_unsafe {
                continue;
            }
            let place = format!("{}:{}", file.display(), number + 1);
            if !in_ring {
                complaints.push(format!("{place}: unsafe outside src/ring"));
            } else if code.contains("unsafe {") || code.contains("unsafe impl") {
                // The reason stands on the lines above, with at most a few lines of the same statement between.
                let above = &lines[number.saturating_sub(6)..number];
                if !above.iter().any(|line| line.contains("SAFETY:")) {
                    complaints.push(format!("{place}: no SAFETY comment"));
                }
            } else if code.contains("unsafe fn")
                && !lines[number.saturating_sub(12)..number].iter().any(|line| line.contains("# Safety"))
            {
                complaints.push(format!("{place}: no # Safety section"));
            }
        }
    }
    assert_none(complaints);
}

#[test]
fn files_are_short() {
    let long = rust_files().into_iter().filter_map(|file| {
        let lines = fs::read_to_string(&file).expect("readable").lines().count();
        (lines > FILE_LINES).then(|| format!("{}: {lines} lines, {FILE_LINES} at most", file.display()))
    });
    assert_none(long.collect());
}

#[test]
fn every_source_file_says_what_it_is() {
    let files = files_under(&root().join("src"), "rs").into_iter();
    let silent = files.filter(|file| !is_test(file)).filter_map(|file| {
        let text = fs::read_to_string(&file).expect("readable");
        (!text.starts_with("//!")).then(|| format!("{}: no module documentation", file.display()))
    });
    assert_none(silent.collect());
}

#[test]
fn nothing_is_left_over() {
    let mut complaints = Vec::new();
    for file in rust_files().into_iter().filter(|file| !file.ends_with("tests/tidy.rs")) {
        let text = fs::read_to_string(&file).expect("readable");
        for (number, line) in text.lines().enumerate() {
            for (word, reason) in BANNED_EVERYWHERE {
                if line.contains(word) {
                    complaints.push(format!("{}:{}: `{word}`: {reason}", file.display(), number + 1));
                }
            }
        }
    }
    assert_none(complaints);
}

#[test]
fn production_code_unwraps_nothing() {
    let mut complaints = Vec::new();
    for file in files_under(&root().join("src"), "rs") {
        if is_test(&file) {
            continue;
        }
        let code = production_code(&fs::read_to_string(&file).expect("readable"));
        if code.contains(".unwrap()") {
            complaints.push(format!("{}: unwrap: use `?`, or `expect` with the reason why it holds", file.display()));
        }
    }
    assert_none(complaints);
}

#[test]
fn links_in_the_documents_lead_somewhere() {
    let mut complaints = Vec::new();
    let mut documents = vec![root().join("README.md")];
    for folder in ["config", "tests", "scripts", "fuzz", "benches"] {
        documents.extend(files_under(&root().join(folder), "md"));
    }
    for document in documents {
        let text = fs::read_to_string(&document).expect("readable");
        let folder = document.parent().expect("a file lies in a folder");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") && !folder.join(target).exists() {
                complaints.push(format!("{}: {link} leads nowhere", document.display()));
            }
        }
    }
    assert_none(complaints);
}
