//! Certificates that are replaced while the gateway runs: a thread looks at their files again and again, and tells every shard what is new.
//!
//! Whoever renews certificates writes, renames or swaps symbolic links, in one step or in several, and tells nobody. So files are looked at rather than
//! watched, and what they say counts, not how they came to say it. A look may fall between two steps, when a key does not belong to its chain yet or half a
//! file is written: then what was read before stays in use, and the next look finds the rest. Handshakes go by what is newest; connections that
//! are open are not touched.
//!
//! Whatever was proven to the old certificates of authorities is not believed any more: a listener that trusts others than before takes no session from
//! before back, and nor does an upstream whose certificates change.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;

use super::clock;
use super::tls::contexts::{self, Contexts};
use crate::config::plan::{CertificatePlan, ListenerTlsPlan, Plan, UpstreamTlsPlan};
use crate::config::reread::{self, Reread};
use crate::config::{certificate, limits};
use crate::ids::{ListenerId, UpstreamId};
use crate::mesh::{CertificateReport, Control, Mesh};

/// A file that was changed less than this before a look may be changed again without its times or size telling: file systems' clocks are coarse.
const YOUNG: Duration = Duration::from_secs(2);

/// Starts to look after the plan's files, at once when `looks` says so. It ends with the sender of that, and does not begin if there are no files.
///
/// # Errors
/// No thread could be started.
pub fn start(plan: &Arc<Plan>, contexts: Contexts, mesh: &Mesh, looks: mpsc::Receiver<()>) -> io::Result<()> {
    let files = reread::files(plan);
    if files.is_empty() {
        return Ok(());
    }
    let mut renewal = Renewal {
        files: files.into_iter().map(|file| (file, Seen::default())).collect(),
        listeners: plan.listeners.iter().map(|listener| listener.tls.clone()).collect(),
        upstreams: plan.upstreams.iter().map(|upstream| upstream.tls.clone()).collect(),
        configs: contexts.listeners,
        plan: plan.clone(),
        mesh: mesh.clone(),
        renewed: 0,
        refused: 0,
    };
    let look = move || {
        loop {
            renewal.look();
            match looks.recv_timeout(limits::CERTIFICATE_LOOK) {
                Ok(()) | Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    };
    std::thread::Builder::new().name("certificates".into()).spawn(look).map(drop)
}

struct Renewal {
    files: BTreeMap<PathBuf, Seen>,
    /// As they are in use, by index.
    listeners: Vec<Option<ListenerTlsPlan>>,
    upstreams: Vec<Option<UpstreamTlsPlan>>,
    /// Of listeners.
    configs: Vec<Option<Arc<ServerConfig>>>,
    /// As it was at the start.
    plan: Arc<Plan>,
    mesh: Mesh,
    renewed: u64,
    refused: u64,
}

impl Renewal {
    /// The first look finds everything changed, and so tells what there is.
    fn look(&mut self) {
        let changed = self.files.iter_mut().filter_map(|(file, seen)| seen.look(file).then(|| file.clone()));
        let changed: BTreeSet<PathBuf> = changed.collect();
        if changed.is_empty() {
            return;
        }
        let mut reread = Reread::default();
        for index in 0..self.listeners.len() {
            self.renew_listener(index, &changed, &mut reread);
        }
        for index in 0..self.upstreams.len() {
            self.renew_upstream(index, &changed, &mut reread);
        }
        for (file, error) in &reread.refused {
            tracing::warn!(file = %file.display(), %error, "not taken over: what was read before stays in use");
        }
        for file in &reread.renewed {
            tracing::info!(file = %file.display(), "taken over");
        }
        self.renewed += reread.renewed.len() as u64;
        self.refused += reread.refused.len() as u64;
        self.report();
    }

    fn renew_listener(&mut self, index: usize, changed: &BTreeSet<PathBuf>, reread: &mut Reread) {
        let Some(old) = &self.listeners[index] else { return };
        let mut plan = old.clone();
        if !reread.listener(&mut plan, changed) {
            return;
        }
        // Tickets say that a client's certificate was verified, not against what.
        let trusts_the_same = plan.client_certificates == old.client_certificates;
        let config = self.configs[index].as_ref().filter(|_| trusts_the_same);
        let ticketer = config.map(|config| config.ticketer.clone());
        match contexts::listener_config(&plan, self.plan.listeners[index].http2, ticketer) {
            Ok(config) => {
                self.listeners[index] = Some(plan);
                self.configs[index] = Some(config.clone());
                let listener = ListenerId(index as u16);
                self.tell(|| Control::ListenerTls { listener, config: config.clone() });
            }
            Err(error) => {
                let listener = &self.plan.listeners[index].name;
                tracing::error!(listener, %error, "cannot use what its files say now: what was read before stays in use");
            }
        }
    }

    fn renew_upstream(&mut self, index: usize, changed: &BTreeSet<PathBuf>, reread: &mut Reread) {
        let Some(old) = &self.upstreams[index] else { return };
        let mut plan = old.clone();
        if !reread.upstream(&mut plan, changed) {
            return;
        }
        match contexts::upstream_config(&plan, self.plan.upstreams[index].spoken()) {
            Ok(config) => {
                let not_after = plan.certificate.as_ref().and_then(CertificatePlan::not_after);
                self.upstreams[index] = Some(plan);
                let upstream = UpstreamId(index as u16);
                self.tell(|| Control::UpstreamTls { upstream, config: config.clone(), not_after });
            }
            Err(error) => {
                let upstream = &self.plan.upstreams[index].name;
                tracing::error!(upstream, %error, "cannot use what its files say now: what was read before stays in use");
            }
        }
    }

    fn report(&self) {
        let of_listeners = self.listeners.iter().flatten().flat_map(|tls| &tls.certificates);
        let of_upstreams = self.upstreams.iter().flatten().filter_map(|tls| tls.certificate.as_ref());
        let not_after = of_listeners
            .chain(of_upstreams)
            .filter_map(|certificate| Some((certificate.chain_file.clone(), certificate.not_after()?)))
            .collect::<BTreeMap<_, _>>();
        let report = CertificateReport {
            renewed: self.renewed,
            refused: self.refused,
            not_after: not_after.into_iter().collect(),
        };
        let report = Arc::new(report);
        self.tell(|| Control::Certificates(report.clone()));
    }

    fn tell(&self, control: impl Fn() -> Control) {
        self.mesh.shards().for_each(|shard| self.mesh.command(shard, control()));
    }
}

/// What a file was like when it was looked at.
#[derive(Default)]
struct Seen {
    /// As long as it is the same, so is the content.
    stamp: Option<Stamp>,
    /// Nothing before the first look; nothing inside when the file could not be read.
    content: Option<Option<[u8; 32]>>,
}

#[derive(PartialEq, Eq)]
struct Stamp {
    inode: (u64, u64),
    bytes: u64,
    changed: (i64, i64),
}

impl Seen {
    /// Whether the file says something else than at the last look. At the first one it does: it may have changed since the plan was made.
    fn look(&mut self, file: &Path) -> bool {
        let stamp = stamp(file);
        if stamp.is_some() && stamp == self.stamp {
            return false;
        }
        self.stamp = stamp.filter(Stamp::is_settled);
        let content = Some(certificate::fingerprint(file).ok());
        let is_same = content == self.content;
        self.content = content;
        !is_same
    }
}

impl Stamp {
    fn is_settled(&self) -> bool {
        let now = clock::wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let changed = Duration::from_secs(u64::try_from(self.changed.0).unwrap_or_default());
        now.saturating_sub(changed) > YOUNG
    }
}

fn stamp(file: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(file).ok()?;
    let inode = (metadata.dev(), metadata.ino());
    Some(Stamp { inode, bytes: metadata.len(), changed: (metadata.ctime(), metadata.ctime_nsec()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Quicker than file systems count time.
    #[test]
    fn content_of_the_same_length_that_comes_in_the_same_moment_is_noticed() {
        let file = std::env::temp_dir().join(format!("postern-renewal-{}", std::process::id()));
        let mut seen = Seen::default();
        for number in 100..200 {
            fs::write(&file, number.to_string()).expect("room");
            assert!(seen.look(&file));
            assert!(!seen.look(&file));
        }

        fs::remove_file(&file).expect("it was written");
        assert!(seen.look(&file));
        assert!(!seen.look(&file));

        fs::write(&file, "200").expect("room");
        assert!(seen.look(&file));
        fs::remove_file(&file).expect("it was written");
    }
}
