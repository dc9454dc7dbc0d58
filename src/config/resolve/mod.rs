//! Gives what is written its meaning: references followed, defaults filled in, every value checked, every name an
//! index.
//!
//! A value that is wrong is complained about and replaced by its default, and the work goes on; no plan comes out of it
//! then, but the rest of the file is checked all the same. The value that a complaint shows is looked up in the
//! document as written, so that nothing which came from a reference can be shown.

mod listener;
mod route;
mod syntax;
mod tls;
mod upstream;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::complaint::{Complaint, Complaints, Place, shown, suggestion};
use super::limits::{self, Bound};
use super::plan::{AccessLogPlan, AccessLogTarget, LogFormat, LogLevel, LogPlan, Plan};
use super::raw;
use super::reference::{self, Environment, Expanded};
use super::units;

/// What a file is read against, and what was found wrong so far.
pub(super) struct Context<'a> {
    /// As written.
    pub document: &'a Value,
    pub directory: &'a Path,
    pub environment: Environment<'a>,
    pub complaints: Vec<Complaint>,
}

/// Turns a file of the right shape into a plan.
pub(super) fn resolve(config: &raw::Config, mut cx: Context<'_>) -> Result<Plan, Complaints> {
    let root = Place::ROOT;
    let cpus = cpus(&mut cx, config.shards.as_ref());
    let drain_timeout = cx.time(&root.key("drain_timeout"), config.drain_timeout.as_deref(), limits::DRAIN_TIMEOUT);
    let busy_poll = cx.time(&root.key("busy_poll"), config.busy_poll.as_deref(), limits::BUSY_POLL);
    let log = log(&mut cx, &config.log);
    let access_log = config.access_log.as_ref().map(|raw| access_log(&mut cx, raw));
    let (names, listeners) = listener::resolve(&mut cx, &config.listeners);
    let upstreams = upstream::resolve(&mut cx, &config.upstreams);
    upstream::check_shares(&mut cx, &upstreams, cpus.len());
    let routes = route::resolve(&mut cx, &config.routes, &names);

    match Complaints::new(cx.complaints) {
        Some(complaints) => Err(complaints),
        None => Ok(Plan { cpus, drain_timeout, busy_poll, log, access_log, listeners, upstreams, routes }),
    }
}

// === The process ===

fn cpus(cx: &mut Context<'_>, shards: Option<&raw::Shards>) -> Vec<usize> {
    match allowed_cpus() {
        Some(allowed) => choose_cpus(cx, shards, &allowed),
        None => {
            cx.complain(
                &Place::ROOT.key("shards"),
                "/proc/self/status does not say on which CPUs this process may run",
                "mount /proc",
            );
            Vec::new()
        }
    }
}

/// The CPUs to run on, out of those that the process may run on.
fn choose_cpus(cx: &mut Context<'_>, shards: Option<&raw::Shards>, allowed: &[usize]) -> Vec<usize> {
    let place = Place::ROOT.key("shards");
    match shards {
        None => allowed.iter().copied().take(limits::SHARDS).collect(),
        Some(raw::Shards::Count(count)) => {
            let most = allowed.len().min(limits::SHARDS);
            match usize::try_from(*count) {
                Ok(count) if (1..=most).contains(&count) => allowed[..count].to_vec(),
                Ok(0) => {
                    cx.complain(&place, "nothing can run on no CPU", "write 1 or more, or leave it out for every CPU");
                    Vec::new()
                }
                Ok(_) | Err(_) => {
                    let remedy = format!("write {most} or less, or leave it out for every CPU");
                    cx.complain(&place, format!("this process may run on {} CPUs", allowed.len()), remedy);
                    Vec::new()
                }
            }
        }
        Some(raw::Shards::Cpus(list)) => {
            let mut cpus = Vec::new();
            if list.is_empty() {
                cx.complain(&place, "the list is empty", "name a CPU, or leave it out for every CPU");
            }
            if list.len() > limits::SHARDS {
                cx.complain(&place, "the list is too long", format!("name {} CPUs at most", limits::SHARDS));
                return cpus;
            }
            for (index, cpu) in list.iter().enumerate() {
                let Some(cpu) = cpu else { continue };
                match usize::try_from(*cpu) {
                    Ok(cpu) if cpus.contains(&cpu) => {
                        cx.complain(&place.index(index), "the CPU is in the list twice", "name each CPU once");
                    }
                    Ok(cpu) if allowed.contains(&cpu) => cpus.push(cpu),
                    Ok(_) | Err(_) => {
                        let remedy = format!("name CPUs of {}", write_cpu_list(allowed));
                        cx.complain(&place.index(index), "this process may not run on that CPU", remedy);
                    }
                }
            }
            cpus
        }
    }
}

/// The CPUs that the kernel lets this process run on, which containers and `taskset` narrow down.
fn allowed_cpus() -> Option<Vec<usize>> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    read_cpu_list(list.trim())
}

/// Reads `0-3,8`.
fn read_cpu_list(list: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        cpus.extend(first.parse::<usize>().ok()?..=last.parse::<usize>().ok()?);
    }
    Some(cpus)
}

fn write_cpu_list(cpus: &[usize]) -> String {
    cpus.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn log(cx: &mut Context<'_>, raw: &raw::Log) -> LogPlan {
    let place = Place::ROOT.key("log");
    LogPlan {
        level: cx.choice(&place.key("level"), raw.level.as_deref(), &raw::LOG_LEVELS, LogLevel::Info),
        format: cx.choice(&place.key("format"), raw.format.as_deref(), &raw::LOG_FORMATS, LogFormat::Text),
    }
}

fn access_log(cx: &mut Context<'_>, raw: &raw::AccessLog) -> AccessLogPlan {
    let place = Place::ROOT.key("access_log");
    let format = cx.choice(&place.key("format"), raw.format.as_deref(), &raw::LOG_FORMATS, LogFormat::Json);
    let path = raw.path.as_deref().and_then(|path| cx.expand(&place.key("path"), path));
    let target = match path.as_ref().map(|path| path.text.as_str()) {
        None | Some("stdout") => AccessLogTarget::Stdout,
        Some(path) => {
            if path.is_empty() || path.contains('\0') {
                cx.complain(&place.key("path"), "it is no path", "write \"stdout\" or the path of a file");
            }
            AccessLogTarget::File(cx.directory.join(path))
        }
    };
    AccessLogPlan { format, target }
}

// === What every section needs ===

impl Context<'_> {
    /// Notes what is wrong at a place. Of a place of which something has been said already, that is enough.
    fn complain(&mut self, place: &Place<'_>, problem: impl Into<String>, remedy: impl Into<String>) {
        let value = place.find(self.document).map(shown).unwrap_or_default();
        self.note(place, value, problem.into(), remedy.into());
    }

    /// The same without showing the value, which may be a secret that stands in the file itself.
    fn complain_unseen(&mut self, place: &Place<'_>, problem: impl Into<String>, remedy: impl Into<String>) {
        self.note(place, String::new(), problem.into(), remedy.into());
    }

    fn note(&mut self, place: &Place<'_>, value: String, problem: String, remedy: String) {
        let path = place.to_string();
        if self.complaints.iter().all(|complaint| complaint.path != path) {
            self.complaints.push(Complaint { path, value, problem, remedy });
        }
    }

    /// Follows the references of a string.
    fn expand(&mut self, place: &Place<'_>, written: &str) -> Option<Expanded> {
        match reference::expand(written, self.directory, self.environment) {
            Ok(expanded) => Some(expanded),
            Err(error) => {
                self.complain_unseen(place, error.to_string(), error.remedy());
                None
            }
        }
    }

    fn time(&mut self, place: &Place<'_>, written: Option<&str>, bound: Bound<Duration>) -> Duration {
        let Some(expanded) = written.and_then(|written| self.expand(place, written)) else { return bound.default };
        let range = || format!("from {} to {}", units::write_time(bound.min), units::write_time(bound.max));
        match units::read_time(&expanded.text) {
            Some(time) if (bound.min..=bound.max).contains(&time) => time,
            Some(_) => {
                self.complain(place, "it is out of bounds", format!("write a duration {}", range()));
                bound.default
            }
            None => {
                let remedy = format!("write a whole number with us, ms, s, m, h or d, {}", range());
                self.complain(place, "it is not a duration", remedy);
                bound.default
            }
        }
    }

    fn size(&mut self, place: &Place<'_>, written: Option<&raw::Size>, bound: Bound<u64>) -> u64 {
        let range = || format!("from {} to {}", units::write_size(bound.min), units::write_size(bound.max));
        let size = match written {
            None => return bound.default,
            Some(raw::Size::Bytes(bytes)) => Some(*bytes),
            Some(raw::Size::Written(written)) => {
                let Some(expanded) = self.expand(place, written) else { return bound.default };
                units::read_size(&expanded.text)
            }
        };
        match size {
            Some(size) if (bound.min..=bound.max).contains(&size) => size,
            Some(_) => {
                self.complain(place, "it is out of bounds", format!("write a size {}", range()));
                bound.default
            }
            None => {
                let remedy = format!("write bytes, or a whole number with B, KiB, MiB, GiB or TiB, {}", range());
                self.complain(place, "it is not a size", remedy);
                bound.default
            }
        }
    }

    fn count(&mut self, place: &Place<'_>, written: Option<u64>, bound: Bound<u64>) -> u64 {
        let count = written.unwrap_or(bound.default);
        if (bound.min..=bound.max).contains(&count) {
            return count;
        }
        self.complain(place, "it is out of bounds", format!("write a number from {} to {}", bound.min, bound.max));
        bound.default
    }

    fn choice<T: Copy>(
        &mut self,
        place: &Place<'_>,
        written: Option<&str>,
        words: &[(&'static str, T)],
        default: T,
    ) -> T {
        let Some(expanded) = written.and_then(|written| self.expand(place, written)) else { return default };
        match words.iter().find(|(word, _)| *word == expanded.text.as_str()) {
            Some((_, value)) => *value,
            None => {
                let remedy = suggestion(&expanded.text, words.iter().map(|(word, _)| *word));
                self.complain(place, "there is no such choice", remedy);
                default
            }
        }
    }

    /// A name that becomes part of metrics and logs.
    fn check_name(&mut self, place: &Place<'_>, name: &str) {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/[]".contains(&byte);
        if name.is_empty() || name.len() > limits::NAME || !name.bytes().all(known) {
            let remedy = format!("use 1 to {} letters, digits and \"-_.:/[]\"", limits::NAME);
            self.complain(place, "it is no name", remedy);
        }
    }
}

/// A checked amount in the type that the plan keeps it in.
fn narrow<T: TryFrom<u64, Error: Debug>>(amount: u64) -> T {
    T::try_from(amount).expect("the largest amount of every bound is within the type of its field")
}

/// Finds two that are the same: tells the first one's position when the second comes.
struct Seen<K>(BTreeMap<K, usize>);

impl<K: Ord> Seen<K> {
    fn new() -> Self {
        Self(BTreeMap::new())
    }

    fn earlier(&mut self, key: K, index: usize) -> Option<usize> {
        let first = *self.0.entry(key).or_insert(index);
        (first != index).then_some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(shards: Option<raw::Shards>, allowed: &[usize]) -> Result<Vec<usize>, Vec<Complaint>> {
        let directory = Path::new("");
        let mut cx = Context { document: &Value::Null, directory, environment: &|_| None, complaints: Vec::new() };
        let cpus = choose_cpus(&mut cx, shards.as_ref(), allowed);
        if cx.complaints.is_empty() { Ok(cpus) } else { Err(cx.complaints) }
    }

    #[test]
    fn shards_are_chosen_out_of_the_allowed_cpus() {
        let list = |cpus: &[u64]| Some(raw::Shards::Cpus(cpus.iter().copied().map(Some).collect()));
        let allowed = [2, 3, 8];

        assert_eq!(choose(None, &allowed), Ok(vec![2, 3, 8]));
        assert_eq!(choose(Some(raw::Shards::Count(2)), &allowed), Ok(vec![2, 3]));
        assert_eq!(choose(list(&[8, 2]), &allowed), Ok(vec![8, 2]));
        for refused in [Some(raw::Shards::Count(0)), Some(raw::Shards::Count(4)), list(&[]), list(&[1]), list(&[2, 2])]
        {
            assert!(choose(refused, &allowed).is_err());
        }
    }

    #[test]
    fn the_kernels_list_of_cpus_is_read() {
        assert_eq!(read_cpu_list("0-3,8,10-11"), Some(vec![0, 1, 2, 3, 8, 10, 11]));
        assert_eq!(read_cpu_list("0"), Some(vec![0]));
        assert_eq!(read_cpu_list("x"), None);
        assert!(allowed_cpus().is_some_and(|cpus| !cpus.is_empty()));
    }
}
