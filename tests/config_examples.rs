//! The files under `config/` are promises: every example loads, every broken file gets exactly the complaints that
//! stand beside it, the schema is the one that the program prints, and the manual knows every key.
//!
//! `UPDATE_EXPECTED=1 cargo test --test config_examples` writes the schema and the expected complaints anew; read the
//! difference.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use std::sync::Arc;

use postern::config::plan::{CertificatePlan, Plan, TlsRoots};
use postern::config::{self, Complaints};
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
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

/// What stands under `tls/` must be good for more than being read: the upstream of one example is shown the listener of
/// the other, and each must accept the other's certificate.
#[test]
fn the_certificates_of_the_examples_are_good_for_a_handshake() {
    let plan_of = |name: &str| load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)).unwrap();
    let (front, back) = (plan_of("tls.json"), plan_of("upstream-tls.json"));
    let listener = front.listeners.iter().find(|listener| listener.name == "partners").unwrap().tls.as_ref().unwrap();
    let upstream = back.upstreams.iter().find(|upstream| upstream.name == "ledger").unwrap().tls.as_ref().unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let certified = |plan: &CertificatePlan| {
        let key = CertifiedKey::from_der(plan.chain.clone(), plan.key.expose().clone_key(), &provider).unwrap();
        Arc::new(SingleCertAndKey::from(key))
    };

    let clients = listener.client_certificates.as_ref().unwrap();
    let mut roots = RootCertStore::empty();
    assert_eq!(roots.add_parsable_certificates(clients.roots.clone()), (1, 0));
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let verifier = verifier.with_crls(clients.crls.iter().flatten().cloned()).build().unwrap();
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let server = server.unwrap().with_client_cert_verifier(verifier);
    let server = server.with_cert_resolver(certified(&listener.certificates[0]));
    let TlsRoots::Given { certificates, .. } = &upstream.roots else { panic!("it names a bundle") };
    let mut roots = RootCertStore::empty();
    assert_eq!(roots.add_parsable_certificates(certificates.clone()), (1, 0));
    let client = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let client = client.unwrap().with_root_certificates(roots);
    let client = client.with_client_cert_resolver(certified(upstream.certificate.as_ref().unwrap()));

    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), upstream.server_name.clone().unwrap()).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets().unwrap();
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets().unwrap();
    }

    assert_eq!(server.peer_certificates().map(<[_]>::len), Some(1));
    let public_key = ParsedCertificate::try_from(&listener.certificates[0].chain[0]).unwrap().subject_public_key_info();
    let sha256 = TLS13_AES_128_GCM_SHA256.tls13().unwrap().common.hash_provider;
    assert_eq!(sha256.hash(&public_key).as_ref(), upstream.pins[0], "config/tls/make.sh prints the new pin");
    assert_eq!(client.peer_certificates(), Some(listener.certificates[0].chain.as_slice()));
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
