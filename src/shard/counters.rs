//! What a shard counts: plain cells, summed over the shards when somebody asks.
//!
//! The series are fixed by the plan (listeners, upstreams) and by closed sets (status classes, problem kinds), never by what clients send, so their
//! number is bounded. [`Counters::walk`] visits every cell in one order; that order is all that shards must agree on to be summed.

use std::cell::Cell;
use std::fmt::Write;
use std::time::{Duration, SystemTime};

use crate::config::plan::Plan;
use crate::logic::http::h2::frames::Flood;
use crate::logic::http::problem::{self, ProblemKind};
use crate::mesh::CertificateReport;

/// What a family's values mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

/// One metric: a name that holds for all its series.
#[derive(Debug)]
pub struct Family {
    pub name: &'static str,
    pub kind: MetricKind,
    pub help: &'static str,
}

/// Cells with their families: `field: kind "name" [label] "help"`, where fields of one family stand together.
macro_rules! cells {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $kind:ident $metric:literal $label:literal $help:literal;)* }) => {
        $(#[$doc])*
        #[derive(Default)]
        pub struct $name {
            $(#[doc = $help] pub $field: Cell<u64>,)*
        }

        impl $name {
            const FAMILIES: &'static [(Family, &'static str)] =
                &[$((Family { name: $metric, kind: MetricKind::$kind, help: $help }, $label),)*];

            fn cells(&self) -> impl Iterator<Item = &Cell<u64>> {
                [$(&self.$field,)*].into_iter()
            }
        }
    };
}

cells! {
    /// Of one listener.
    ListenerCounters {
        connections: Counter "postern_connections_total" "" "Connections accepted, without those refused.";
        connections_refused: Counter "postern_connections_refused_total" "" "Connections closed at once because max_connections was reached.";
        connections_open: Gauge "postern_connections_open" "" "Connections open now.";
        proxy_headers_malformed: Counter "postern_proxy_headers_refused_total" "reason=\"malformed\"" "Connections closed because they did not begin with a PROXY header where one must come, by what was wrong with it.";
        proxy_headers_late: Counter "postern_proxy_headers_refused_total" "reason=\"late\"" "Connections closed because they did not begin with a PROXY header where one must come, by what was wrong with it.";
        requests: Counter "postern_requests_total" "" "Requests of which a first byte came, those that were refused included.";
        requests_open: Gauge "postern_requests_open" "" "Requests under way now, from the first byte on.";
        responses_1xx: Counter "postern_responses_total" "class=\"1xx\"" "Responses begun, by status class; of the first class only 101 is counted.";
        responses_2xx: Counter "postern_responses_total" "class=\"2xx\"" "Responses begun, by status class; of the first class only 101 is counted.";
        responses_3xx: Counter "postern_responses_total" "class=\"3xx\"" "Responses begun, by status class; of the first class only 101 is counted.";
        responses_4xx: Counter "postern_responses_total" "class=\"4xx\"" "Responses begun, by status class; of the first class only 101 is counted.";
        responses_5xx: Counter "postern_responses_total" "class=\"5xx\"" "Responses begun, by status class; of the first class only 101 is counted.";
        cut_by_client: Counter "postern_responses_incomplete_total" "by=\"client\"" "Requests that ended without a whole response, by who ended them.";
        cut_by_deadline: Counter "postern_responses_incomplete_total" "by=\"deadline\"" "Requests that ended without a whole response, by who ended them.";
        cut_by_upstream: Counter "postern_responses_incomplete_total" "by=\"upstream\"" "Requests that ended without a whole response, by who ended them.";
        tls_handshakes: Counter "postern_tls_handshakes_total" "" "TLS handshakes with clients that came to their end.";
        tls_handshake_failures: Counter "postern_tls_handshake_failures_total" "" "TLS handshakes with clients that did not: refused, broken off or too slow.";
        floods_resets: Counter "postern_http2_floods_total" "kind=\"resets\"" "HTTP/2 connections ended because their client sent too much of what costs and asks for nothing, by what that was; the codec finds some of it itself.";
        floods_settings: Counter "postern_http2_floods_total" "kind=\"settings\"" "HTTP/2 connections ended because their client sent too much of what costs and asks for nothing, by what that was; the codec finds some of it itself.";
        floods_pings: Counter "postern_http2_floods_total" "kind=\"pings\"" "HTTP/2 connections ended because their client sent too much of what costs and asks for nothing, by what that was; the codec finds some of it itself.";
        floods_priorities: Counter "postern_http2_floods_total" "kind=\"priorities\"" "HTTP/2 connections ended because their client sent too much of what costs and asks for nothing, by what that was; the codec finds some of it itself.";
        floods_empty_data: Counter "postern_http2_floods_total" "kind=\"empty_data\"" "HTTP/2 connections ended because their client sent too much of what costs and asks for nothing, by what that was; the codec finds some of it itself.";
        floods_window_updates: Counter "postern_http2_floods_total" "kind=\"window_updates\"" "HTTP/2 connections ended because their client sent too much of what costs and asks for nothing, by what that was; the codec finds some of it itself.";
        floods_unknown: Counter "postern_http2_floods_total" "kind=\"unknown\"" "HTTP/2 connections ended because their client sent too much of what costs and asks for nothing, by what that was; the codec finds some of it itself.";
        floods_codec: Counter "postern_http2_floods_total" "kind=\"codec\"" "HTTP/2 connections ended because their client sent too much of what costs and asks for nothing, by what that was; the codec finds some of it itself.";
        bytes_received: Counter "postern_received_bytes_total" "" "Bytes of requests: heads, and content that went on to an upstream.";
        bytes_sent: Counter "postern_sent_bytes_total" "" "Bytes of responses handed over for clients, heads included.";
    }
}

cells! {
    /// Of one upstream.
    UpstreamCounters {
        requests: Counter "postern_upstream_requests_total" "" "Requests sent to the upstream, repeated ones included.";
        responses_1xx: Counter "postern_upstream_responses_total" "class=\"1xx\"" "Responses of which the upstream sent the head, by status class; of the first class only 101 is counted.";
        responses_2xx: Counter "postern_upstream_responses_total" "class=\"2xx\"" "Responses of which the upstream sent the head, by status class; of the first class only 101 is counted.";
        responses_3xx: Counter "postern_upstream_responses_total" "class=\"3xx\"" "Responses of which the upstream sent the head, by status class; of the first class only 101 is counted.";
        responses_4xx: Counter "postern_upstream_responses_total" "class=\"4xx\"" "Responses of which the upstream sent the head, by status class; of the first class only 101 is counted.";
        responses_5xx: Counter "postern_upstream_responses_total" "class=\"5xx\"" "Responses of which the upstream sent the head, by status class; of the first class only 101 is counted.";
        failures: Counter "postern_upstream_failures_total" "" "Attempts that ended without a usable response through no fault of the client, those that were repeated included.";
        repeats: Counter "postern_upstream_repeats_total" "" "Requests sent again because a kept connection was found closed.";
        connects: Counter "postern_upstream_connects_total" "" "Connections opened.";
        connect_failures: Counter "postern_upstream_connect_failures_total" "" "Connections that could not be opened.";
        queue_overflows: Counter "postern_upstream_queue_overflows_total" "" "Requests refused because max_pending were waiting already.";
        queue_timeouts: Counter "postern_upstream_queue_timeouts_total" "" "Requests refused because no connection came free within pending_timeout.";
        connections_open: Gauge "postern_upstream_connections_open" "" "Connections open now, idle ones included.";
        connections_idle: Gauge "postern_upstream_connections_idle" "" "Connections kept for reuse now.";
        queued: Gauge "postern_upstream_queued" "" "Requests waiting for a connection now.";
    }
}

cells! {
    /// Of the shard itself.
    ShardCounters {
        panics: Counter "postern_task_panics_total" "" "Tasks that panicked; each cost one connection.";
        buffers_used: Gauge "postern_receive_buffers_used" "" "Receive buffers in use now.";
        parked_receives: Counter "postern_parked_receives_total" "" "Receives that had to wait because all receive buffers were in use.";
        dropped_news: Counter "postern_dropped_news_total" "" "News between shards dropped because the inbox was full.";
        dropped_log_lines: Counter "postern_access_log_dropped_total" "" "Access log lines dropped because the log's writer was behind.";
        accept_errors: Counter "postern_accept_errors_total" "" "Accepts that failed, for want of descriptors mostly.";
        shards: Gauge "postern_shards" "" "Shards that run.";
    }
}

/// Upper bounds of the duration histogram, in microseconds.
const BUCKETS_US: [u64; 14] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000, 30_000_000,
];

const DURATION: Family = Family {
    name: "postern_upstream_request_duration_seconds",
    kind: MetricKind::Histogram,
    help: "From a request's first byte to the end of its response, by upstream; whole responses only, and no tunnels.",
};

const PROBLEMS: Family = Family {
    name: "postern_problems_total",
    kind: MetricKind::Counter,
    help: "Responses that Postern gave in the place of an upstream's, by kind.",
};

/// Kinds that exist, but that no client can be told of: a series that cannot move only misleads.
const UNTOLD: [&str; 1] = ["truncated-content"];

/// Durations by bucket, not yet cumulated, and their sum.
#[derive(Default)]
pub struct Histogram {
    buckets: [Cell<u64>; BUCKETS_US.len() + 1],
    sum_us: Cell<u64>,
}

impl Histogram {
    pub fn record(&self, duration: Duration) {
        let us = duration.as_micros() as u64;
        let bucket = BUCKETS_US.partition_point(|bound| *bound < us);
        add(&self.buckets[bucket], 1);
        add(&self.sum_us, us);
    }
}

/// All that one shard counts.
pub struct Counters {
    pub listeners: Box<[ListenerCounters]>,
    pub upstreams: Box<[UpstreamCounters]>,
    pub durations: Box<[Histogram]>,
    pub problems: Box<[Cell<u64>]>,
    pub shard: ShardCounters,
}

pub fn add(cell: &Cell<u64>, count: u64) {
    cell.set(cell.get() + count);
}

pub fn subtract(cell: &Cell<u64>, count: u64) {
    cell.set(cell.get() - count);
}

impl ListenerCounters {
    /// Counts a client that sent too much.
    pub fn flood(&self, flood: Flood) {
        let cell = match flood {
            Flood::Resets => &self.floods_resets,
            Flood::Settings => &self.floods_settings,
            Flood::Pings => &self.floods_pings,
            Flood::Priorities => &self.floods_priorities,
            Flood::EmptyData => &self.floods_empty_data,
            Flood::WindowUpdates => &self.floods_window_updates,
            Flood::Unknown => &self.floods_unknown,
        };
        add(cell, 1);
    }
}

impl Counters {
    pub fn new(plan: &Plan) -> Self {
        Self {
            listeners: plan.listeners.iter().map(|_| Default::default()).collect(),
            upstreams: plan.upstreams.iter().map(|_| Default::default()).collect(),
            durations: plan.upstreams.iter().map(|_| Default::default()).collect(),
            problems: problem::SLUGS.iter().map(|_| Cell::new(0)).collect(),
            shard: ShardCounters { shards: Cell::new(1), ..Default::default() },
        }
    }

    pub fn problem(&self, kind: ProblemKind) {
        let place = problem::SLUGS.iter().position(|slug| *slug == kind.slug());
        add(&self.problems[place.expect("SLUGS lists every kind's")], 1);
    }

    /// Every value, in the order of [`walk`](Self::walk).
    pub fn values(&self) -> Box<[u64]> {
        let mut values = Vec::new();
        self.walk(|cell| values.push(cell.get()));
        values.into()
    }

    fn walk(&self, mut visit: impl FnMut(&Cell<u64>)) {
        self.listeners.iter().flat_map(ListenerCounters::cells).for_each(&mut visit);
        self.upstreams.iter().flat_map(UpstreamCounters::cells).for_each(&mut visit);
        for histogram in &self.durations {
            histogram.buckets.iter().for_each(&mut visit);
            visit(&histogram.sum_us);
        }
        self.problems.iter().for_each(&mut visit);
        self.shard.cells().for_each(&mut visit);
    }

    /// Replaces every value: for a set of counters that holds the sum of several shards.
    pub fn sum(plan: &Plan, shards: &[Box<[u64]>]) -> Self {
        let total = Self::new(plan);
        let mut index = 0;
        total.walk(|cell| {
            cell.set(shards.iter().map(|values| values[index]).sum());
            index += 1;
        });
        total
    }

    /// The Prometheus text exposition format, version 0.0.4.
    pub fn render(&self, plan: &Plan) -> String {
        let mut out = String::new();
        let listeners: Vec<String> = plan.listeners.iter().map(|it| label("listener", &it.name)).collect();
        let upstreams: Vec<String> = plan.upstreams.iter().map(|it| label("upstream", &it.name)).collect();
        let rows = self.listeners.iter().map(|it| it.cells().map(Cell::get).collect()).collect::<Vec<_>>();
        render_group(&mut out, ListenerCounters::FAMILIES, &listeners, &rows);
        let rows = self.upstreams.iter().map(|it| it.cells().map(Cell::get).collect()).collect::<Vec<_>>();
        render_group(&mut out, UpstreamCounters::FAMILIES, &upstreams, &rows);
        render_head(&mut out, &DURATION);
        for (labels, histogram) in upstreams.iter().zip(&self.durations) {
            render_histogram(&mut out, labels, histogram);
        }
        render_head(&mut out, &PROBLEMS);
        let told = problem::SLUGS.iter().zip(&self.problems).filter(|(slug, _)| !UNTOLD.contains(slug));
        for (slug, count) in told {
            render_sample(&mut out, PROBLEMS.name, &[&label("kind", slug)], count.get());
        }
        render_group(
            &mut out,
            ShardCounters::FAMILIES,
            &[String::new()],
            &[self.shard.cells().map(Cell::get).collect()],
        );
        out
    }
}

const CERTIFICATE_RELOADS: Family = Family {
    name: "postern_certificate_reloads_total",
    kind: MetricKind::Counter,
    help: "Certificates, bundles and revocation lists that were taken over because their files had changed.",
};

const CERTIFICATE_RELOAD_FAILURES: Family = Family {
    name: "postern_certificate_reload_failures_total",
    kind: MetricKind::Counter,
    help: "Files of certificates that had changed and were of no use: what was read before stayed in use.",
};

const CERTIFICATE_NOT_AFTER: Family = Family {
    name: "postern_certificate_not_after_seconds",
    kind: MetricKind::Gauge,
    help: "When the certificate in use ends, in seconds since 1970, by the file of its chain.",
};

/// Appends what there is to tell about the files of certificates: as many series as the plan names chains.
pub fn render_certificates(out: &mut String, report: &CertificateReport) {
    for (family, count) in [(CERTIFICATE_RELOADS, report.renewed), (CERTIFICATE_RELOAD_FAILURES, report.refused)] {
        render_head(out, &family);
        render_sample(out, family.name, &[], count);
    }
    render_head(out, &CERTIFICATE_NOT_AFTER);
    for (file, not_after) in &report.not_after {
        let seconds = not_after.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        render_sample(out, CERTIFICATE_NOT_AFTER.name, &[&label("file", &file.to_string_lossy())], seconds);
    }
}

/// `name="value"`, escaped as the format asks.
fn label(name: &str, value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("{name}=\"{value}\"")
}

/// Families that have one value for each of `subjects`; fields of one family are neighbours.
fn render_group(out: &mut String, families: &[(Family, &str)], subjects: &[String], rows: &[Vec<u64>]) {
    let mut index = 0;
    for family in families.chunk_by(|(a, _), (b, _)| a.name == b.name) {
        render_head(out, &family[0].0);
        for (subject, row) in subjects.iter().zip(rows) {
            for (offset, (_, extra)) in family.iter().enumerate() {
                render_sample(out, family[0].0.name, &[subject, extra], row[index + offset]);
            }
        }
        index += family.len();
    }
}

fn render_head(out: &mut String, family: &Family) {
    let kind = match family.kind {
        MetricKind::Counter => "counter",
        MetricKind::Gauge => "gauge",
        MetricKind::Histogram => "histogram",
    };
    let _ = writeln!(out, "# HELP {} {}\n# TYPE {} {kind}", family.name, family.help, family.name);
}

fn render_sample(out: &mut String, name: &str, labels: &[&str], value: impl std::fmt::Display) {
    let labels: Vec<&str> = labels.iter().copied().filter(|label| !label.is_empty()).collect();
    let _ = match labels.is_empty() {
        true => writeln!(out, "{name} {value}"),
        false => writeln!(out, "{name}{{{}}} {value}", labels.join(",")),
    };
}

fn render_histogram(out: &mut String, labels: &str, histogram: &Histogram) {
    let (bucket, sum, count) =
        (format!("{}_bucket", DURATION.name), format!("{}_sum", DURATION.name), format!("{}_count", DURATION.name));
    let mut below = 0;
    for (index, cell) in histogram.buckets.iter().enumerate() {
        below += cell.get();
        let bound = match BUCKETS_US.get(index) {
            Some(us) => format!("le=\"{}\"", *us as f64 / 1e6),
            None => "le=\"+Inf\"".to_owned(),
        };
        render_sample(out, &bucket, &[labels, &bound], below);
    }
    render_sample(out, &sum, &[labels], histogram.sum_us.get() as f64 / 1e6);
    render_sample(out, &count, &[labels], below);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_escaped_where_the_format_says_so() {
        assert_eq!(label("listener", "a\\b\"c\nd"), r#"listener="a\\b\"c\nd""#);
    }

    #[test]
    fn what_nobody_can_be_told_of_is_a_kind_all_the_same() {
        for slug in UNTOLD {
            assert!(problem::SLUGS.contains(&slug), "{slug} is gone: it need not be left out");
        }
    }
}
