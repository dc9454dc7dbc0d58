//! TLS on both sides.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::ServerName;

use super::{Context, Seen};
use crate::config::certificate::{self, PemError};
use crate::config::complaint::Place;
use crate::config::plan::{
    CertificatePlan, ClientCertificateMode, ClientCertificatesPlan, EndpointPlan, EndpointTarget, ListenerTlsPlan,
    TlsRoots, TlsVersion, UpstreamTlsPlan,
};
use crate::config::{limits, raw};

/// `place` is that of the `tls` section.
pub(super) fn of_listener(cx: &mut Context<'_>, place: &Place<'_>, raw: &raw::ListenerTls) -> ListenerTlsPlan {
    ListenerTlsPlan {
        certificates: certificates(cx, &place.key("certificates"), &raw.certificates),
        min_version: min_version(cx, place, raw.min_version.as_deref()),
        client_certificates: client_certificates(cx, &place.key("client_certificates"), &raw.client_certificates),
    }
}

/// `place` is that of the `tls` section, which need not be there.
pub(super) fn of_upstream(cx: &mut Context<'_>, place: &Place<'_>, raw: Option<&raw::UpstreamTls>) -> UpstreamTlsPlan {
    let absent = raw::UpstreamTls::default();
    let raw = raw.unwrap_or(&absent);
    let roots = match file(cx, &place.key("ca"), raw.ca.as_deref(), certificate::read_roots) {
        Some((file, certificates)) => TlsRoots::Given { certificates, file },
        None => TlsRoots::System,
    };
    UpstreamTlsPlan {
        roots,
        server_name: server_name(cx, &place.key("server_name"), raw.server_name.as_deref()),
        min_version: min_version(cx, place, raw.min_version.as_deref()),
        pins: pins(cx, &place.key("pins"), &raw.pins),
        certificate: raw.certificate.as_ref().and_then(|raw| certificate(cx, &place.key("certificate"), raw)),
    }
}

/// The host of an `https` endpoint without a `server_name` must be one that a certificate can be for.
pub(super) fn check_host(cx: &mut Context<'_>, place: &Place<'_>, endpoint: &EndpointPlan) {
    if let EndpointTarget::Name { host, .. } = &endpoint.target
        && ServerName::try_from(host.as_str()).is_err()
    {
        cx.complain(place, "no certificate can be for that host", "add \"tls\" with the \"server_name\" to expect");
    }
}

fn min_version(cx: &mut Context<'_>, place: &Place<'_>, written: Option<&str>) -> TlsVersion {
    cx.choice(&place.key("min_version"), written, &raw::TLS_VERSIONS, TlsVersion::Tls12)
}

fn certificates(cx: &mut Context<'_>, place: &Place<'_>, written: &[Option<raw::Certificate>]) -> Vec<CertificatePlan> {
    if written.is_empty() {
        cx.complain(place, "there is no certificate", "add { \"chain\": \"tls/site.pem\", \"key\": \"tls/site.key\" }");
    }
    if written.len() > limits::CERTIFICATES {
        cx.complain(place, "there are too many", format!("name {} certificates at most", limits::CERTIFICATES));
        return Vec::new();
    }
    let mut plans = Vec::new();
    let mut seen = Seen::new();
    for (index, raw) in written.iter().enumerate() {
        let place = place.index(index);
        let Some(plan) = raw.as_ref().and_then(|raw| certificate(cx, &place, raw)) else { continue };
        if plan.names.is_empty() {
            let remedy = "use one with a DNS name in its subjectAltName; the common name does not count";
            cx.complain(&place.key("chain"), "the certificate is for no DNS name", remedy);
        }
        for name in &plan.names {
            if let Some(first) = seen.earlier((name.clone(), u8::from(plan.algorithm)), index) {
                let problem = format!("certificates[{first}] is for {name} too, with a key of the same kind");
                let remedy = "leave one of them out, or use two kinds of keys, as RSA and ECDSA";
                cx.complain(&place.key("chain"), problem, remedy);
            }
        }
        plans.push(plan);
    }
    plans
}

fn certificate(cx: &mut Context<'_>, place: &Place<'_>, raw: &raw::Certificate) -> Option<CertificatePlan> {
    let chain = file(cx, &place.key("chain"), raw.chain.as_deref(), certificate::read_chain);
    let key = file(cx, &place.key("key"), raw.key.as_deref(), certificate::read_key);
    let ((chain_file, chain), (key_file, key)) = (chain?, key?);
    match certificate::pair(chain_file, chain, key_file, key) {
        Ok(plan) => Some(plan),
        Err(error) => {
            cx.complain(&place.key("key"), error.to_string(), error.remedy());
            None
        }
    }
}

fn client_certificates(
    cx: &mut Context<'_>,
    place: &Place<'_>,
    raw: &raw::ClientCertificates,
) -> Option<ClientCertificatesPlan> {
    let mode = raw.mode.as_deref().and_then(|written| {
        // With an unknown word, what else is there is looked at all the same.
        let assumed = Some(ClientCertificateMode::Optional);
        cx.choice(&place.key("mode"), Some(written), &raw::CLIENT_CERTIFICATE_MODES, assumed)
    });
    let Some(mode) = mode else {
        let given = [("ca", raw.ca.is_some()), ("crl", !raw.crl.is_empty()), ("forward", raw.forward == Some(true))];
        for (key, _) in given.into_iter().filter(|(_, given)| *given) {
            let remedy = format!("write \"mode\": \"optional\" or \"required\", or leave \"{key}\" out");
            cx.complain(&place.key(key), "clients are not asked for certificates", remedy);
        }
        return None;
    };
    if raw.ca.is_none() {
        let remedy = "name the PEM file of the certificates that a client's must lead to";
        cx.complain(&place.key("ca"), "it is missing", remedy);
    }
    let ca = file(cx, &place.key("ca"), raw.ca.as_deref(), certificate::read_roots);
    let place_of_crl = place.key("crl");
    if raw.crl.len() > limits::REVOCATION_FILES {
        let remedy = format!("name {} files at most; one can hold several lists", limits::REVOCATION_FILES);
        cx.complain(&place_of_crl, "there are too many", remedy);
        return None;
    }
    let (mut crls, mut crl_files) = (Vec::new(), Vec::new());
    for (index, written) in raw.crl.iter().enumerate() {
        let read = certificate::read_revocation_lists;
        if let Some((path, lists)) = file(cx, &place_of_crl.index(index), written.as_deref(), read) {
            crls.push(lists);
            crl_files.push(path);
        }
    }
    let (ca_file, roots) = ca?;
    let forward = raw.forward.unwrap_or(false);
    Some(ClientCertificatesPlan { mode, roots, crls, forward, ca_file, crl_files })
}

fn server_name(cx: &mut Context<'_>, place: &Place<'_>, written: Option<&str>) -> Option<ServerName<'static>> {
    let expanded = cx.expand(place, written?)?;
    let name = ServerName::try_from(expanded.text.as_str()).ok().map(|name| name.to_owned());
    if name.is_none() {
        cx.complain(place, "no certificate can be for that name", "write a host name or an address, without port");
    }
    name
}

fn pins(cx: &mut Context<'_>, place: &Place<'_>, written: &[Option<String>]) -> Vec<[u8; 32]> {
    if written.len() > limits::PINS {
        cx.complain(place, "there are too many", format!("write {} pins at most", limits::PINS));
        return Vec::new();
    }
    let mut pins = Vec::new();
    for (index, written) in written.iter().enumerate() {
        let place = place.index(index);
        let Some(expanded) = written.as_deref().and_then(|written| cx.expand(&place, written)) else { continue };
        match read_pin(&expanded.text) {
            Some(pin) => pins.push(pin),
            None => {
                let remedy = "write \"sha256/\" and the 44 characters of Base64 of the public key's SHA-256";
                cx.complain(&place, "it is no pin", remedy);
            }
        }
    }
    pins
}

fn read_pin(text: &str) -> Option<[u8; 32]> {
    let hash = STANDARD.decode(text.strip_prefix("sha256/")?).ok()?;
    hash.try_into().ok()
}

/// Reads what is in a file, and tells its path too, because it is read again when it has changed.
fn file<T>(
    cx: &mut Context<'_>,
    place: &Place<'_>,
    written: Option<&str>,
    read: impl Fn(&Path) -> Result<T, PemError>,
) -> Option<(PathBuf, T)> {
    let expanded = cx.expand(place, written?)?;
    if expanded.text.contains("-----BEGIN") {
        cx.complain_unseen(place, "it is what is in a file, and not its path", "write the path alone");
        return None;
    }
    let path = cx.directory.join(expanded.text.as_str());
    match read(&path) {
        Ok(content) => Some((path, content)),
        Err(error) => {
            cx.complain(place, error.to_string(), error.remedy());
            None
        }
    }
}
