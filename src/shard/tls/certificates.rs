//! Which certificate a client gets to see: by the name that it asks for.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// The certificates of one listener, by the names that they are for.
#[derive(Debug, Default)]
pub struct Certificates {
    exact: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// By what stands behind `*.`.
    wildcard: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// For clients that name nobody, or a stranger: the first one. Refusing them would tell scanners which names there are.
    default: Vec<Arc<CertifiedKey>>,
}

impl Certificates {
    /// Adds one that is for these names, `*.` before a name standing for one label. The first is also the default.
    pub fn add(&mut self, names: &[String], certificate: CertifiedKey) {
        let certificate = Arc::new(certificate);
        for name in names {
            let name = name.to_ascii_lowercase();
            match name.strip_prefix("*.") {
                Some(parent) => self.wildcard.entry(parent.to_owned()).or_default().push(certificate.clone()),
                None => self.exact.entry(name).or_default().push(certificate.clone()),
            }
        }
        if self.default.is_empty() {
            self.default.push(certificate);
        }
    }

    /// Those that are for `name`; of the default there is one at least.
    fn named(&self, name: Option<&str>) -> &[Arc<CertifiedKey>] {
        let Some(name) = name else { return &self.default };
        let parent = || name.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent));
        self.exact.get(name).or_else(parent).unwrap_or(&self.default)
    }
}

thread_local! {
    /// The name in the last hello that was answered on this thread: rustls tells nobody but its resolver.
    static ASKED: Cell<Option<String>> = const { Cell::new(None) };
}

/// Takes the name that the client asked for whose hello was answered last. Only to be called before another one is.
pub fn take_asked() -> Option<String> {
    ASKED.take()
}

impl ResolvesServerCert for Certificates {
    /// Of several for one name, the first whose kind of key the client can verify.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        ASKED.set(hello.server_name().map(str::to_owned));
        let candidates = self.named(hello.server_name());
        let fits = |it: &&Arc<CertifiedKey>| it.key.choose_scheme(hello.signature_schemes()).is_some();
        candidates.iter().find(fits).or(candidates.first()).cloned()
    }
}
