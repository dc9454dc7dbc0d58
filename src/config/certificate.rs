//! Certificates, private keys and revocation lists out of PEM files (RFC 7468), checked as far as they can be before
//! the first handshake: what is read here, TLS can use.
//!
//! A certificate that has expired is read like any other. Clients refuse it, which is one listener's or one name's
//! trouble, and no reason to refuse the whole configuration. Nothing that stands in a file is ever repeated in an error:
//! it may be a key.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use rustls::crypto::aws_lc_rs as provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error as TlsError, InconsistentKeys, SignatureAlgorithm};
use webpki::{EndEntityCert, OwnedCertRevocationList, anchor_from_trusted_cert};
use zeroize::Zeroizing;

use super::limits;
use super::plan::CertificatePlan;
use super::secret::PrivateKey;

/// Why a PEM file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum PemError {
    /// The file is not there, or is not for this process.
    #[error("it cannot be read: {0}")]
    Read(#[source] io::Error),
    /// Longer than [`PEM_FILE`](limits::PEM_FILE).
    #[error("it is longer than {} bytes", limits::PEM_FILE)]
    TooLong,
    /// A section has no end, or is not Base64.
    #[error("its PEM is damaged")]
    Damaged,
    /// A file of certificates has none.
    #[error("there is no certificate in it")]
    NoCertificate,
    /// More certificates than [`CHAIN`](limits::CHAIN).
    #[error("there are more than {} certificates in it", limits::CHAIN)]
    LongChain,
    /// A certificate is not what RFC 5280 describes.
    #[error("certificate {number} in it cannot be used: {source}")]
    BadCertificate {
        /// Its position in the file, from 1 on.
        number: usize,
        /// What is wrong with it.
        source: webpki::Error,
    },
    /// A file of a key has none.
    #[error("there is no private key in it")]
    NoKey,
    /// It is not said which one is meant.
    #[error("there are several private keys in it")]
    SeveralKeys,
    /// It is locked with a password.
    #[error("its private key is encrypted")]
    EncryptedKey,
    /// Too short, or of a kind that TLS does not sign with.
    #[error("its private key is none that TLS can use")]
    BadKey,
    /// Another certificate's key.
    #[error("its private key does not belong to the certificate")]
    OtherKey,
    /// A file of revocation lists has none.
    #[error("there is no revocation list in it")]
    NoRevocationList,
    /// A revocation list is not what RFC 5280 describes.
    #[error("revocation list {number} in it cannot be used: {source}")]
    BadRevocationList {
        /// Its position in the file, from 1 on.
        number: usize,
        /// What is wrong with it.
        source: webpki::Error,
    },
}

impl PemError {
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Read(_) => "name a readable PEM file; its path is relative to the configuration file",
            Self::TooLong => "name a PEM file with only what is needed",
            Self::Damaged => "write the file again, whole, from \"-----BEGIN\" to \"-----END\"",
            Self::NoCertificate => "name a PEM file with \"-----BEGIN CERTIFICATE-----\"",
            Self::LongChain => "leave in it the certificate and those that lead to its root",
            Self::BadCertificate { .. } => "use X.509 certificates of version 3",
            Self::NoKey => "name a PEM file with \"-----BEGIN PRIVATE KEY-----\"",
            Self::SeveralKeys => "leave only the certificate's key in it",
            Self::EncryptedKey => "decrypt it, as with \"openssl pkey\", and protect the file by its permissions",
            Self::BadKey => "use a key of RSA with 2048 to 8192 bits, ECDSA (P-256, P-384, P-521) or Ed25519",
            Self::OtherKey => {
                "name the key of the first certificate in \"chain\", where those of its issuers come after it"
            }
            Self::NoRevocationList => "name a PEM file with \"-----BEGIN X509 CRL-----\"",
            Self::BadRevocationList { .. } => "use full revocation lists of version 2 (RFC 5280 section 5)",
        }
    }
}

/// Certificates to show, and the names in the first.
pub struct Chain {
    /// Never empty, the certificate itself first.
    pub certificates: Vec<CertificateDer<'static>>,
    /// The DNS names of its subjectAltName, in lower case, each once.
    pub names: Vec<String>,
}

/// Reads a certificate and those that lead to its root.
///
/// # Errors
///
/// There are none or too many, or the first of them is damaged.
pub fn read_chain(file: &Path) -> Result<Chain, PemError> {
    let certificates = sections::<CertificateDer<'static>>(&read(file)?)?;
    let first = certificates.first().ok_or(PemError::NoCertificate)?;
    if certificates.len() > limits::CHAIN {
        return Err(PemError::LongChain);
    }
    let parsed = EndEntityCert::try_from(first).map_err(|source| PemError::BadCertificate { number: 1, source })?;
    let lower = |name: &str| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let mut names = parsed.valid_dns_names().map(lower).collect::<Vec<_>>();
    names.sort_unstable();
    names.dedup();
    Ok(Chain { certificates, names })
}

/// Reads the one private key of a file.
///
/// # Errors
///
/// There is none, or several, or it is encrypted.
pub fn read_key(file: &Path) -> Result<PrivateKey, PemError> {
    let text = read(file)?;
    let mentions = |words: &[u8]| text.windows(words.len()).any(|window| window == words);
    if mentions(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || mentions(b"Proc-Type: 4,ENCRYPTED") {
        return Err(PemError::EncryptedKey);
    }
    let mut keys = sections::<PrivateKeyDer<'static>>(&text)?.into_iter().map(PrivateKey::new);
    let key = keys.next().ok_or(PemError::NoKey)?;
    if keys.next().is_some() { Err(PemError::SeveralKeys) } else { Ok(key) }
}

/// Joins a certificate and its key, with the files that they were read from.
///
/// # Errors
///
/// The key is of an unknown kind, or another certificate's.
pub fn pair(
    chain_file: PathBuf,
    chain: Chain,
    key_file: PathBuf,
    key: PrivateKey,
) -> Result<CertificatePlan, PemError> {
    let algorithm = check_pair(&chain.certificates, &key)?;
    let Chain { certificates, names } = chain;
    Ok(CertificatePlan { chain: certificates, key, algorithm, names, chain_file, key_file })
}

/// Whether TLS can sign with the key, and as the first certificate of the chain; then the key's algorithm.
fn check_pair(chain: &[CertificateDer<'static>], key: &PrivateKey) -> Result<SignatureAlgorithm, PemError> {
    let key = provider::sign::any_supported_type(key.expose()).map_err(|_| PemError::BadKey)?;
    let algorithm = key.algorithm();
    match CertifiedKey::new(chain.to_vec(), key).keys_match() {
        Ok(()) | Err(TlsError::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(algorithm),
        Err(_) => Err(PemError::OtherKey),
    }
}

/// Reads certificates that chains may end in.
///
/// # Errors
///
/// There are none, or one of them is damaged.
pub fn read_roots(file: &Path) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let roots = sections::<CertificateDer<'static>>(&read(file)?)?;
    for (index, root) in roots.iter().enumerate() {
        anchor_from_trusted_cert(root).map_err(|source| PemError::BadCertificate { number: index + 1, source })?;
    }
    if roots.is_empty() { Err(PemError::NoCertificate) } else { Ok(roots) }
}

/// Reads lists of certificates that are not valid any more.
///
/// # Errors
///
/// There are none, or one of them is damaged.
pub fn read_revocation_lists(file: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, PemError> {
    let lists = sections::<CertificateRevocationListDer<'static>>(&read(file)?)?;
    for (index, list) in lists.iter().enumerate() {
        OwnedCertRevocationList::from_der(list)
            .map_err(|source| PemError::BadRevocationList { number: index + 1, source })?;
    }
    if lists.is_empty() { Err(PemError::NoRevocationList) } else { Ok(lists) }
}

/// What tells the content of a file from any other.
///
/// # Errors
///
/// It cannot be read, or is too long to be of any use.
pub fn fingerprint(file: &Path) -> Result<[u8; 32], PemError> {
    let hash = digest::digest(&digest::SHA256, &read(file)?);
    Ok(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"))
}

/// Every section of one kind.
fn sections<T: PemObject>(text: &[u8]) -> Result<Vec<T>, PemError> {
    T::pem_slice_iter(text).collect::<Result<_, _>>().map_err(|_| PemError::Damaged)
}

fn read(file: &Path) -> Result<Zeroizing<Vec<u8>>, PemError> {
    // A pipe or a device could block or never end.
    let metadata = file.metadata().map_err(PemError::Read)?;
    if !metadata.is_file() {
        return Err(PemError::Read(io::Error::other("it is not a regular file")));
    }
    // The whole room at once: a buffer that grows would leave copies of its start behind.
    let room = metadata.len().min(limits::PEM_FILE) as usize + 1;
    let mut text = Zeroizing::new(Vec::with_capacity(room));
    let read = File::open(file).and_then(|file| file.take(limits::PEM_FILE + 1).read_to_end(&mut text));
    if read.map_err(PemError::Read)? as u64 > limits::PEM_FILE { Err(PemError::TooLong) } else { Ok(text) }
}

#[cfg(test)]
mod tests;
