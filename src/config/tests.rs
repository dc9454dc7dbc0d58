//! Whole files through the whole room.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
use rustls::SignatureAlgorithm;
use rustls::pki_types::ServerName;

use super::plan::{
    AccessLogTarget, ClientCertificateMode, EndpointTarget, HostMatch, Plan, RouteAction, SocketAddress, TlsRoots,
    TlsVersion, UpstreamHost,
};
use super::secret::Text;
use super::*;

fn environment(name: &str) -> Option<String> {
    match name {
        "PORT" => Some("8080".to_owned()),
        "TOKEN" => Some("hunter2".to_owned()),
        _ => None,
    }
}

fn parse_value(document: &Value) -> Result<Plan, Complaints> {
    parse(&document.to_string(), Path::new(""), &environment)
}

fn plan_of(document: &Value) -> Plan {
    parse_value(document).unwrap_or_else(|complaints| panic!("{complaints}"))
}

fn smallest() -> Value {
    json!({
        "listeners": [{ "address": "127.0.0.1:8080" }],
        "upstreams": { "app": { "endpoints": ["http://127.0.0.1:9000"] } },
        "routes": [{ "upstream": "app" }]
    })
}

/// The files of the examples.
fn example_file(name: &str) -> String {
    format!("{}/config/tls/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn example_certificate(name: &str) -> Value {
    json!({ "chain": example_file(&format!("{name}.pem")), "key": example_file(&format!("{name}.key")) })
}

/// A directory that is gone when the test is over.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("postern-config-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn the_smallest_file_is_a_listener_an_upstream_and_a_route() {
    let plan = plan_of(&smallest());

    assert!(!plan.cpus.is_empty());
    assert_eq!(plan.access_log, None);
    assert_eq!(plan.listeners[0].name, "127.0.0.1:8080");
    assert_eq!(plan.listeners[0].address, SocketAddress::Ip("127.0.0.1:8080".parse().unwrap()));
    assert!(plan.listeners[0].forwarded.trust.is_empty() && plan.listeners[0].proxy_headers_from.is_empty());
    let endpoint = EndpointTarget::Address("127.0.0.1:9000".parse().unwrap());
    assert_eq!(plan.upstreams[0].endpoints[0].target, endpoint);
    let route = &plan.routes[0];
    assert_eq!((&route.matcher.listener, &route.matcher.host), (&None, &HostMatch::Any));
    assert_eq!(route.matcher.path.as_str(), "/{*rest}");
    let RouteAction::Proxy(proxy) = &route.action else { panic!("it proxies") };
    assert_eq!((&proxy.rewrite, &proxy.host), (&None, &UpstreamHost::Client));
}

/// Writes out every default that the schema states, at every place of a document.
fn with_defaults(value: &mut Value, schema: &Value, root: &Value) {
    let schema = match schema["$ref"].as_str() {
        Some(name) => root.pointer(name.strip_prefix('#').unwrap()).unwrap(),
        None => schema,
    };
    match value {
        Value::Object(object) => {
            for (key, schema) in schema["properties"].as_object().into_iter().flatten() {
                if let Some(default) = schema.get("default") {
                    object.entry(key).or_insert_with(|| default.clone());
                }
                const SECTIONS: [&str; 8] = [
                    "limits",
                    "timeouts",
                    "keepalive",
                    "dns",
                    "forwarded",
                    "log",
                    "client_certificates",
                    "proxy_protocol",
                ];
                let is_section = SECTIONS.contains(&key.as_str());
                if is_section && schema.get("$ref").is_some() {
                    object.entry(key).or_insert_with(|| json!({}));
                }
            }
            for (key, value) in object.iter_mut() {
                let schema = schema["properties"].get(key).unwrap_or(&schema["additionalProperties"]);
                with_defaults(value, schema, root);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| with_defaults(item, &schema["items"], root)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn the_defaults_that_the_schema_states_are_those_of_the_plan() {
    let schema = serde_json::from_str::<Value>(&schema()).unwrap();
    let mut document = smallest();
    document["access_log"] = json!({});
    document["listeners"][0]["tls"] = json!({ "certificates": [example_certificate("site")] });
    document["upstreams"]["secure"] = json!({ "endpoints": ["https://app"], "tls": {} });
    document["routes"][0]["match"] = json!({});
    document["routes"][0]["rewrite"] = json!({});
    document["routes"].as_array_mut().unwrap().push(json!({ "match": { "path": "/a" }, "respond": {} }));
    let mut written_out = document.clone();
    with_defaults(&mut written_out, &schema, &schema);
    assert_eq!(written_out["listeners"][0]["limits"]["max_head"], "16KiB");
    assert_eq!(written_out["listeners"][0]["tls"]["client_certificates"]["mode"], "off");
    assert_eq!(written_out["upstreams"]["app"]["dns"]["refresh"], "30s");
    assert_eq!(written_out["upstreams"]["secure"]["tls"]["min_version"], "1.2");

    let (short, long) = (plan_of(&document), plan_of(&written_out));

    assert_eq!(format!("{short:?}"), format!("{long:?}"));
}

#[test]
fn references_give_secrets_that_the_plan_does_not_print() {
    let directory = Directory::new("references");
    fs::write(directory.0.join("key"), "from-the-file\r\n").unwrap();
    fs::write(directory.0.join("two-lines"), "a\n\n").unwrap();
    let mut document = smallest();
    document["listeners"][0]["address"] = json!("127.0.0.1:$env(PORT)");
    document["routes"][0]["request_headers"]["set"] = json!({
        "a": "Bearer $env(TOKEN)",
        "b": "$file(key)/$env(TOKEN)",
        "c": "plain",
        "d": "$$env(TOKEN) $5 $",
        "e": "$$$env(TOKEN)",
    });
    let second = json!({ "match": { "path": "/two" }, "respond": { "body": "$file(two-lines)" } });
    document["routes"].as_array_mut().unwrap().push(second);

    let plan = parse(&document.to_string(), &directory.0, &environment).unwrap_or_else(|error| panic!("{error}"));

    assert_eq!(plan.listeners[0].address, SocketAddress::Ip("127.0.0.1:8080".parse().unwrap()));
    let set = &plan.routes[0].request_fields.set;
    let values = set.iter().map(|(_, value)| value.expose()).collect::<Vec<_>>();
    assert_eq!(values, ["Bearer hunter2", "from-the-file/hunter2", "plain", "$env(TOKEN) $5 $", "$hunter2"]);
    let secret = set.iter().map(|(_, value)| matches!(value, Text::Secret(_))).collect::<Vec<_>>();
    assert_eq!(secret, [true, true, false, false, true]);
    let RouteAction::Respond(respond) = &plan.routes[1].action else { panic!("it responds") };
    assert_eq!(respond.body.expose(), "a\n");
    let printed = format!("{plan:?}");
    assert!(!printed.contains("hunter2") && !printed.contains("from-the-file"));
}

#[test]
fn what_a_reference_gave_is_in_no_complaint() {
    // Right nowhere, not even with what the reference gives.
    let wrong = "\u{1}$env(TOKEN)";
    let document = json!({
        "drain_timeout": wrong,
        "log": { "level": wrong },
        "listeners": [
            { "name": wrong, "address": "127.0.0.1:1" },
            { "address": wrong, "forwarded": { "trust": [wrong] }, "proxy_protocol": { "trust": [wrong] }, "limits": { "max_head": wrong } },
            {
                "address": "127.0.0.1:2",
                "tls": {
                    "certificates": [{ "chain": wrong, "key": wrong }],
                    "min_version": wrong,
                    "client_certificates": { "mode": wrong, "ca": wrong, "crl": [wrong] }
                }
            }
        ],
        "upstreams": {
            "app": { "endpoints": [wrong, "http://$env(TOKEN)@app"], "balance": wrong },
            "secure": {
                "endpoints": ["https://app"],
                "tls": {
                    "ca": wrong,
                    "server_name": wrong,
                    "min_version": wrong,
                    "pins": [wrong],
                    "certificate": { "chain": wrong, "key": wrong }
                }
            }
        },
        "routes": [
            { "match": { "listener": wrong, "host": wrong, "path": wrong, "methods": [wrong] }, "upstream": wrong },
            {
                "match": { "path": "/$env(TOKEN)/{$env(TOKEN)}" },
                "upstream": "app",
                "rewrite": { "path": "/{hunter3}", "host": wrong },
                "request_headers": { "set": { "a": wrong }, "add": { "a b": wrong }, "remove": [wrong] }
            },
            {
                "match": { "path": "/a", "listener": "hunter3" },
                "respond": { "content_type": wrong, "status": 204, "body": wrong }
            }
        ]
    });

    let complaints = parse_value(&document).expect_err("nothing there is as it should be");

    assert_eq!(complaints.iter().count(), 34, "{complaints}");
    assert!(!complaints.to_string().contains("hunter2"), "{complaints}");
    assert!(!complaints.to_json().contains("hunter2"), "{complaints}");
}

#[test]
fn paths_of_files_are_relative_to_the_configuration() {
    let mut document = smallest();
    document["access_log"] = json!({ "path": "access.log" });

    let plan = parse(&document.to_string(), Path::new("/etc/postern"), &environment).unwrap();

    let target = plan.access_log.map(|log| log.target);
    assert_eq!(target, Some(AccessLogTarget::File("/etc/postern/access.log".into())));
}

#[test]
fn a_listener_speaks_tls_with_the_certificates_of_its_files() {
    let directory = Directory::new("tls");
    for (name, kind) in [("first", &PKCS_ECDSA_P256_SHA256), ("second", &PKCS_ED25519)] {
        let key = KeyPair::generate_for(kind).unwrap();
        let params = CertificateParams::new(["a.example".to_owned(), "*.b.example".to_owned()]).unwrap();
        fs::write(directory.0.join(format!("{name}.pem")), params.self_signed(&key).unwrap().pem()).unwrap();
        fs::write(directory.0.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
    let mut document = smallest();
    document["listeners"][0]["tls"] = json!({
        "certificates": [
            { "chain": "first.pem", "key": "first.key" },
            { "chain": "second.pem", "key": "second.key" },
        ],
        "min_version": "1.3",
        "client_certificates": {
            "mode": "optional",
            "ca": example_file("ca.pem"),
            "crl": [example_file("ca.crl")]
        }
    });

    let plan = parse(&document.to_string(), &directory.0, &environment).unwrap_or_else(|error| panic!("{error}"));

    let tls = plan.listeners[0].tls.as_ref().expect("it was asked for");
    assert_eq!(tls.min_version, TlsVersion::Tls13);
    let [first, second] = tls.certificates.as_slice() else { panic!("there are two") };
    assert_eq!(first.names, ["*.b.example", "a.example"]);
    assert_eq!((first.algorithm, second.algorithm), (SignatureAlgorithm::ECDSA, SignatureAlgorithm::ED25519));
    assert_eq!((&first.chain_file, &first.key_file), (&directory.0.join("first.pem"), &directory.0.join("first.key")));
    assert_eq!((first.chain.len(), second.chain.len()), (1, 1));
    let clients = tls.client_certificates.as_ref().expect("they were asked for");
    assert_eq!(clients.mode, ClientCertificateMode::Optional);
    assert_eq!((clients.roots.len(), clients.crls.len()), (1, 1));
    assert!(format!("{plan:?}").contains("PrivateKey(..)"));
}

#[test]
fn an_upstream_speaks_tls_if_its_endpoints_are_https() {
    let mut document = smallest();
    document["upstreams"]["secure"] = json!({ "endpoints": ["https://a.example", "https://b.example:8443"] });
    document["upstreams"]["strict"] = json!({
        "endpoints": ["https://10.0.0.1"],
        "tls": {
            "ca": example_file("ca.pem"),
            "server_name": "a.example",
            "min_version": "1.3",
            "pins": ["sha256/AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="],
            "certificate": example_certificate("gateway")
        }
    });

    let plan = plan_of(&document);

    let [plain, secure, strict] = plan.upstreams.as_slice() else { panic!("there are three") };
    assert!(plain.tls.is_none());
    let tls = secure.tls.as_ref().expect("its endpoints are https");
    assert_eq!((&tls.roots, tls.min_version), (&TlsRoots::System, TlsVersion::Tls12));
    assert!(tls.server_name.is_none() && tls.pins.is_empty() && tls.certificate.is_none());
    let tls = strict.tls.as_ref().expect("its endpoints are https");
    assert!(matches!(&tls.roots, TlsRoots::Given { certificates, .. } if certificates.len() == 1));
    assert_eq!((&tls.server_name, tls.min_version), (&ServerName::try_from("a.example").ok(), TlsVersion::Tls13));
    assert_eq!(tls.pins, [std::array::from_fn::<u8, 32, _>(|index| index as u8)]);
    assert_eq!(tls.certificate.as_ref().map(|certificate| certificate.names.len()), Some(1));
}

#[test]
fn a_plan_is_shared_between_shards() {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<Plan>();
}

#[test]
fn a_file_that_is_not_there_is_one_complaint() {
    let complaints = load(Path::new("no/such/file.json"), &environment).expect_err("there is no such file");

    assert_eq!(complaints.iter().count(), 1);
    assert!(complaints.to_string().starts_with("the file\n  problem: no/such/file.json cannot be read"));
}

#[test]
fn complaints_are_a_list_for_machines_too() {
    let mut document = smallest();
    document["drain_timeout"] = json!("soon");

    let complaints = parse_value(&document).expect_err("it is no duration");

    let list = serde_json::from_str::<Value>(&complaints.to_json()).unwrap();
    assert_eq!(list[0]["path"], "drain_timeout");
    assert_eq!(list[0]["value"], "\"soon\"");
    assert_eq!(list[0]["problem"], "it is not a duration");
    assert_eq!(list[0]["remedy"], "write a whole number with us, ms, s, m, h or d, from 1ms to 1d");
}

#[test]
fn upstream_ids_are_positions_in_the_order_of_names() {
    let mut document = smallest();
    for name in ["zoo", "Big", "a"] {
        document["upstreams"][name] = json!({ "endpoints": ["http://127.0.0.1:9000"] });
    }
    document["routes"] = ["zoo", "app", "Big", "a"]
        .map(|name| json!({ "match": { "path": format!("/{name}") }, "upstream": name }))
        .into();

    let plan = plan_of(&document);

    for route in &plan.routes {
        let RouteAction::Proxy(proxy) = &route.action else { panic!("it proxies") };
        assert_eq!(format!("/{}", plan.upstreams[proxy.upstream.index()].name), route.matcher.path.as_str());
    }
}

/// Small faults at every position of every example: whatever comes out, it must be a plan or complaints.
#[test]
fn no_damage_to_a_file_makes_reading_it_panic() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let replacements = [&b"\""[..], b"{", b"]", b"0", b"$", b"*", b"/", b"\\u0000", b"-1", b"null", b""];
    let mut turn = 0;
    for directory in [examples.clone(), examples.join("broken")] {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let is_example = path.extension().is_some_and(|extension| extension == "json");
            if !is_example || path.ends_with("postern.schema.json") {
                continue;
            }
            let text = fs::read(&path).unwrap();
            for position in (0..text.len()).step_by(7) {
                turn += 1;
                let replacement = replacements[turn % replacements.len()];
                let damaged = [&text[..position], replacement, &text[position + 1..]].concat();
                if let Ok(damaged) = String::from_utf8(damaged) {
                    let _: Result<Plan, Complaints> = parse(&damaged, &directory, &environment);
                }
            }
        }
    }
}
