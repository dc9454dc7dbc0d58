//! Lookups in tables of 1, 100 and 5,000 routes: a path that has a route, and one that has none.

use std::hint::black_box;
use std::path::Path;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use postern::config;
use postern::ids::ListenerId;
use postern::logic::route::{Captures, RouteTable};
use serde_json::json;

/// Routes of the shape that services have: some hosts, a prefix each, captures below.
fn table(routes: usize) -> RouteTable {
    let routes = (0..routes).map(|index| {
        let host = format!("host{}.example.com", index % 50);
        let path = format!("/v1/service{}/items/{{id}}/{{*rest}}", index / 50);
        json!({ "match": { "host": host, "path": path, "methods": ["GET", "POST"] }, "respond": {} })
    });
    let routes = routes.collect::<Vec<_>>();
    let text = json!({ "listeners": [{ "address": "127.0.0.1:1" }], "routes": routes }).to_string();
    let plan = config::parse(&text, Path::new(""), &|_| None).unwrap_or_else(|complaints| panic!("{complaints}"));
    RouteTable::new(&plan)
}

fn lookups(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route");
    for routes in [1, 100, 5000] {
        let table = table(routes);
        let mut captures = Captures::default();
        let host = format!("Host{}.Example.com:8080", (routes - 1) % 50);
        let found = format!("/v1/service{}/items/4711/a/b/c", (routes - 1) / 50);
        let lost = format!("/v1/service{}/other/4711/a/b/c", (routes - 1) / 50);
        for (name, path) in [("found", found), ("lost", lost)] {
            group.bench_function(BenchmarkId::new(name, routes), |bencher| {
                bencher.iter(|| {
                    let (host, path) = (black_box(host.as_str()), black_box(path.as_str()));
                    black_box(table.find(ListenerId(0), host, path, "POST", &mut captures));
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, lookups);
criterion_main!(benches);
