//! Files that change under a plan.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SignatureAlgorithm};

use super::*;
use crate::config::plan::{ClientCertificateMode, TlsVersion};

/// A directory that is gone when the test is over.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let name = format!("postern-reread-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        fs::write(self.file(name), text).unwrap();
        self.file(name)
    }

    /// A certificate for these names in `name.pem`, its key in `name.key`.
    fn sign(&self, name: &str, names: &[&str], algorithm: &'static SignatureAlgorithm) {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let names = names.iter().map(ToString::to_string).collect::<Vec<_>>();
        self.write(&format!("{name}.pem"), &CertificateParams::new(names).unwrap().self_signed(&key).unwrap().pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    fn pair(&self, name: &str) -> CertificatePlan {
        let (chain, key) = (self.file(&format!("{name}.pem")), self.file(&format!("{name}.key")));
        let (certificates, private) = (certificate::read_chain(&chain).unwrap(), certificate::read_key(&key).unwrap());
        certificate::pair(chain, certificates, key, private).unwrap()
    }

    /// A listener with a certificate for a.example and another for b.example, which also is the authority of its clients.
    fn listener(&self) -> ListenerTlsPlan {
        self.sign("a", &["a.example"], &PKCS_ECDSA_P256_SHA256);
        self.sign("b", &["b.example"], &PKCS_ECDSA_P256_SHA256);
        let ca_file = self.file("b.pem");
        let clients = ClientCertificatesPlan {
            mode: ClientCertificateMode::Required,
            roots: certificate::read_roots(&ca_file).unwrap(),
            crls: Vec::new(),
            forward: false,
            ca_file,
            crl_files: Vec::new(),
        };
        ListenerTlsPlan {
            certificates: vec![self.pair("a"), self.pair("b")],
            min_version: TlsVersion::Tls12,
            client_certificates: Some(clients),
        }
    }

    fn all(&self) -> BTreeSet<PathBuf> {
        fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn files_that_say_the_same_are_nothing_new() {
    let directory = Directory::new();
    let mut plan = directory.listener();
    let mut reread = Reread::default();

    assert!(!reread.listener(&mut plan, &directory.all()));

    assert!(reread.renewed.is_empty() && reread.refused.is_empty());
}

#[test]
fn what_changed_takes_its_predecessors_place() {
    let directory = Directory::new();
    let mut plan = directory.listener();
    directory.sign("a", &["a.example", "c.example"], &PKCS_ED25519);
    directory.write("b.pem", &(fs::read_to_string(directory.file("b.pem")).unwrap() + "A comment."));
    let mut reread = Reread::default();

    assert!(reread.listener(&mut plan, &directory.all()));

    assert_eq!(plan.certificates[0], directory.pair("a"));
    assert_eq!(reread.renewed, [directory.file("a.pem")].into());
    assert!(reread.refused.is_empty());
}

#[test]
fn a_file_that_did_not_change_is_not_read() {
    let directory = Directory::new();
    let mut plan = directory.listener();
    let before = plan.certificates[0].clone();
    directory.sign("a", &["a.example"], &PKCS_ECDSA_P256_SHA256);

    assert!(!Reread::default().listener(&mut plan, &[directory.file("b.pem")].into()));

    assert_eq!(plan.certificates[0], before);
}

/// The one that is of no use leaves its predecessor in place and does not hold the other up.
#[test]
fn each_certificate_stands_for_itself() {
    let key = KeyPair::generate().unwrap().serialize_pem();
    type Break<'a> = (&'a str, &'a dyn Fn(&Directory), &'a str, &'a str);
    let cases: [Break<'_>; 5] = [
        ("half a file", &|it| drop(it.write("a.pem", "-----BEGIN CERTIFICATE-----\nMIIB")), "a.pem", "damaged"),
        ("no file", &|it| fs::remove_file(it.file("a.key")).unwrap(), "a.key", "cannot be read"),
        ("another's key", &|it| drop(it.write("a.key", &key)), "a.key", "does not belong"),
        ("no name", &|it| it.sign("a", &[], &PKCS_ECDSA_P256_SHA256), "a.pem", "no DNS name"),
        ("another's name", &|it| it.sign("a", &["b.example"], &PKCS_ECDSA_P256_SHA256), "a.pem", "b.example too"),
    ];
    for (what, break_it, file, problem) in cases {
        let directory = Directory::new();
        let mut plan = directory.listener();
        let before = plan.certificates[0].clone();
        directory.sign("b", &["b.example"], &PKCS_ECDSA_P256_SHA256);
        break_it(&directory);
        let mut changed = directory.all();
        changed.insert(directory.file(file));
        let mut reread = Reread::default();

        assert!(reread.listener(&mut plan, &changed), "{what}");

        assert_eq!(plan.certificates[0], before, "{what}");
        assert_eq!(plan.certificates[1], directory.pair("b"), "{what}");
        let (refused, error) = reread.refused.first_key_value().unwrap_or_else(|| panic!("{what}"));
        assert_eq!((refused, reread.refused.len()), (&directory.file(file), 1), "{what}");
        assert!(error.to_string().contains(problem), "{what}: {error}");
    }
}

#[test]
fn an_authority_is_renewed_beside_the_certificate_in_the_same_file() {
    let directory = Directory::new();
    let mut plan = directory.listener();
    let before = plan.client_certificates.clone();
    directory.sign("b", &["b.example"], &PKCS_ECDSA_P256_SHA256);

    assert!(Reread::default().listener(&mut plan, &directory.all()));

    assert_ne!(plan.client_certificates, before);
}
