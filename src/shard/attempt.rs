//! One attempt: the request goes out, the response comes back, and both may be under way at once.
//!
//! Two futures share the task. The *client's side* passes the rest of the request's content on and then watches for the client to go away; the
//! *upstream's side* reads the response's head and then relays its content. A backend may answer before it has read everything, so neither waits
//! for the other.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use super::Shard;
use super::client::{Client, ClientEnd};
use super::client_h2::Exchange;
use super::connection::{Connection, Inbound};
use super::counters::{UpstreamCounters, add};
use super::dial::{Held, Lease};
use super::h2_stream::Incoming;
use super::outset::{First, Outset};
use super::prepare::Forward;
use super::record::{Cut, Record};
use super::relay::{Input, Output, RelayFault, Sink, Source, relay, send_whole, settle};
use super::respond::{self, Answered, Response, ResponseContext};
use super::serve_h1::After;
use super::transport::{Sending, Transport};
use super::upgrade::{self, Patience, Protocol, Tunnelled};
use crate::config::plan::UpstreamPlan;
use crate::deadline::Deadline;
use crate::logic::exchange::{self, AttemptFault, AttemptFaultKind, Event, Step};
use crate::logic::http::{HeadScan, ProblemKind, Version, encode};
use crate::ring::{Expect, Outgoing, Size, Timer};

/// How long the content of a request with `Expect: 100-continue` waits for the upstream's word (RFC 9110 section 10.1.1 wants a bound).
const CONTINUE_PATIENCE: Duration = Duration::from_secs(1);
/// Interim responses (1xx) of one request; an upstream that sends more has gone astray.
const MAX_INTERIM: u32 = 16;

/// What one attempt works on.
pub struct Attempt<'a, 'c> {
    pub client: &'a mut Client<'c>,
    pub forward: &'a mut Forward,
    pub record: &'a mut Record,
    pub exchange: &'a mut exchange::Exchange,
}

/// Why the client's side ended.
enum ClientFault {
    Gone,
    /// Content that is malformed, too long, too slow, or that the upstream does not take.
    Upload(RelayFault),
}

/// How far things are, as both sides see it.
struct Progress {
    /// The head of the request, and the content that came with it, on its way.
    posted: RefCell<Option<Sending>>,
    /// The same, once it has gone out or has failed to.
    sent: Cell<Option<Outgoing>>,
    /// There is no more content than that.
    complete: bool,
    /// The request has gone out whole.
    uploaded: Cell<bool>,
    /// The content may be sent: the upstream has asked for it, or was never asked whether it wants it.
    may_upload: Cell<bool>,
    /// Some bytes of a response came.
    answered: Cell<bool>,
    /// The final response is on its way to the client.
    responding: Cell<bool>,
}

impl Progress {
    /// Looks whether what was posted has gone out. Nobody is told, so whoever needs to know looks.
    fn look(&self) {
        let mut posted = self.posted.borrow_mut();
        if let Some(Poll::Ready((sent, outgoing))) = posted.as_mut().map(Sending::try_sent) {
            *posted = None;
            self.sent.set(Some(outgoing));
            self.uploaded.set(self.complete && sent.is_ok());
        }
    }
}

/// What brings an attempt to its upstream.
#[derive(Clone, Copy)]
enum Link<'a> {
    H1(&'a Transport),
    H2(&'a Exchange),
}

impl<'a> Link<'a> {
    fn output(self) -> Output<'a> {
        match self {
            Self::H1(transport) => Output::H1(transport),
            Self::H2(exchange) => Output::H2(&exchange.outgoing),
        }
    }

    /// What the upstream speaks, if that is not said by its messages.
    fn version(self) -> Option<Version> {
        match self {
            Self::H1(_) => None,
            Self::H2(_) => Some(Version::Http2),
        }
    }
}

/// What an attempt came to.
struct End {
    event: Event,
    after: After,
    /// The upstream's connection is between two messages.
    reusable: bool,
    /// The upstream has switched to this protocol; the head says so.
    switched: Option<(Protocol, Vec<u8>)>,
    /// The end of the response, on its way.
    flushing: Option<Sending>,
    /// The client has a part of a response; and whether only the end of its connection would have ended it.
    broken_off: Option<bool>,
}

impl End {
    fn failed(kind: AttemptFaultKind, replayable: bool, sent: bool, answered: bool) -> Self {
        let event = Event::Failed(AttemptFault { kind, replayable, sent, answered });
        Self { after: After::Linger, ..Self::of(event) }
    }

    fn of(event: Event) -> Self {
        Self { event, after: After::Close, reusable: false, switched: None, flushing: None, broken_off: None }
    }
}

impl Attempt<'_, '_> {
    /// Runs the attempt on the connection of `lease`, and says how the exchange goes on and what becomes of the client's connection.
    pub async fn run(mut self, mut lease: Lease) -> (Step, After) {
        let end = self.exchange_messages(lease.held()).await;
        if let Event::Failed(AttemptFault { kind, .. }) = end.event
            && !matches!(kind, AttemptFaultKind::ClientGone | AttemptFaultKind::Content(_))
        {
            add(&self.client.shard.counters.upstreams[self.forward.upstream.index()].failures, 1);
        }
        if let Some(switched) = end.switched
            && let Some(connection) = lease.connection()
        {
            let event = Box::pin(self.tunnel(switched, connection)).await;
            return (self.exchange.handle(event), After::Close);
        }
        if end.reusable {
            lease.keep();
        }
        self.client.end.flush_later(end.flushing);
        if let Some(ends_with_connection) = end.broken_off {
            self.client.end.break_off(ends_with_connection);
        }
        // Closed with bytes unread the connection would be reset, and the client could lose its response.
        let lingers = matches!(end.event, Event::Relayed) && end.after == After::Close && self.client.end.has_bytes();
        (self.exchange.handle(end.event), if lingers { After::Linger } else { end.after })
    }

    async fn exchange_messages(&mut self, held: &mut Held) -> End {
        let shard = self.client.shard.clone();
        let ring = &*shard.ring;
        let timeouts = self.client.plan().timeouts;
        let context = ResponseContext::new(timeouts.write, self.forward);
        let Client { timer, end: client, .. } = &mut *self.client;
        let Record { status, uploaded, sent, id, cut, endpoint, .. } = &mut *self.record;
        let forward = &mut *self.forward;
        let Forward { deadline, frame, expects_continue, .. } = *forward;
        let plan = &shard.plan.upstreams[forward.upstream.index()];
        let host =
            forward.host_of_endpoint.then(|| &*plan.endpoints[usize::from(endpoint.unwrap_or_default())].authority);

        // What can go out at once does: the head, and the content that came with it.
        let (from_client, to_client) = client.split(&mut forward.reader);
        let mut source = Source { input: from_client, patience: timeouts.body, allowance: forward.max_body };
        let mut outset = Outset { source: &mut source, message: &mut forward.message, frame, expects_continue, host };
        let (exchange, mut heads) = (&mut None, Inbound::default());
        let (link, from_upstream, begun) = match held {
            Held::Connection(connection) => {
                let Connection { transport, inbound } = &mut **connection;
                let begun = outset.begin_on_connection(transport, uploaded);
                inbound.arm(transport, Size::Small, Expect::Later);
                (Link::H1(transport), inbound, begun)
            }
            Held::Place { handle, .. } => match outset.begin_on_stream(handle, shard.now()) {
                Ok((begun, first)) => (Link::H2(exchange.insert(begun)), &mut heads, Ok((None, first))),
                Err(kind) => {
                    return End { reusable: true, ..End::failed(kind, outset.message.replay.is_some(), false, false) };
                }
            },
            Held::Dial => unreachable!("an attempt follows a connection"),
        };
        let (posted, first) = match begun {
            Ok(begun) => begun,
            // Nothing was sent on the upstream's connection.
            Err(kind) => return End { reusable: true, ..End::failed(kind, false, false, false) },
        };
        let complete = first.is_none();
        source.arm(complete);
        // It goes out while the answer is awaited: whoever sends an answer has read it, and a connection that takes none of it gives none.
        let progress = Progress {
            uploaded: Cell::new(complete && posted.is_none()),
            posted: RefCell::new(posted),
            sent: Cell::new(None),
            complete,
            may_upload: Cell::new(!expects_continue),
            answered: Cell::new(false),
            responding: Cell::new(false),
        };

        let client_side = pin!(async {
            if let Some(first) = first {
                let sink = Sink { output: link.output(), frame, patience: plan.timeouts.idle, sent: uploaded };
                let upload = upload(&shard, &mut source, sink, first, &progress, deadline);
                if let Err(fault) = Box::pin(upload).await
                    && !progress.responding.get()
                {
                    return Err(ClientFault::Upload(fault));
                }
                // A client that has its answer may cease to send (RFC 9112 section 9.5). Both connections end with the response.
            }
            poll_fn(|cx| source.poll_gone(cx)).await;
            Err::<Infallible, _>(ClientFault::Gone)
        });
        let mut client_side = ClientSide { future: client_side, ended: None };
        let content = RefCell::new(None);
        let reading = ReadHead {
            shard: &shard,
            context: &context,
            plan,
            client: to_client,
            link,
            content: &content,
            progress: &progress,
            deadline,
            id: id.as_bytes(),
        };
        let response = { client_side.unless_ended(pin!(reading.run(from_upstream, timer, sent))).await };
        progress.look();
        let mut response = match response {
            Ok(Ok(response)) => response,
            Ok(Err(kind)) => {
                let whole = complete || !progress.may_upload.get();
                let message = &mut forward.message;
                message.first = progress.sent.take().filter(|_| whole).map(|mut outgoing| {
                    outgoing.rewind();
                    (outgoing, complete)
                });
                let replayable = message.first.is_some() || message.replay.is_some();
                return End::failed(kind, replayable, true, progress.answered.get());
            }
            Err(ClientFault::Gone) => return End::failed(AttemptFaultKind::ClientGone, false, true, false),
            Err(ClientFault::Upload(fault)) => return End::failed(content_fault(&fault), false, true, false),
        };
        if let Some(outgoing) = progress.sent.take() {
            shard.give_back(outgoing.head);
        }
        forward.message.replay = None;
        *status = Some(response.status);
        count_response(&shard.counters.upstreams[forward.upstream.index()], response.status);
        if let Some(protocol) = response.switches_to {
            return End { switched: Some((protocol, response.head)), ..End::of(Event::Broken) };
        }

        progress.responding.set(true);
        let sent_before = sent.get();
        let relayed = {
            let mut content = content.take();
            let input = match link {
                Link::H1(transport) => Input::H1 { transport, inbound: from_upstream, reader: &mut response.reader },
                Link::H2(Exchange { outgoing, .. }) => {
                    Input::H2 { incoming: content.as_mut().expect("it came with the head"), outgoing }
                }
            };
            let mut source = Source { input, patience: plan.timeouts.idle, allowance: u64::MAX };
            let sink = Sink { output: to_client, frame: response.frame, patience: timeouts.write, sent };
            client_side.unless_ended(pin!(relay(&mut source, sink, response.head, timer, deadline, ring))).await
        };
        let flushing = match relayed {
            Ok(Ok(posted)) => posted,
            // Nothing of it went downstream: the client can still be told.
            Ok(Err(RelayFault::SourceMalformed(_))) if sent.get() == sent_before => {
                *status = None;
                return End::failed(AttemptFaultKind::Malformed, false, true, true);
            }
            unfinished @ (Ok(Err(_)) | Err(_)) => {
                *cut = why_cut(&unfinished);
                return End { broken_off: Some(response.ends_with_connection), ..End::of(Event::Broken) };
            }
        };
        let uploaded = progress.uploaded.get();
        let after = match (response.client_persists, uploaded) {
            (true, true) => After::Keep,
            (false, true) => After::Close,
            (_, false) => After::Linger,
        };
        End { after, reusable: response.upstream_persists && uploaded, flushing, ..End::of(Event::Relayed) }
    }

    /// What follows a 101: its head goes out, and from then on bytes go both ways.
    async fn tunnel(&mut self, (protocol, head): (Protocol, Vec<u8>), upstream: &mut Connection) -> Event {
        let shard = self.client.shard.clone();
        let patience = self.client.plan().timeouts.write;
        let timeouts = &shard.plan.upstreams[self.forward.upstream.index()].timeouts;
        let Client { timer, end: ClientEnd::H1 { connection: client, broken, .. }, .. } = &mut *self.client else {
            return Event::Broken;
        };
        let (mut outgoing, deadline) = (Outgoing::new(head, None, b""), self.forward.deadline);
        let sent = send_whole(&client.transport, &mut outgoing, timer, patience, deadline, &shard.ring).await;
        if let Err(fault) = sent {
            self.record.cut = Some(Cut::of_download(&fault));
            return Event::Broken;
        }
        let patience = Patience { idle: timeouts.tunnel_idle, client: patience, upstream: timeouts.idle };
        let Tunnelled { to_client, to_upstream, cut, is_whole } =
            upgrade::tunnel(&shard, protocol, client, upstream, timer, &patience).await;
        **broken = !is_whole;
        self.record.cut = cut;
        let Record { sent, uploaded, .. } = &*self.record;
        sent.set(sent.get() + outgoing.sent() as u64 + to_client);
        uploaded.set(uploaded.get() + to_upstream);
        Event::Relayed
    }
}

/// Passes the rest of the request's content on, once it may go.
async fn upload(
    shard: &Shard,
    source: &mut Source<'_>,
    sink: Sink<'_>,
    first: First,
    progress: &Progress,
    deadline: Deadline,
) -> Result<(), RelayFault> {
    poll_fn(|_| if progress.may_upload.get() { Poll::Ready(()) } else { Poll::Pending }).await;
    let (ring, patience) = (&*shard.ring, sink.patience);
    let mut timer = Timer::new(&shard.ring);
    let uploaded = async {
        let posted = progress.posted.take();
        if let Some(posted) = posted {
            settle(posted, &mut timer, patience, deadline, ring).await?;
        }
        if let Output::H2(outgoing) = sink.output
            && first.send(outgoing, &sink, &mut timer, deadline, ring).await?
        {
            return Ok(());
        }
        let last = relay(source, sink, shard.spare(), &mut timer, deadline, ring).await?;
        match last {
            Some(last) => settle(last, &mut timer, patience, deadline, ring).await,
            None => Ok(()),
        }
    };
    match uploaded.await {
        Ok(()) => {
            progress.uploaded.set(true);
            Ok(())
        }
        // The upstream takes no more: its response says why.
        Err(RelayFault::SinkClosed) => Ok(()),
        Err(fault) => Err(fault),
    }
}

/// Reads up to the head of the final response.
struct ReadHead<'a> {
    shard: &'a Shard,
    context: &'a ResponseContext,
    plan: &'a UpstreamPlan,
    client: Output<'a>,
    link: Link<'a>,
    /// Where the content of a response goes that comes in a stream.
    content: &'a RefCell<Option<Incoming>>,
    progress: &'a Progress,
    deadline: Deadline,
    /// The request's id.
    id: &'a [u8],
}

impl ReadHead<'_> {
    async fn run(
        &self,
        inbound: &mut Inbound,
        timer: &mut Timer,
        sent: &Cell<u64>,
    ) -> Result<Response, AttemptFaultKind> {
        let mut interims = 0;
        let limits = respond::limits(self.plan);
        // Set once a head has come in part: then it is not parsed again before the rest is here.
        let mut scan: Option<HeadScan> = None;
        loop {
            self.fill(inbound, timer, sent).await?;
            self.progress.answered.set(true);
            self.progress.look();
            while scan.as_mut().is_none_or(|scan| scan.complete(inbound.bytes(), &limits)) {
                let uploaded = self.progress.uploaded.get();
                match respond::read(
                    self.shard,
                    self.context,
                    (self.link.version(), uploaded),
                    inbound,
                    &limits,
                    self.id,
                ) {
                    Ok(Some(Answered::Final(response))) => return Ok(response),
                    Ok(Some(Answered::Interim { status, head })) => {
                        interims += 1;
                        if interims > MAX_INTERIM {
                            return Err(AttemptFaultKind::Malformed);
                        }
                        scan = None;
                        self.interim(status, head, timer, sent).await?;
                    }
                    Ok(None) => {
                        inbound.release_buf();
                        scan.get_or_insert_default();
                        break;
                    }
                    Err(fault) => {
                        if let Some(left_out) = self.shard.warnings.malformed_response.admit(self.shard.now()) {
                            tracing::warn!(upstream = self.plan.name, %fault, left_out, "malformed response");
                        }
                        return Err(AttemptFaultKind::Malformed);
                    }
                }
            }
        }
    }

    /// Waits for bytes of the response. The limit of the first byte runs once the request is out.
    async fn fill(&self, inbound: &mut Inbound, timer: &mut Timer, sent: &Cell<u64>) -> Result<(), AttemptFaultKind> {
        loop {
            let waits_for_word = !self.progress.may_upload.get();
            let limit = match waits_for_word {
                true => CONTINUE_PATIENCE.min(self.plan.timeouts.first_byte),
                false => self.plan.timeouts.first_byte,
            };
            let bound = self.deadline.bound(self.shard.now(), limit);
            let filling = poll_fn(|cx| match self.link {
                Link::H1(transport) => inbound.poll_fill(transport, Size::Small, cx).map(|filled| match filled {
                    Ok(true) => Ok(()),
                    Ok(false) | Err(_) => Err(AttemptFaultKind::Closed),
                }),
                Link::H2(exchange) => exchange
                    .poll_head(self.context.head_only, inbound, cx)
                    .map_ok(|content| *self.content.borrow_mut() = content),
            });
            match timer.within(bound.at, filling).await {
                Ok(filled) => return filled,
                Err(_) if bound.is_final => return Err(AttemptFaultKind::Deadline),
                Err(_) if waits_for_word => {
                    // The upstream does not know the expectation, and the client may wait for an answer to it.
                    let mut head = self.shard.spare();
                    head.extend_from_slice(encode::CONTINUE);
                    self.interim(100, head, timer, sent).await?;
                }
                Err(_) if !self.progress.complete && !self.progress.uploaded.get() => {}
                Err(_) => return Err(AttemptFaultKind::FirstByteTimeout),
            }
        }
    }

    /// Passes an interim response on to a client that understands it.
    async fn interim(
        &self,
        status: u16,
        head: Vec<u8>,
        timer: &mut Timer,
        sent: &Cell<u64>,
    ) -> Result<(), AttemptFaultKind> {
        if status == 100 {
            self.progress.may_upload.set(true);
            look_again().await;
        }
        if self.context.version == Version::Http10 {
            return Ok(());
        }
        let patience = self.context.write_patience;
        let bytes = head.len() as u64;
        let result = match self.client {
            Output::H1(client) => {
                let mut outgoing = Outgoing::new(head, None, b"");
                let ring = &self.shard.ring;
                let result = send_whole(client, &mut outgoing, timer, patience, self.deadline, ring).await;
                self.shard.give_back(outgoing.head);
                result
            }
            Output::H2(client) => client.interim(head),
        };
        // A part of it may have gone out, and nothing can be said behind that.
        result.map_err(|_| AttemptFaultKind::ClientGone)?;
        sent.set(sent.get() + bytes);
        Ok(())
    }
}

/// Has the task polled once more, so that the client's side, which comes first, sees what the upstream's has noted.
async fn look_again() {
    let mut is_again = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut is_again, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// The client's side, which ends only by a fault. It may do so while something else counts: so that is kept for whoever asks next.
struct ClientSide<'a, F> {
    future: Pin<&'a mut F>,
    ended: Option<ClientFault>,
}

impl<F: Future<Output = Result<Infallible, ClientFault>>> ClientSide<'_, F> {
    /// The main future's output, unless the client's side ends before.
    ///
    /// The client's side is polled first, so that the main one knows how far the upload is; but what is complete counts even when the client has left.
    async fn unless_ended<T>(&mut self, mut main: Pin<&mut impl Future<Output = T>>) -> Result<T, ClientFault> {
        poll_fn(|cx| {
            if self.ended.is_none()
                && let Poll::Ready(Err(fault)) = self.future.as_mut().poll(cx)
            {
                self.ended = Some(fault);
            }
            if let Poll::Ready(output) = main.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            self.ended.take().map_or(Poll::Pending, |fault| Poll::Ready(Err(fault)))
        })
        .await
    }
}

/// Why a response did not reach its end; nothing when it did.
fn why_cut<T>(relayed: &Result<Result<T, RelayFault>, ClientFault>) -> Option<Cut> {
    match relayed {
        Ok(Ok(_)) => None,
        Ok(Err(fault)) => Some(Cut::of_download(fault)),
        // Once a response is under way, a fault of the upload only ends that.
        Err(ClientFault::Gone | ClientFault::Upload(_)) => Some(Cut::ClientGone),
    }
}

/// What a fault of the upload means for the attempt.
pub fn content_fault(fault: &RelayFault) -> AttemptFaultKind {
    match fault {
        RelayFault::SourceClosed => AttemptFaultKind::ClientGone,
        RelayFault::SourceMalformed(fault) => AttemptFaultKind::Content(ProblemKind::Body(*fault)),
        RelayFault::SourceStalled => AttemptFaultKind::Content(ProblemKind::RequestTimeout),
        RelayFault::TooLong => AttemptFaultKind::Content(ProblemKind::ContentTooLarge),
        RelayFault::SinkClosed => AttemptFaultKind::Closed,
        RelayFault::SinkStalled => AttemptFaultKind::FirstByteTimeout,
        RelayFault::Deadline => AttemptFaultKind::Deadline,
    }
}

fn count_response(counters: &UpstreamCounters, status: u16) {
    let class = match status {
        ..200 => &counters.responses_1xx,
        200..300 => &counters.responses_2xx,
        300..400 => &counters.responses_3xx,
        400..500 => &counters.responses_4xx,
        500.. => &counters.responses_5xx,
    };
    add(class, 1);
}
