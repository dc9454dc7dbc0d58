//! An exchange as a dialogue: events in, steps out.

use super::AttemptFaultKind::*;
use super::*;

fn exchange(idempotent: bool) -> Exchange {
    let (exchange, step) = Exchange::new(RequestFacts { idempotent });
    assert_eq!(step, Step::Open { fresh: false });
    exchange
}

fn fault(kind: AttemptFaultKind) -> AttemptFault {
    AttemptFault { kind, replayable: true, sent: true, answered: false }
}

/// Connects, and fails with `fault`.
fn after(idempotent: bool, reused: bool, fault: AttemptFault) -> Step {
    let mut exchange = exchange(idempotent);
    assert_eq!(exchange.handle(Event::Connected { reused }), Step::Attempt);
    exchange.handle(Event::Failed(fault))
}

#[test]
fn a_response_is_relayed_and_then_it_is_over() {
    let mut exchange = exchange(true);
    assert_eq!(exchange.handle(Event::Connected { reused: false }), Step::Attempt);
    assert_eq!(exchange.handle(Event::Relayed), Step::Finish);
    assert!(!exchange.repeated());
}

#[test]
fn a_response_that_breaks_off_aborts_and_is_never_repeated() {
    let mut exchange = exchange(true);
    exchange.handle(Event::Connected { reused: true });
    assert_eq!(exchange.handle(Event::Broken), Step::Abort);
}

#[test]
fn a_kept_connection_that_was_closed_is_replaced_once_when_that_is_safe() {
    let again = Step::Open { fresh: true };
    let closed = fault(Closed);
    let reset = Step::Reply(ProblemKind::UpstreamReset);
    #[rustfmt::skip]
    let rows = [
        // idempotent, reused, fault,                                         then
        (true,         true,   closed,                                        again),
        (true,         false,  closed,                                        reset),
        (false,        true,   closed,                                        reset),
        (false,        true,   AttemptFault { sent: false, ..closed },        again),
        (true,         true,   AttemptFault { replayable: false, ..closed },  reset),
        (true,         true,   AttemptFault { answered: true, ..closed },     reset),
        (false,        false,  AttemptFault { sent: false, ..closed },        reset),
    ];
    for (idempotent, reused, fault, then) in rows {
        assert_eq!(after(idempotent, reused, fault), then, "{idempotent} {reused} {fault:?}");
    }
}

#[test]
fn a_second_close_is_told_to_the_client_even_on_another_kept_connection() {
    let mut exchange = exchange(true);
    exchange.handle(Event::Connected { reused: true });
    assert_eq!(exchange.handle(Event::Failed(fault(Closed))), Step::Open { fresh: true });
    assert!(exchange.repeated());
    exchange.handle(Event::Connected { reused: true });
    assert_eq!(exchange.handle(Event::Failed(fault(Closed))), Step::Reply(ProblemKind::UpstreamReset));
}

#[test]
fn other_faults_are_told_at_once() {
    let rows = [
        (Malformed, Step::Reply(ProblemKind::BadUpstreamResponse)),
        (FirstByteTimeout, Step::Reply(ProblemKind::UpstreamTimeout)),
        (Deadline, Step::Reply(ProblemKind::DeadlineExceeded)),
        (Content(ProblemKind::ContentTooLarge), Step::Reply(ProblemKind::ContentTooLarge)),
        (ClientGone, Step::Abort),
    ];
    for (kind, then) in rows {
        assert_eq!(after(true, true, fault(kind)), then, "{kind:?}");
    }
}

#[test]
fn without_a_connection_the_client_is_told_why() {
    let rows = [
        (DialFault::NoTarget, Step::Reply(ProblemKind::NoEndpoint)),
        (DialFault::QueueFull, Step::Reply(ProblemKind::UpstreamFull)),
        (DialFault::QueueTimeout, Step::Reply(ProblemKind::PendingTimeout)),
        (DialFault::Failed, Step::Reply(ProblemKind::ConnectFailed)),
        (DialFault::Timeout, Step::Reply(ProblemKind::ConnectTimeout)),
        (DialFault::Deadline, Step::Reply(ProblemKind::DeadlineExceeded)),
        (DialFault::ClientGone, Step::Abort),
    ];
    for (fault, then) in rows {
        assert_eq!(exchange(true).handle(Event::NotConnected(fault)), then, "{fault:?}");
    }
}
