//! Why a handshake failed, in words for whoever reads the log: of certificates above all, which are somebody's to renew.

use std::fmt;

use rustls::{CertificateError, Error, OtherError};

/// An error of TLS, told of the peer as "it".
pub struct Reason<'e>(pub &'e Error);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Error::InvalidCertificate(error) => certificate(error, f),
            Error::NoCertificatesPresented => f.write_str("it shows no certificate"),
            error => write!(f, "{error}"),
        }
    }
}

fn certificate(error: &CertificateError, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str(match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "its certificate has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet"
        }
        CertificateError::Revoked => "its certificate is revoked",
        CertificateError::UnknownRevocationStatus => "no revocation list is for its certificate",
        CertificateError::UnknownIssuer => "its certificate leads to no authority that is trusted",
        CertificateError::BadSignature => "its certificate is not signed by the authority that it names",
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its certificate is for another purpose"
        }
        CertificateError::BadEncoding => "its certificate cannot be read",
        CertificateError::NotValidForName => "its certificate is for another name",
        CertificateError::NotValidForNameContext { expected, .. } => {
            return write!(f, "its certificate is not for {}", expected.to_str());
        }
        CertificateError::Other(OtherError(error)) => return write!(f, "{error}"),
        error => return write!(f, "{error}"),
    })
}
