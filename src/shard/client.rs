//! Who sent a request, as what serves it sees it: the same for both versions of HTTP.

use std::rc::Rc;
use std::task::{Context, Poll};

use h2::Reason;

use super::connection::Connection;
use super::h2_stream::{Incoming, Outgoing, Pace};
use super::prepare::{self, Prepared};
use super::record::{Cut, Record};
use super::relay::{Input, Output, RelayFault, send_whole};
use super::serve_h1::After;
use super::transport::Sending;
use super::{Phase, Shard, admin, proxy_header, run_exchange};
use crate::config::plan::ListenerPlan;
use crate::deadline::Deadline;
use crate::ids::ListenerId;
use crate::logic::http::{BodyFraming, BodyReader, Version};
use crate::logic::proxy_protocol::Provenance;
use crate::ring::{Expect, Size, Timer};

/// See the module.
pub struct Client<'a> {
    pub shard: &'a Rc<Shard>,
    pub listener: ListenerId,
    pub timer: &'a mut Timer,
    pub end: ClientEnd<'a>,
    /// This request is the last on its connection.
    pub is_last: bool,
}

/// The way that a request came, and that its response goes.
pub enum ClientEnd<'a> {
    H1 {
        connection: &'a mut Connection,
        /// The end of a response that is on its way to the client.
        flushing: &'a mut Option<Sending>,
        /// The client did not get all of a response: nothing may make it look complete.
        broken: &'a mut bool,
        /// What a PROXY header said of the client.
        provenance: Option<&'a Provenance>,
    },
    H2 {
        incoming: &'a mut Incoming,
        outgoing: &'a Outgoing,
        provenance: &'a Provenance,
    },
}

/// What a request came to.
pub enum Answered {
    /// The upstream had its say, or was to have it.
    Exchanged(After),
    /// We have answered.
    Ourselves {
        taken: bool,
        /// What is left of the request.
        reader: BodyReader,
        keep: bool,
    },
}

impl Client<'_> {
    pub fn plan(&self) -> &ListenerPlan {
        &self.shard.plan.listeners[self.listener.index()]
    }

    /// Whether no further request is taken on this connection.
    pub fn is_last(&self) -> bool {
        self.is_last || self.shard.phase() == Phase::Draining
    }

    /// Does what was decided about its request.
    pub async fn answer(&mut self, prepared: Prepared, record: &mut Record) -> Answered {
        let shard = self.shard;
        let (bytes, reader, keep) = match prepared {
            Prepared::Forward(forward) => return Answered::Exchanged(run_exchange::run(self, forward, record).await),
            Prepared::Refuse(kind) => {
                let bytes = prepare::encode_problem(shard, record, &kind.into(), (false, Version::Http11, false));
                (bytes, BodyReader::new(BodyFraming::None), false)
            }
            Prepared::Reply { bytes, reader, keep } => (bytes, reader, keep),
            Prepared::Admin(request) => {
                let answer = admin::answer(shard, &request.path).await;
                (prepare::encode_answer(shard, record, &request, answer), request.reader, request.keep)
            }
        };
        let deadline = Deadline::after(shard.now(), self.plan().timeouts.write);
        let taken = self.send(bytes, deadline, record).await;
        Answered::Ourselves { taken, reader, keep }
    }

    /// Sends a complete message and gives its allocation back. `false` when the client did not take it.
    pub async fn send(&mut self, bytes: Vec<u8>, deadline: Deadline, record: &mut Record) -> bool {
        let patience = self.plan().timeouts.write;
        let ring = &*self.shard.ring;
        let sent = match &mut self.end {
            ClientEnd::H1 { connection, .. } => {
                let mut outgoing = crate::ring::Outgoing::new(bytes, None, b"");
                let timer = &mut *self.timer;
                let sent = send_whole(&connection.transport, &mut outgoing, timer, patience, deadline, ring).await;
                record.sent.set(record.sent.get() + outgoing.sent() as u64);
                self.shard.give_back(outgoing.head);
                sent
            }
            ClientEnd::H2 { outgoing, .. } => {
                let len = bytes.len() as u64;
                let mut pace = Pace { timer: self.timer, patience, deadline, ring };
                let sent = match outgoing.begin(bytes, true) {
                    Ok(content) if content.is_empty() => Ok(()),
                    Ok(content) => Box::pin(outgoing.send(content.into(), true, &mut pace)).await,
                    Err(fault) => Err(fault),
                };
                record.sent.set(record.sent.get() + len);
                sent
            }
        };
        if let Err(fault) = &sent {
            let is_gone = matches!(fault, RelayFault::SinkClosed);
            record.cut = Some(if is_gone { Cut::ClientGone } else { Cut::ClientStalled });
        }
        sent.is_ok()
    }
}

impl ClientEnd<'_> {
    /// Begins to look whether the client goes away while its request waits.
    pub fn arm(&mut self) {
        if let Self::H1 { connection, .. } = self {
            connection.arm(Size::Small, Expect::Later);
        }
    }

    /// Ready when the client has gone away.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::H1 { connection, .. } => connection.poll_gone(cx),
            Self::H2 { outgoing, .. } => outgoing.poll_gone(cx),
        }
    }

    /// Who the client is, for upstreams that want to be told before anything else.
    pub fn provenance(&self) -> Provenance {
        match self {
            Self::H1 { connection, provenance, .. } => {
                proxy_header::provenance(*provenance, &connection.transport.stream)
            }
            Self::H2 { provenance, .. } => **provenance,
        }
    }

    /// Its two directions; `reader` tells the content from what follows it where the version does not.
    pub fn split<'s>(&'s mut self, reader: &'s mut BodyReader) -> (Input<'s>, Output<'s>) {
        match self {
            Self::H1 { connection, .. } => {
                let Connection { transport, inbound } = &mut **connection;
                (Input::H1 { transport, inbound, reader }, Output::H1(transport))
            }
            Self::H2 { incoming, outgoing, .. } => (Input::H2 { incoming, outgoing }, Output::H2(outgoing)),
        }
    }

    /// Whether bytes have come that nobody has read.
    pub fn has_bytes(&self) -> bool {
        match self {
            Self::H1 { connection, .. } => connection.inbound.has_bytes(),
            Self::H2 { .. } => false,
        }
    }

    /// The last of a response is on its way.
    pub fn flush_later(&mut self, sending: Option<Sending>) {
        if let Self::H1 { flushing, .. } = self {
            **flushing = sending;
        }
    }

    /// A part of a response has gone out, and the rest will not. `ends_with_connection`: an orderly end would make it look complete.
    pub fn break_off(&mut self, ends_with_connection: bool) {
        match self {
            Self::H1 { connection, broken, .. } => {
                **broken = true;
                if ends_with_connection {
                    connection.transport.stream.reset_on_close();
                }
            }
            Self::H2 { outgoing, .. } => outgoing.reset(Reason::INTERNAL_ERROR),
        }
    }
}
