//! What the files of certificates say now, for those of a plan that is in use.
//!
//! The same is asked of them as when the plan was made. Each certificate, each bundle and each revocation list stands for itself: what cannot be used
//! leaves its predecessor in place, and holds up no other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::certificate::{self, PemError};
use super::plan::{CertificatePlan, ClientCertificatesPlan, ListenerTlsPlan, Plan, TlsRoots, UpstreamTlsPlan};

/// Why a file does not take the place of what was read before.
#[derive(Debug, thiserror::Error)]
pub enum RereadError {
    /// What is in it is of no use.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// A listener could never show it.
    #[error("the certificate is for no DNS name")]
    NoName,
    /// It could not be told which of the two to show.
    #[error("another certificate of the listener is for {0} too, with a key of the same kind")]
    SameName(String),
}

/// What came of reading files again. A certificate stands under the file of its chain, unless something is wrong with that of its key.
#[derive(Debug, Default)]
pub struct Reread {
    /// Files that say something else than before.
    pub renewed: BTreeSet<PathBuf>,
    /// Files that are of no use now.
    pub refused: BTreeMap<PathBuf, RereadError>,
}

/// Every file that certificates, keys and revocation lists of the plan came from.
pub fn files(plan: &Plan) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    for tls in plan.listeners.iter().filter_map(|listener| listener.tls.as_ref()) {
        files.extend(tls.certificates.iter().flat_map(files_of));
        if let Some(ClientCertificatesPlan { ca_file, crl_files, .. }) = &tls.client_certificates {
            files.extend(crl_files.iter().chain([ca_file]).cloned());
        }
    }
    for tls in plan.upstreams.iter().filter_map(|upstream| upstream.tls.as_ref()) {
        files.extend(tls.certificate.iter().flat_map(files_of));
        if let TlsRoots::Given { file, .. } = &tls.roots {
            files.insert(file.clone());
        }
    }
    files
}

fn files_of(certificate: &CertificatePlan) -> [PathBuf; 2] {
    [certificate.chain_file.clone(), certificate.key_file.clone()]
}

impl Reread {
    /// Takes over what the `changed` files of a listener say. Returns whether that is anything new.
    pub fn listener(&mut self, plan: &mut ListenerTlsPlan, changed: &BTreeSet<PathBuf>) -> bool {
        let mut is_new = false;
        for index in 0..plan.certificates.len() {
            let renewed = self.certificate(&plan.certificates[index], changed, |new| {
                let others = plan.certificates.iter().enumerate().filter(|(other, _)| *other != index);
                check_names(new, others.map(|(_, other)| other))
            });
            if let Some(renewed) = renewed {
                plan.certificates[index] = renewed;
                is_new = true;
            }
        }
        if let Some(clients) = &mut plan.client_certificates {
            is_new |= self.file(&clients.ca_file, &mut clients.roots, changed, certificate::read_roots);
            for (file, lists) in clients.crl_files.iter().zip(&mut clients.crls) {
                is_new |= self.file(file, lists, changed, certificate::read_revocation_lists);
            }
        }
        is_new
    }

    /// The same of an upstream.
    pub fn upstream(&mut self, plan: &mut UpstreamTlsPlan, changed: &BTreeSet<PathBuf>) -> bool {
        let mut is_new = false;
        if let TlsRoots::Given { certificates, file } = &mut plan.roots {
            is_new |= self.file(file, certificates, changed, certificate::read_roots);
        }
        if let Some(own) = &mut plan.certificate
            && let Some(renewed) = self.certificate(own, changed, |_| Ok(()))
        {
            *own = renewed;
            is_new = true;
        }
        is_new
    }

    /// The certificate that takes the place of `old`, if there is one.
    fn certificate(
        &mut self,
        old: &CertificatePlan,
        changed: &BTreeSet<PathBuf>,
        check: impl Fn(&CertificatePlan) -> Result<(), RereadError>,
    ) -> Option<CertificatePlan> {
        if !changed.contains(&old.chain_file) && !changed.contains(&old.key_file) {
            return None;
        }
        let read = read_pair(old).and_then(|new| match check(&new) {
            Ok(()) => Ok(new),
            Err(error) => Err((&old.chain_file, error)),
        });
        match read {
            Ok(new) if new == *old => None,
            Ok(new) => {
                self.renewed.insert(old.chain_file.clone());
                Some(new)
            }
            Err((file, error)) => {
                self.refused.insert(file.clone(), error);
                None
            }
        }
    }

    fn file<T: PartialEq>(
        &mut self,
        file: &Path,
        old: &mut T,
        changed: &BTreeSet<PathBuf>,
        read: impl Fn(&Path) -> Result<T, PemError>,
    ) -> bool {
        if !changed.contains(file) {
            return false;
        }
        match read(file) {
            Ok(new) if new == *old => false,
            Ok(new) => {
                *old = new;
                self.renewed.insert(file.to_owned());
                true
            }
            Err(error) => {
                self.refused.insert(file.to_owned(), error.into());
                false
            }
        }
    }
}

/// What its two files say now, or which of them is of no use.
fn read_pair(old: &CertificatePlan) -> Result<CertificatePlan, (&PathBuf, RereadError)> {
    let CertificatePlan { chain_file, key_file, .. } = old;
    let chain = certificate::read_chain(chain_file).map_err(|error| (chain_file, error.into()))?;
    let key = certificate::read_key(key_file).map_err(|error| (key_file, error.into()))?;
    certificate::pair(chain_file.clone(), chain, key_file.clone(), key).map_err(|error| (key_file, error.into()))
}

fn check_names<'a>(
    new: &CertificatePlan,
    mut others: impl Iterator<Item = &'a CertificatePlan>,
) -> Result<(), RereadError> {
    if new.names.is_empty() {
        return Err(RereadError::NoName);
    }
    let shared = others.find_map(|other| {
        let is_shared = |name: &&String| other.algorithm == new.algorithm && other.names.contains(name);
        new.names.iter().find(is_shared)
    });
    shared.map_or(Ok(()), |name| Err(RereadError::SameName(name.clone())))
}

#[cfg(test)]
mod tests;
