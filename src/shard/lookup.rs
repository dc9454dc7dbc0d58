//! Names of endpoints, looked up by the system's resolver on threads of their own, because it blocks.
//!
//! Each name has one thread: a resolver that takes its time over one name delays no other. A look-up that fails changes nothing; the last good answer stays.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use crate::config::plan::{EndpointTarget, Plan};
use crate::ids::UpstreamId;
use crate::mesh::{Mesh, News};

/// Stack of a look-up thread; the system's resolver needs some tens of kilobytes.
const STACK_BYTES: usize = 256 * 1024;
/// How soon a look-up that failed is tried again, when that is sooner than its refresh.
const RETRY_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Where one name is used.
struct Subject {
    host: String,
    port: u16,
    refresh: Duration,
    uses: Vec<(UpstreamId, u16)>,
}

/// Begins to look up every name of the plan, and waits until each was looked up once, at most for `patience`.
///
/// # Errors
/// No thread could be started.
pub fn start(plan: &Arc<Plan>, mesh: &Mesh, patience: Duration) -> std::io::Result<()> {
    let (looked_up, first_looks) = mpsc::channel();
    let subjects = subjects(plan);
    let count = subjects.len();
    for subject in subjects {
        let (mesh, looked_up) = (mesh.clone(), looked_up.clone());
        std::thread::Builder::new()
            .name(format!("lookup {}", subject.host).chars().take(15).collect())
            .stack_size(STACK_BYTES)
            .spawn(move || look_up_forever(&subject, &mesh, looked_up))?;
    }
    let end = super::clock::now() + patience;
    for _ in 0..count {
        let left = end.saturating_duration_since(super::clock::now());
        if first_looks.recv_timeout(left).is_err() {
            tracing::warn!("starting although not every endpoint's name has been looked up");
            break;
        }
    }
    Ok(())
}

fn subjects(plan: &Plan) -> Vec<Subject> {
    let mut by_name: BTreeMap<(&str, u16), Subject> = BTreeMap::new();
    for (upstream, plan) in (0..).map(UpstreamId).zip(&plan.upstreams) {
        for (endpoint, target) in (0..).zip(&plan.endpoints) {
            let EndpointTarget::Name { host, port } = &target.target else { continue };
            let subject = by_name.entry((host, *port)).or_insert_with(|| Subject {
                host: host.clone(),
                port: *port,
                refresh: plan.dns_refresh,
                uses: Vec::new(),
            });
            subject.refresh = subject.refresh.min(plan.dns_refresh);
            subject.uses.push((upstream, endpoint));
        }
    }
    by_name.into_values().collect()
}

fn look_up_forever(subject: &Subject, mesh: &Mesh, looked_up: mpsc::Sender<()>) {
    let (mut failing, mut looked_up) = (false, Some(looked_up));
    loop {
        let pause = match (subject.host.as_str(), subject.port).to_socket_addrs() {
            Ok(found) => {
                let mut addresses: Vec<SocketAddr> = found.collect();
                addresses.sort_unstable();
                addresses.dedup();
                tell(subject, mesh, &addresses);
                if std::mem::replace(&mut failing, false) {
                    tracing::info!(host = subject.host, ?addresses, "look-up works again");
                }
                subject.refresh
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(host = subject.host, %error, "look-up failed: the last good answer stays in use");
                }
                subject.refresh.min(RETRY_AFTER_FAILURE)
            }
        };
        // Said once: a name that is looked up again meanwhile must not stand for one that has not been. Nobody may listen any more.
        if let Some(looked_up) = looked_up.take() {
            let _ = looked_up.send(());
        }
        std::thread::park_timeout(pause);
    }
}

fn tell(subject: &Subject, mesh: &Mesh, addresses: &[SocketAddr]) {
    for (upstream, endpoint) in &subject.uses {
        for shard in mesh.shards() {
            let news = News::Resolved { upstream: *upstream, endpoint: *endpoint, addresses: addresses.into() };
            mesh.tell(shard, news);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_looked_up_again_and_again_is_told_once() {
        let subject =
            Subject { host: "127.0.0.1".into(), port: 1, refresh: Duration::from_millis(1), uses: Vec::new() };
        let (looked_up, first_looks) = mpsc::channel();
        std::thread::spawn(move || look_up_forever(&subject, &Mesh::new(1), looked_up));

        let watchdog = Duration::from_secs(60);
        assert_eq!(first_looks.recv_timeout(watchdog), Ok(()));
        assert_eq!(first_looks.recv_timeout(watchdog), Err(mpsc::RecvTimeoutError::Disconnected));
    }
}
