//! Carries out what an exchange decides: one `match`, step by step.

use super::attempt::Attempt;
use super::client::{Client, ClientEnd};
use super::counters::add;
use super::dial::Dialer;
use super::prepare::{self, Forward};
use super::record::{Cut, Record};
use super::serve_h1::After;
use crate::deadline::Deadline;
use crate::logic::exchange::{Event, Exchange, Step};
use crate::logic::http::BodyReader;
use crate::logic::http::problem::ProblemKind;

/// Brings one request to its upstream and the response back. The head of the request is consumed already.
pub async fn run(client: &mut Client<'_>, mut forward: Box<Forward>, record: &mut Record) -> After {
    let shard = client.shard.clone();
    let counters = &shard.counters.upstreams[forward.upstream.index()];
    record.upstream = Some(forward.upstream);
    // So that a client that leaves while its request waits is noticed.
    client.end.arm();
    let (mut exchange, mut step) = Exchange::new(forward.facts);
    let (mut lease, mut avoid, mut after) = (None, None, After::Close);
    loop {
        step = match step {
            Step::Open { fresh } => {
                let mut dialer = Dialer {
                    shard: &shard,
                    upstream: forward.upstream,
                    client: &mut client.end,
                    timer: client.timer,
                    deadline: forward.deadline,
                };
                match dialer.lease(fresh, avoid).await {
                    Ok(leased) => {
                        let reused = leased.reused;
                        avoid = Some(leased.target);
                        lease = Some(leased);
                        exchange.handle(Event::Connected { reused })
                    }
                    Err(fault) => exchange.handle(Event::NotConnected(fault)),
                }
            }
            Step::Attempt => {
                let lease = lease.take().expect("an attempt follows a connection");
                record.attempts += 1;
                record.endpoint = Some(shard.with(|state, _| state.upstream(forward.upstream).endpoint(lease.target)));
                add(&counters.requests, 1);
                let attempt = Attempt { client, forward: &mut forward, record, exchange: &mut exchange };
                let (next, then) = attempt.run(lease).await;
                after = then;
                next
            }
            Step::Reply(problem) => return Box::pin(reply(client, forward, problem, record)).await,
            Step::Finish => {
                // A tunnel lasts as long as its ends like.
                if record.status != Some(101) {
                    shard.counters.durations[forward.upstream.index()].record(shard.now() - record.started);
                }
                shard.forwards.give_back(forward);
                return after;
            }
            Step::Abort => {
                record.cut.get_or_insert(Cut::ClientGone);
                return After::Close;
            }
        };
        if exchange.repeated() && matches!(step, Step::Open { .. }) {
            add(&counters.repeats, 1);
        }
    }
}

/// Answers in the upstream's stead. The client's connection stays if the request was read whole.
async fn reply(client: &mut Client<'_>, mut forward: Box<Forward>, kind: ProblemKind, record: &mut Record) -> After {
    let shard = client.shard.clone();
    let read_whole = match kind {
        // The content itself is what is wrong.
        ProblemKind::Body(_) | ProblemKind::ContentTooLarge | ProblemKind::RequestTimeout => false,
        // Nothing was read of it, and perhaps all of it is here.
        _ if record.attempts == 0 => read_rest(&mut client.end, &mut forward.reader),
        _ => forward.reader.is_complete(),
    };
    let keep = forward.keep && read_whole && !client.is_last();
    let bytes = prepare::encode_problem(&shard, record, &kind.into(), (forward.head_only, forward.version, keep));
    let deadline = Deadline::after(shard.now(), client.plan().timeouts.write);
    shard.give_back(std::mem::take(&mut forward.message).head);
    shard.forwards.give_back(forward);
    match (client.send(bytes, deadline, record).await, keep) {
        (true, true) => After::Keep,
        (true, false) => After::Linger,
        (false, _) => After::Close,
    }
}

/// Takes what is here of a request's content. Returns whether that is all; on a stream nothing hinges on it.
fn read_rest(client: &mut ClientEnd<'_>, reader: &mut BodyReader) -> bool {
    let ClientEnd::H1 { connection, .. } = client else { return true };
    let inbound = &mut connection.inbound;
    match reader.decode(inbound.bytes()) {
        Ok(decoded) => {
            inbound.consume(decoded.consumed);
            decoded.complete
        }
        Err(_) => false,
    }
}
