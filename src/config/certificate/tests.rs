//! Fresh certificates through every reader.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, IsCa, KeyIdMethod, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519,
    PKCS_RSA_SHA256, SerialNumber, date_time_ymd,
};

use super::*;

/// A file that is gone when the test is over.
struct Written(PathBuf);

impl Written {
    fn new(text: &str) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let name = format!("postern-pem-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        fs::remove_file(&self.0).unwrap();
    }
}

fn chain_of(text: &str) -> Result<Chain, PemError> {
    read_chain(&Written::new(text).0)
}

fn key_of(text: &str) -> Result<PrivateKey, PemError> {
    read_key(&Written::new(text).0)
}

fn self_signed(names: &[&str], key: &KeyPair) -> String {
    let names = names.iter().map(ToString::to_string).collect::<Vec<_>>();
    CertificateParams::new(names).unwrap().self_signed(key).unwrap().pem()
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

#[test]
fn names_are_the_dns_names_of_the_first_certificate_in_lower_case_and_each_once() {
    let key = KeyPair::generate().unwrap();
    let first = self_signed(&["WWW.Example.com", "*.Example.com", "www.example.com", "10.0.0.1"], &key);
    let second = self_signed(&["issuer.example"], &key);

    let chain = chain_of(&format!("A comment.\n{first}{second}")).unwrap();

    assert_eq!(chain.certificates.len(), 2);
    assert_eq!(chain.names, ["*.example.com", "www.example.com"]);
    assert!(chain_of(&self_signed(&["10.0.0.1"], &key)).unwrap().names.is_empty());
}

#[test]
fn every_kind_of_key_belongs_to_its_own_certificate_only() {
    let other = KeyPair::generate().unwrap();
    let others = chain_of(&self_signed(&["a.example"], &other)).unwrap();
    for (kind, expected) in [
        (&PKCS_ECDSA_P256_SHA256, SignatureAlgorithm::ECDSA),
        (&PKCS_ECDSA_P384_SHA384, SignatureAlgorithm::ECDSA),
        (&PKCS_ECDSA_P521_SHA512, SignatureAlgorithm::ECDSA),
        (&PKCS_ED25519, SignatureAlgorithm::ED25519),
        (&PKCS_RSA_SHA256, SignatureAlgorithm::RSA),
    ] {
        let pair = KeyPair::generate_for(kind).unwrap();
        let chain = chain_of(&self_signed(&["a.example"], &pair)).unwrap();
        let key = key_of(&pair.serialize_pem()).unwrap();

        assert_eq!(check_pair(&chain.certificates, &key).unwrap(), expected, "{kind:?}");
        assert!(matches!(check_pair(&others.certificates, &key), Err(PemError::OtherKey)), "{kind:?}");
    }
}

#[test]
fn a_key_is_found_beside_certificates_and_parameters() {
    let pair = KeyPair::generate().unwrap();
    let parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
    let text = format!("{parameters}{}{}", self_signed(&["a.example"], &pair), pair.serialize_pem());

    let (chain, key) = (chain_of(&text).unwrap(), key_of(&text).unwrap());

    assert!(check_pair(&chain.certificates, &key).is_ok());
}

#[test]
fn keys_that_are_locked_in_either_way_are_told_apart_from_damaged_ones() {
    let locked = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let locked_of_old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nMAA=\n\
                         -----END RSA PRIVATE KEY-----\n";
    for text in [locked, locked_of_old] {
        assert!(matches!(key_of(text), Err(PemError::EncryptedKey)), "{text}");
    }
    assert!(matches!(key_of("-----BEGIN PRIVATE KEY-----\nMAA=\n"), Err(PemError::Damaged)));
    assert!(matches!(key_of(""), Err(PemError::NoKey)));
}

#[test]
fn a_damaged_file_is_not_repeated_in_the_error() {
    let error = key_of("-----BEGIN PRIVATE KEY-----\nhunter2!\n-----END PRIVATE KEY-----\n").unwrap_err();

    assert!(!format!("{error} {error:?} {}", error.remedy()).contains("hunter2"));
}

#[test]
fn a_file_is_as_long_as_its_bound_at_most() {
    let written = Written::new("");
    fs::File::create(&written.0).unwrap().set_len(limits::PEM_FILE + 1).unwrap();

    assert!(matches!(read_chain(&written.0), Err(PemError::TooLong)));
}

#[test]
fn an_expired_certificate_is_read_like_any_other() {
    let pair = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["a.example".to_owned()]).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(2001, 1, 1));
    let certificate = params.self_signed(&pair).unwrap();

    let chain = chain_of(&certificate.pem()).unwrap();

    assert!(check_pair(&chain.certificates, &key_of(&pair.serialize_pem()).unwrap()).is_ok());
}

#[test]
fn a_chain_is_as_long_as_its_bound_at_most() {
    let certificate = self_signed(&["a.example"], &KeyPair::generate().unwrap());

    assert!(chain_of(&certificate.repeat(limits::CHAIN)).is_ok());
    assert!(matches!(chain_of(&certificate.repeat(limits::CHAIN + 1)), Err(PemError::LongChain)));
}

#[test]
fn every_root_of_a_bundle_is_read_and_the_damaged_one_is_named() {
    let damaged = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    let (first, second) = (authority().pem(), authority().pem());

    let roots = read_roots(&Written::new(&format!("{first}{second}")).0);
    assert_eq!(roots.unwrap().len(), 2);
    let error = read_roots(&Written::new(&format!("{first}{damaged}{second}")).0).unwrap_err();
    assert!(matches!(error, PemError::BadCertificate { number: 2, .. }), "{error}");
    assert!(matches!(read_roots(&Written::new("").0), Err(PemError::NoCertificate)));
}

#[test]
fn every_revocation_list_of_a_file_is_read() {
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2000, 1, 1),
        next_update: date_time_ymd(2001, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let text = list.signed_by(&authority()).unwrap().pem().unwrap();

    assert_eq!(read_revocation_lists(&Written::new(&text.repeat(2)).0).unwrap().len(), 2);
    assert!(matches!(read_revocation_lists(&Written::new("").0), Err(PemError::NoRevocationList)));
}
