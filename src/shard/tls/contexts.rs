//! What the plan says of TLS, as rustls wants it: made before anything listens, and anew when certificates have changed; shared by all shards.

use std::cell::LazyCell;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs as provider};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore, ServerConfig, SignatureScheme,
    SupportedProtocolVersion, version,
};

use super::super::transport::Lifetime;
use super::certificates::Certificates;
use crate::config::plan::{
    CertificatePlan, ClientCertificateMode, ClientCertificatesPlan, EndpointPlan, EndpointTarget, ListenerTlsPlan,
    Plan, Protocol, TlsRoots, TlsVersion, UpstreamTlsPlan,
};
use crate::ids::UpstreamId;

/// What is spoken through TLS, by its name in ALPN, the preferred one first; HTTP/2 before all where it is spoken.
const PROTOCOLS: [&[u8]; 2] = [b"http/1.1", b"http/1.0"];
/// HTTP/2 in ALPN (RFC 9113 section 3.2).
pub const HTTP2: &[u8] = b"h2";
/// Sessions that a shard keeps of one upstream, to be resumed.
const SESSIONS: usize = 64;

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("{0}")]
    Tls(#[from] Error),
    #[error("the certificates that are trusted: {0}")]
    Trust(#[from] rustls::client::VerifierBuilderError),
    #[error(
        "the system trusts no certificate authority that can be read: install ca-certificates, or name a bundle in `tls.ca`"
    )]
    NoSystemRoots,
}

/// By listener and by upstream; `None` where plain text is spoken.
#[derive(Clone)]
pub struct Contexts {
    pub listeners: Vec<Option<Arc<ServerConfig>>>,
    pub upstreams: Vec<Option<UpstreamContext>>,
}

/// How one upstream is spoken to.
#[derive(Clone)]
pub struct UpstreamContext {
    pub config: Arc<ClientConfig>,
    /// The names that the certificates must be for, by endpoint.
    pub names: Arc<[ServerName<'static>]>,
    /// The end of the certificate that is shown.
    pub not_after: Option<SystemTime>,
    /// How often another one took this one's place.
    pub generation: u32,
    /// When the first of the certificates ends that belong to the sessions which could be resumed.
    sessions_end: Option<Instant>,
}

impl Contexts {
    /// # Errors
    /// See [`SetupError`].
    pub fn new(plan: &Plan) -> Result<Self, SetupError> {
        let provider = Arc::new(provider::default_provider());
        let listeners = plan.listeners.iter().map(|listener| {
            let config = |tls| listener_config(tls, listener.http2, None);
            listener.tls.as_ref().map(config).transpose()
        });
        // Hundreds of certificates: read only if somebody needs them, and once.
        let system = LazyCell::new(system_roots as fn() -> _);
        let upstreams = plan.upstreams.iter().map(|upstream| {
            let Some(tls) = &upstream.tls else { return Ok(None) };
            let names = upstream.endpoints.iter().map(|endpoint| server_name(tls, endpoint)).collect();
            let not_after = tls.certificate.as_ref().and_then(CertificatePlan::not_after);
            let config = client(tls, upstream.spoken(), &provider, &system).map(Arc::new);
            config.map(|config| Some(UpstreamContext { config, names, not_after, generation: 0, sessions_end: None }))
        });
        Ok(Self { listeners: listeners.collect::<Result<_, _>>()?, upstreams: upstreams.collect::<Result<_, _>>()? })
    }

    /// For one shard, whose sessions with upstreams are its own: so nobody waits for a lock.
    pub fn for_shard(&self) -> Self {
        let mut own = self.clone();
        for context in own.upstreams.iter_mut().flatten() {
            context.config = with_own_sessions(&context.config);
        }
        own
    }

    /// How to open a connection to an upstream now. A session that is resumed shows no certificates, so those that may have ended are forgotten.
    pub fn for_dial(&mut self, upstream: UpstreamId, now: Instant) -> Option<UpstreamContext> {
        let context = self.upstreams[upstream.index()].as_mut()?;
        if context.sessions_end.is_some_and(|end| end <= now) {
            context.sessions_end = None;
            context.config = with_own_sessions(&context.config);
        }
        Some(context.clone())
    }

    /// Notes that a connection was opened whose session could be resumed.
    pub fn opened(&mut self, upstream: UpstreamId, lifetime: Lifetime) {
        if let Some(context) = &mut self.upstreams[upstream.index()]
            && context.generation == lifetime.generation
        {
            context.sessions_end = context.sessions_end.into_iter().chain(lifetime.end).min();
        }
    }

    /// Speaks to an upstream another way from now on. Nothing that sessions from before have proven counts any more.
    pub fn renew_upstream(&mut self, upstream: UpstreamId, config: &ClientConfig, not_after: Option<SystemTime>) {
        let Some(context) = &mut self.upstreams[upstream.index()] else { return };
        context.config = with_own_sessions(config);
        context.not_after = not_after;
        context.sessions_end = None;
        context.generation = context.generation.wrapping_add(1);
    }
}

fn with_own_sessions(config: &ClientConfig) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    Arc::new(config)
}

/// How a listener speaks, and whether `http2` is what it likes best. With a `ticketer` of its predecessor's, sessions from before are resumed, and what was verified then is not verified again.
///
/// # Errors
/// See [`SetupError`].
pub fn listener_config(
    tls: &ListenerTlsPlan,
    http2: bool,
    ticketer: Option<Arc<dyn ProducesTickets>>,
) -> Result<Arc<ServerConfig>, SetupError> {
    let mut config = server(tls, &Arc::new(provider::default_provider()), ticketer)?;
    if http2 {
        config.alpn_protocols.insert(0, HTTP2.to_vec());
    }
    Ok(Arc::new(config))
}

/// How an upstream is spoken to, and what is offered to it.
///
/// # Errors
/// See [`SetupError`].
pub fn upstream_config(tls: &UpstreamTlsPlan, spoken: Protocol) -> Result<Arc<ClientConfig>, SetupError> {
    let system = LazyCell::new(system_roots as fn() -> _);
    client(tls, spoken, &Arc::new(provider::default_provider()), &system).map(Arc::new)
}

fn versions(min: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static NEWEST_FIRST: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
    match min {
        TlsVersion::Tls12 => &NEWEST_FIRST,
        TlsVersion::Tls13 => &NEWEST_FIRST[..1],
    }
}

fn server(
    plan: &ListenerTlsPlan,
    provider: &Arc<CryptoProvider>,
    ticketer: Option<Arc<dyn ProducesTickets>>,
) -> Result<ServerConfig, SetupError> {
    let mut certificates = Certificates::default();
    for certificate in &plan.certificates {
        certificates.add(&certificate.names, certified(certificate, provider)?);
    }
    let builder =
        ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions(plan.min_version))?;
    let builder = match &plan.client_certificates {
        None => builder.with_no_client_auth(),
        Some(clients) => builder.with_client_cert_verifier(client_verifier(clients, provider)?),
    };
    let mut config = builder.with_cert_resolver(Arc::new(certificates));
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    // Tickets hold the whole session, and their keys rotate: it can be resumed on any shard.
    config.ticketer = match ticketer {
        Some(ticketer) => ticketer,
        None => provider::Ticketer::new()?,
    };
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

fn certified(plan: &CertificatePlan, provider: &CryptoProvider) -> Result<CertifiedKey, Error> {
    CertifiedKey::from_der(plan.chain.clone(), plan.key.expose().clone_key(), provider)
}

fn client_verifier(
    plan: &ClientCertificatesPlan,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, SetupError> {
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(&plan.roots)?), provider.clone());
    let builder = builder.with_crls(plan.crls.iter().flatten().cloned());
    let builder = match plan.mode {
        ClientCertificateMode::Required => builder,
        ClientCertificateMode::Optional => builder.allow_unauthenticated(),
    };
    Ok(builder.build()?)
}

fn roots(certificates: &[CertificateDer<'static>]) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.clone())?;
    }
    Ok(roots)
}

fn server_name(tls: &UpstreamTlsPlan, endpoint: &EndpointPlan) -> ServerName<'static> {
    tls.server_name.clone().unwrap_or_else(|| match &endpoint.target {
        EndpointTarget::Address(address) => ServerName::from(address.ip()),
        EndpointTarget::Name { host, .. } => ServerName::try_from(host.clone()).expect("checked with the plan"),
        EndpointTarget::Unix(_) => unreachable!("only https endpoints speak TLS"),
    })
}

fn system_roots() -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    // Some of what a system trusts may be of a kind that nobody reads any more.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    Arc::new(roots)
}

fn client(
    plan: &UpstreamTlsPlan,
    spoken: Protocol,
    provider: &Arc<CryptoProvider>,
    system: &LazyCell<Arc<RootCertStore>>,
) -> Result<ClientConfig, SetupError> {
    let roots = match &plan.roots {
        TlsRoots::Given { certificates, .. } => Arc::new(roots(certificates)?),
        TlsRoots::System if system.is_empty() => return Err(SetupError::NoSystemRoots),
        TlsRoots::System => Arc::clone(system),
    };
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build()?;
    let verifier = Pinned { verifier, pins: plan.pins.clone(), algorithms: provider.signature_verification_algorithms };
    let builder =
        ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions(plan.min_version))?;
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &plan.certificate {
        None => builder.with_no_client_auth(),
        Some(certificate) => {
            builder.with_client_auth_cert(certificate.chain.clone(), certificate.key.expose().clone_key())?
        }
    };
    config.alpn_protocols = offered(spoken);
    Ok(config)
}

/// What is offered to an upstream in ALPN.
fn offered(protocol: Protocol) -> Vec<Vec<u8>> {
    let names: &[&[u8]] = match protocol {
        Protocol::Auto => &[HTTP2, PROTOCOLS[0]],
        Protocol::H1 => &PROTOCOLS[..1],
        Protocol::H2 => &[HTTP2],
    };
    names.iter().map(|name| name.to_vec()).collect()
}

/// All that the usual verifier demands, and that the public key is one of those that are expected, if any are (RFC 7469 section 2.4 has the form).
#[derive(Debug)]
struct Pinned {
    verifier: Arc<WebPkiServerVerifier>,
    pins: Vec<[u8; 32]>,
    algorithms: WebPkiSupportedAlgorithms,
}

#[derive(Debug, thiserror::Error)]
#[error("its public key is none of those that are pinned")]
struct NotPinned;

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        if !self.pins.is_empty() {
            let certificate = webpki::EndEntityCert::try_from(end_entity);
            let key = certificate.map(|certificate| digest(&SHA256, &certificate.subject_public_key_info()));
            if !key.is_ok_and(|key| self.pins.iter().any(|pin| pin[..] == *key.as_ref())) {
                return Err(Error::InvalidCertificate(rustls::CertificateError::Other(OtherError(Arc::new(
                    NotPinned,
                )))));
            }
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
