//! Which certificate a client gets to see: by the name that it asks for.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// The certificates of one listener, by the names that they are for.
#[derive(Debug, Default)]
pub struct Certificates {
    exact: HashMap<String, Vec<Arc<Named>>>,
    /// By what stands behind `*.`.
    wildcard: HashMap<String, Vec<Arc<Named>>>,
    /// For clients that name nobody, or a stranger: the first one. Refusing them would tell scanners which names there are.
    default: Vec<Arc<Named>>,
}

#[derive(Debug)]
struct Named {
    key: Arc<CertifiedKey>,
    names: Arc<[String]>,
}

/// What a client got to see. It holds for its connection, whatever is shown to others since.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The name that the client asked for.
    pub asked: Option<String>,
    /// Those that its certificate is for.
    pub names: Arc<[String]>,
}

impl Certificates {
    /// Adds one that is for these names, `*.` before a name standing for one label. The first is also the default.
    pub fn add(&mut self, names: &[String], certificate: CertifiedKey) {
        let certificate = Arc::new(Named { key: Arc::new(certificate), names: names.into() });
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
    fn named(&self, name: Option<&str>) -> &[Arc<Named>] {
        let Some(name) = name else { return &self.default };
        let parent = || name.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent));
        self.exact.get(name).or_else(parent).unwrap_or(&self.default)
    }
}

thread_local! {
    /// How the last hello was answered on this thread: rustls tells nobody but its resolver.
    static SHOWN: Cell<Option<Shown>> = const { Cell::new(None) };
}

/// Takes what the client got to see whose hello was answered last. Only to be called before another one is.
pub fn take_shown() -> Option<Shown> {
    SHOWN.take()
}

impl ResolvesServerCert for Certificates {
    /// Of several for one name, the first whose kind of key the client can verify.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let candidates = self.named(hello.server_name());
        let fits = |it: &&Arc<Named>| it.key.key.choose_scheme(hello.signature_schemes()).is_some();
        let shown = candidates.iter().find(fits).or(candidates.first())?;
        SHOWN.set(Some(Shown { asked: hello.server_name().map(str::to_owned), names: shown.names.clone() }));
        Some(shown.key.clone())
    }
}
