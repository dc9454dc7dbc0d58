//! From the bytes of a request's head to what is done about it, in one synchronous step: nothing of the head is borrowed afterwards.

use std::rc::Rc;
use std::time::Duration;

use super::Shard;
use super::admin::Answer;
use super::connection::Connection;
use super::outset::Message;
use super::record::{Id, Record};
use super::relay::Frame;
use super::serve_h1::{DISCARD_BYTES, Session};
use crate::config::plan::{ListenerPlan, ProxyPlan, RouteAction, RoutePlan, UpstreamHost};
use crate::deadline::Deadline;
use crate::ids::{ListenerId, RouteId, UpstreamId};
use crate::logic::exchange::RequestFacts;
use crate::logic::http::encode::{self, Persistence, RequestEncoding, RequestIdField};
use crate::logic::http::forwarded::{ClientText, Forwarding};
use crate::logic::http::grpc;
use crate::logic::http::h2::{RequestParts, write_request};
use crate::logic::http::problem::{self, Problem, ProblemKind};
use crate::logic::http::reply::{self, Reply, ReplyContext};
use crate::logic::http::{BodyFraming, BodyReader, HeadLimits, Method, Parsed, RequestFault, RequestHead, Version};
use crate::logic::http::{parse_request, request_id, target};
use crate::logic::route::{self, Captures, Found};

/// What is done about a request.
pub enum Prepared {
    /// The head cannot be believed, or was too slow: an answer, and the connection's end. Its method cannot be believed either, so the
    /// answer has content.
    Refuse(ProblemKind),
    /// An answer of our own; then the rest of the request is to be read.
    Reply {
        bytes: Vec<u8>,
        reader: BodyReader,
        keep: bool,
    },
    Admin(AdminRequest),
    Forward(Box<Forward>),
}

/// A request to the admin listener.
pub struct AdminRequest {
    pub path: String,
    pub version: Version,
    pub head_only: bool,
    pub keep: bool,
    pub reader: BodyReader,
}

/// A request on its way to an upstream.
pub struct Forward {
    pub upstream: UpstreamId,
    pub route: RouteId,
    pub facts: RequestFacts,
    pub message: Message,
    pub reader: BodyReader,
    pub frame: Frame,
    /// Bytes of content that are taken.
    pub max_body: u64,
    /// The `Host` that goes out is the endpoint's.
    pub host_of_endpoint: bool,
    pub head_only: bool,
    pub version: Version,
    /// The client wants to keep the connection.
    pub keep: bool,
    pub expects_continue: bool,
    /// The protocols that are asked for. A copy, but only of requests that may end in a tunnel.
    pub upgrade: Option<Rc<[u8]>>,
    pub deadline: Deadline,
}

pub fn head_limits(listener: &ListenerPlan) -> HeadLimits {
    let limits = &listener.limits;
    HeadLimits { bytes: limits.max_head, fields: limits.max_fields, target: limits.max_target }
}

/// Parses and decides. `None` when the head is not all here. What belongs to the head is consumed.
pub fn prepare(session: &mut Session, record: &mut Record) -> Option<Prepared> {
    let shard = session.shard().clone();
    let context = Context {
        shard: &shard,
        listener_id: session.listener_id(),
        client: session.client,
        trusted: session.trusted,
        encrypted: session.connection.transport.is_encrypted(),
        client_cert: session.client_cert.as_deref(),
        is_last: session.is_last(),
    };
    let Connection { inbound, .. } = &mut session.connection;
    let mut slots = shard.slots.borrow_mut();
    let (prepared, consumed) = match parse_request(inbound.bytes(), &mut slots, &head_limits(context.listener())) {
        Ok(Parsed::Partial) => return None,
        Ok(Parsed::Complete(head)) => (context.decide(&head, record), head.len),
        Err(fault) => (Prepared::Refuse(ProblemKind::Request(fault)), 0),
    };
    record.received = consumed as u64;
    inbound.consume(consumed);
    Some(prepared)
}

/// Decides about a request in HTTP/2. `None` when it is malformed in a way that ends its stream without an answer. `is_covered` tells whether the
/// connection may be used for a host.
pub fn prepare_stream(
    context: &Context<'_>,
    request: &RequestParts<'_>,
    record: &mut Record,
    is_covered: impl FnOnce(&str) -> bool,
) -> Prepared {
    let shard = context.shard;
    let limits = head_limits(context.listener());
    let mut bytes = shard.spare();
    let mut slots = shard.slots.borrow_mut();
    let prepared = match write_request(&mut bytes, request, limits.fields) {
        Err(fault) => Prepared::Refuse(ProblemKind::Request(fault)),
        Ok(()) => match parse_request(&bytes, &mut slots, &limits) {
            Err(fault) => Prepared::Refuse(ProblemKind::Request(fault)),
            Ok(Parsed::Partial) => Prepared::Refuse(ProblemKind::Request(RequestFault::HeadTooLong)),
            Ok(Parsed::Complete(head)) => {
                record.received = head.len as u64;
                let head = RequestHead { version: Version::Http2, ..head };
                if is_covered(head.host) {
                    context.decide(&head, record)
                } else {
                    record.open(shard, &context.listener().name, &context.client, &head);
                    context.refuse(&head, record, ProblemKind::Request(RequestFault::Misdirected))
                }
            }
        },
    };
    if let Prepared::Refuse(_) = &prepared {
        record.refuse(shard, &context.listener().name, &context.client, bytes.len());
    }
    drop(slots);
    shard.give_back(bytes);
    prepared
}

/// What is known of the connection that a request came on.
pub struct Context<'a> {
    pub shard: &'a Shard,
    pub listener_id: ListenerId,
    pub client: ClientText,
    /// Whether the peer's word is taken for who the client is.
    pub trusted: bool,
    /// The request came through TLS.
    pub encrypted: bool,
    /// What upstreams hear of the client's certificate.
    pub client_cert: Option<&'a str>,
    /// No further request is taken on this connection.
    pub is_last: bool,
}

impl<'a> Context<'a> {
    fn listener(&self) -> &'a ListenerPlan {
        &self.shard.plan.listeners[self.listener_id.index()]
    }

    fn decide(&self, head: &RequestHead<'_>, record: &mut Record) -> Prepared {
        if self.trusted
            && let Some(given) = head.fields.first(request_id::FIELD).and_then(request_id::acceptable)
        {
            let mut id = self.shard.spare();
            id.extend_from_slice(given.as_bytes());
            record.id = Id::Given(id);
        }
        record.open(self.shard, &self.listener().name, &self.client, head);
        record.grpc = head.version == Version::Http2 && grpc::is_grpc(&head.fields);
        if self.listener().admin {
            if !matches!(head.method, Method::Get | Method::Head) {
                return self.problem(head, record, ProblemKind::MethodNotAllowed, Some("GET, HEAD"));
            }
            return Prepared::Admin(AdminRequest {
                path: head.path.to_owned(),
                version: head.version,
                head_only: head.method.is_head(),
                keep: self.keeps(head),
                reader: BodyReader::new(head.framing),
            });
        }
        if head.path == "*" {
            return self.reply_to_asterisk(head, record);
        }
        let mut scratch = self.shard.path_scratch.borrow_mut();
        let path = match target::normalize(head.path, &mut scratch) {
            Ok(path) => path,
            Err(fault) => return self.refuse(head, record, ProblemKind::Target(fault)),
        };
        let mut captures = Captures::default();
        match self.shard.routes.find(self.listener_id, head.host, path, head.method.as_str(), &mut captures) {
            Found::NotFound => self.problem(head, record, ProblemKind::RouteNotFound, None),
            Found::MethodNotAllowed(allow) => {
                self.problem(head, record, ProblemKind::MethodNotAllowed, Some(allow.as_str()))
            }
            Found::Route(id) => {
                let route = &self.shard.plan.routes[id.index()];
                match &route.action {
                    RouteAction::Respond(plan) => {
                        let reply = Reply {
                            status: plan.status,
                            content_type: plan.content_type.as_deref(),
                            content: plan.body.expose().as_bytes(),
                            edits: &route.response_fields,
                        };
                        self.reply(head, record, &reply)
                    }
                    RouteAction::Proxy(plan) => self.forward(head, record, (id, route, plan), path, &captures),
                }
            }
        }
    }

    fn forward(
        &self,
        head: &RequestHead<'_>,
        record: &mut Record,
        (id, route, plan): (RouteId, &RoutePlan, &ProxyPlan),
        path: &str,
        captures: &Captures,
    ) -> Prepared {
        if head.max_forwards == Some(0) {
            return self.reply_to_the_last_forward(head, record, route);
        }
        let max_body = route.max_body.unwrap_or(self.listener().limits.max_body);
        if matches!(head.framing, BodyFraming::Length(length) if length > max_body) {
            return self.refuse(head, record, ProblemKind::ContentTooLarge);
        }
        let mut rewritten = self.shard.spare();
        let path = match &plan.rewrite {
            None => path,
            Some(parts) => {
                route::rewrite(parts, path, captures, &mut rewritten);
                str::from_utf8(&rewritten).expect("made of parts of strings")
            }
        };
        let host = match &plan.host {
            UpstreamHost::Client if !head.host.is_empty() => head.host,
            UpstreamHost::Client | UpstreamHost::Endpoint => {
                &self.shard.plan.upstreams[plan.upstream.index()].endpoints[0].authority
            }
            UpstreamHost::Given(host) => host,
        };
        let mut out = self.shard.spare();
        let encoding = RequestEncoding {
            path,
            query: head.query,
            host,
            framing: head.framing,
            forwarding: Forwarding {
                client: &self.client,
                proto: if self.encrypted { "https" } else { "http" },
                host: head.host,
                trusted: self.trusted,
                x_forwarded: self.listener().forwarded.x_forwarded,
                forwarded: self.listener().forwarded.forwarded,
                client_cert: self.client_cert,
            },
            request_id: Some(RequestIdField { name: request_id::FIELD, value: record.id.as_bytes() }),
            edits: &route.request_fields,
            expect_continue: head.expect_continue,
            upgrade: head.upgrade.is_some(),
        };
        encode::request(&mut out, head, &encoding);
        self.shard.give_back(rewritten);
        Prepared::Forward(self.shard.forwards.place(Forward {
            upstream: plan.upstream,
            route: id,
            facts: RequestFacts { idempotent: head.method.is_idempotent() },
            message: Message { head: out, ..Message::default() },
            reader: BodyReader::new(head.framing),
            frame: Frame::of(head.framing, encode::passes_trailers(&head.fields, &route.request_fields)),
            max_body,
            host_of_endpoint: plan.host == UpstreamHost::Endpoint,
            head_only: head.method.is_head(),
            version: head.version,
            keep: head.persistent && !self.is_last,
            expects_continue: head.expect_continue,
            upgrade: head.upgrade.map(Rc::from),
            deadline: Deadline::after(record.started, self.timeout(head, record, route)),
        }))
    }

    /// What the client of a gRPC request waits for no longer, nobody needs.
    fn timeout(&self, head: &RequestHead<'_>, record: &Record, route: &RoutePlan) -> Duration {
        let patience = if record.grpc { grpc::timeout(&head.fields) } else { None };
        patience.map_or(route.timeout, |patience| patience.min(route.timeout))
    }

    /// `OPTIONS *` and `OPTIONS http://host` ask about the gateway itself (RFC 9110 section 9.3.7, RFC 9112 section 3.2.4).
    fn reply_to_asterisk(&self, head: &RequestHead<'_>, record: &mut Record) -> Prepared {
        self.reply(head, record, &Reply { status: 200, content_type: None, content: b"", edits: &encode::NO_EDITS })
    }

    /// What may not be forwarded any more is answered here (RFC 9110 section 7.6.2). A TRACE would be answered with its own head, which
    /// the client need not hear from us.
    fn reply_to_the_last_forward(&self, head: &RequestHead<'_>, record: &mut Record, route: &RoutePlan) -> Prepared {
        if head.method != Method::Trace {
            return self.reply_to_asterisk(head, record);
        }
        let others = route.matcher.methods.iter().map(String::as_str).filter(|method| *method != "TRACE");
        let allow = others.collect::<Vec<_>>().join(", ");
        self.problem(head, record, ProblemKind::MethodNotAllowed, Some(&allow))
    }

    fn reply(&self, head: &RequestHead<'_>, record: &mut Record, reply: &Reply<'_>) -> Prepared {
        let keep = self.keeps(head);
        let mut bytes = self.shard.spare();
        record.status = Some(reply.status);
        let date = self.shard.date.borrow();
        reply::reply(
            &mut bytes,
            reply,
            &reply_context(record, head.method.is_head(), head.version, keep, date.as_str()),
        );
        Prepared::Reply { bytes, reader: BodyReader::new(head.framing), keep }
    }

    /// An answer to what nobody should send, and the connection's end: whatever follows is not read.
    fn refuse(&self, head: &RequestHead<'_>, record: &mut Record, kind: ProblemKind) -> Prepared {
        let bytes = encode_problem(self.shard, record, &kind.into(), (head.method.is_head(), head.version, false));
        Prepared::Reply { bytes, reader: BodyReader::new(BodyFraming::None), keep: false }
    }

    fn problem(&self, head: &RequestHead<'_>, record: &mut Record, kind: ProblemKind, allow: Option<&str>) -> Prepared {
        let keep = self.keeps(head);
        let problem = Problem { kind, allow };
        let bytes = encode_problem(self.shard, record, &problem, (head.method.is_head(), head.version, keep));
        Prepared::Reply { bytes, reader: BodyReader::new(head.framing), keep }
    }

    /// Whether the connection stays after an answer of our own. Content that waits for our word is never asked for, and much of it is not read.
    fn keeps(&self, head: &RequestHead<'_>) -> bool {
        let is_long = matches!(head.framing, BodyFraming::Length(length) if length > DISCARD_BYTES);
        head.persistent && !self.is_last && !head.expect_continue && !is_long
    }
}

fn reply_context<'a>(
    record: &'a Record,
    head_only: bool,
    version: Version,
    keep: bool,
    date: &'a str,
) -> ReplyContext<'a> {
    ReplyContext {
        request_id: Some(RequestIdField { name: request_id::FIELD, value: record.id.as_bytes() }),
        head_only,
        persistence: Persistence::of(version, keep),
        date,
    }
}

/// A problem as a whole response; counts and records it.
pub fn encode_problem(
    shard: &Shard,
    record: &mut Record,
    problem: &Problem<'_>,
    (head_only, version, keep): (bool, Version, bool),
) -> Vec<u8> {
    shard.counters.problem(problem.kind);
    record.problem = Some(problem.kind);
    record.status = Some(if record.grpc { 200 } else { problem.kind.status() });
    let mut bytes = shard.spare();
    let date = shard.date.borrow();
    let context = reply_context(record, head_only, version, keep, date.as_str());
    if record.grpc {
        grpc::reply(&mut bytes, problem.kind, &context);
    } else {
        problem::reply(&mut bytes, problem, &context);
    }
    bytes
}

/// What an admin request gets as a whole response: the answer, or a problem where there is none.
pub fn encode_answer(shard: &Shard, record: &mut Record, request: &AdminRequest, answer: Option<Answer>) -> Vec<u8> {
    let Some(answer) = answer else {
        let facts = (request.head_only, request.version, request.keep);
        return encode_problem(shard, record, &ProblemKind::RouteNotFound.into(), facts);
    };
    record.status = Some(answer.status);
    let reply = Reply {
        status: answer.status,
        content_type: Some(answer.content_type),
        content: answer.body.as_bytes(),
        edits: &encode::NO_EDITS,
    };
    let mut bytes = shard.spare();
    let date = shard.date.borrow();
    let context = reply_context(record, request.head_only, request.version, request.keep, date.as_str());
    reply::reply(&mut bytes, &reply, &context);
    bytes
}

/// Replaces the `Host` of an encoded request, which stands in its second line.
pub fn set_host(head: &mut Vec<u8>, host: &str) {
    const NAME: &[u8] = b"Host: ";
    let Some(line) = memchr::memchr(b'\n', head) else { return };
    let start = line + 1 + NAME.len();
    let Some(len) = head.get(start..).and_then(|rest| memchr::memchr(b'\r', rest)) else { return };
    if &head[start..start + len] != host.as_bytes() {
        head.splice(start..start + len, host.bytes());
    }
}
