//! From the bytes of a response's head to the head that the client gets, in one synchronous step.

use std::rc::Rc;

use super::Phase;
use super::Shard;
use super::connection::Inbound;
use super::prepare::Forward;
use super::relay::Frame;
use super::upgrade::Protocol;
use crate::config::plan::UpstreamPlan;
use crate::ids::RouteId;
use crate::logic::http::encode::{self, Persistence, RequestIdField, ResponseEncoding};
use crate::logic::http::response::{self, ResponseFault};
use crate::logic::http::{
    BodyFraming, BodyReader, HeadLimits, Parsed, ResponseHead, Version, parse_response, request_id,
};

/// What must be known of the request to answer it.
pub struct ResponseContext {
    pub route: RouteId,
    pub head_only: bool,
    pub version: Version,
    /// The protocols that were asked for.
    pub upgrade: Option<Rc<[u8]>>,
    /// The client's connection may stay.
    pub keep: bool,
    pub write_patience: std::time::Duration,
}

/// A final response whose head was read, and written anew for the client.
pub struct Response {
    pub status: u16,
    pub head: Vec<u8>,
    pub reader: BodyReader,
    pub frame: Frame,
    /// What follows is this protocol.
    pub switches_to: Option<Protocol>,
    pub upstream_persists: bool,
    /// The head says that the client's connection stays.
    pub client_persists: bool,
    /// Only the end of the client's connection ends the response.
    pub ends_with_connection: bool,
}

pub enum Answered {
    Interim { status: u16, head: Vec<u8> },
    Final(Response),
}

impl ResponseContext {
    pub fn new(write_patience: std::time::Duration, forward: &Forward) -> Self {
        Self {
            route: forward.route,
            head_only: forward.head_only,
            version: forward.version,
            upgrade: forward.upgrade.clone(),
            keep: forward.keep,
            write_patience,
        }
    }
}

pub fn limits(plan: &UpstreamPlan) -> HeadLimits {
    HeadLimits { bytes: plan.limits.max_head, fields: plan.limits.max_fields, target: 0 }
}

/// Parses the head at the front of `inbound`, and consumes it. `None` when it is not all here.
///
/// # Errors
/// It is no response that may be passed on.
pub fn read(
    shard: &Shard,
    context: &ResponseContext,
    (version, uploaded): (Option<Version>, bool),
    inbound: &mut Inbound,
    limits: &HeadLimits,
    id: &[u8],
) -> Result<Option<Answered>, ResponseFault> {
    let facts = response::ResponseContext { head_request: context.head_only, upgrade: context.upgrade.as_deref() };
    let mut slots = shard.slots.borrow_mut();
    let Parsed::Complete(head) = parse_response(inbound.bytes(), &mut slots, limits, facts)? else { return Ok(None) };
    let head = ResponseHead { version: version.unwrap_or(head.version), ..head };
    let mut out = shard.spare();
    let (status, len) = (head.status, head.len);
    let request_id = Some(RequestIdField { name: request_id::FIELD, value: id });
    let edits = &shard.plan.routes[context.route.index()].response_fields;
    if head.is_interim() {
        encode::interim(&mut out, &head, request_id, edits);
        inbound.consume(len);
        return Ok(Some(Answered::Interim { status, head: out }));
    }
    let framing = head.framing.onward(context.version);
    let ends_with_connection = framing == BodyFraming::UntilClose;
    // A response that comes before its request has gone out whole is the last on its connection.
    let client_persists = context.keep && uploaded && !ends_with_connection && shard.phase() == Phase::Serving;
    let date = shard.date.borrow();
    let encoding = ResponseEncoding {
        framing,
        persistence: Persistence::of(context.version, client_persists),
        request_id,
        edits,
        date: date.as_str(),
    };
    encode::response(&mut out, &head, &encoding);
    let response = Response {
        status,
        head: out,
        reader: BodyReader::new(head.framing),
        frame: Frame::of(framing, encode::passes_trailers(&head.fields, edits)),
        switches_to: head.upgrade.map(Protocol::named),
        upstream_persists: head.persistent && head.framing != BodyFraming::UntilClose,
        client_persists,
        ends_with_connection,
    };
    inbound.consume(len);
    Ok(Some(Answered::Final(response)))
}
