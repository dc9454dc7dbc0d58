//! Certificates of the tests' own.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use serde_json::{Value, json};

use super::TempDir;

/// Somebody who signs certificates, and the files that they are in.
pub struct Authority {
    directory: TempDir,
    issuer: Issuer<'static, KeyPair>,
    signed: AtomicU32,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let directory = TempDir::new();
        directory.write("ca.pem", &certificate.pem());
        Self { directory, issuer: Issuer::new(params, key), signed: AtomicU32::new(0) }
    }

    pub fn file(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// Signs a certificate for these names, and says where it and its key are.
    pub fn sign(&self, names: &[&str]) -> Value {
        self.sign_with(names, |_| {})
    }

    pub fn sign_until(&self, names: &[&str], year: i32) -> Value {
        self.sign_with(names, |params| params.not_after = rcgen::date_time_ymd(year, 1, 1))
    }

    /// Signs a certificate that is not as others are.
    pub fn sign_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Value {
        let number = self.signed.load(Ordering::Relaxed) + 1;
        self.issue_with(&number.to_string(), names, change)
    }

    /// Signs a certificate into `NAME.pem`, and puts its key into `NAME.key`. Each of the two appears whole and at once.
    pub fn issue(&self, file: &str, names: &[&str], not_after: SystemTime) -> Value {
        let not_after = not_after.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        self.issue_with(file, names, |params| params.not_after = rcgen::date_time_ymd(1970, 1, 1) + not_after)
    }

    fn issue_with(&self, file: &str, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Value {
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).expect("names");
        params.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
        params.distinguished_name.push(DnType::CommonName, names[0]);
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(2999, 1, 1);
        change(&mut params);
        let number = self.signed.fetch_add(1, Ordering::Relaxed) + 1;
        params.serial_number = Some(SerialNumber::from(u64::from(number)));
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let (chain, file) = (format!("{file}.pem"), format!("{file}.key"));
        self.replace(&chain, &certificate.pem());
        self.replace(&file, &key.serialize_pem());
        json!({ "chain": self.file(&chain), "key": self.file(&file) })
    }

    /// Puts a file in the place of another, if there is one.
    pub fn replace(&self, name: &str, content: &str) {
        let new = self.directory.write(&format!("{name}.new"), content);
        std::fs::rename(new, self.file(name)).expect("the same directory");
    }
}

impl Authority {
    /// Revokes the certificate that it signed as this one. Returns the file of the list.
    pub fn revoke(&self, number: u64) -> String {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(number),
            revocation_time: rcgen::date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2020, 1, 1),
            next_update: rcgen::date_time_ymd(2999, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).expect("a list");
        self.replace("ca.crl", &list.pem().expect("a list"));
        self.file("ca.crl")
    }
}
