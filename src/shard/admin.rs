//! The admin listener: health, readiness, metrics. Served by one shard, which asks the others for their counts.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use super::counters::Counters;
use super::{Phase, Shard};
use crate::mesh::Control;

/// What an admin request is answered with.
pub struct Answer {
    pub status: u16,
    pub content_type: &'static str,
    pub body: String,
}

const TEXT: &str = "text/plain; charset=utf-8";
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The answer to a GET of `path`; `None` where there is nothing.
pub async fn answer(shard: &Rc<Shard>, path: &str) -> Option<Answer> {
    let text = |status, body: &str| Answer { status, content_type: TEXT, body: format!("{body}\n") };
    match path {
        "/healthz" => Some(text(200, "ok")),
        "/readyz" => Some(match shard.phase() {
            Phase::Serving if shard.ready.get() => text(200, "ready"),
            Phase::Serving | Phase::Warming => text(503, "starting"),
            Phase::Draining => text(503, "draining"),
        }),
        "/metrics" => Some(Answer { status: 200, content_type: METRICS, body: metrics(shard).await }),
        _ => None,
    }
}

async fn metrics(shard: &Rc<Shard>) -> String {
    let mut counts = ask_all(shard).await;
    counts.push(shard.count());
    Counters::sum(&shard.plan, &counts).render(&shard.plan)
}

/// The counts of all other shards.
async fn ask_all(shard: &Rc<Shard>) -> Vec<Box<[u64]>> {
    let others: Vec<_> = shard.port.borrow().others().collect();
    let question = shard.questions.borrow_mut().ask(others.len());
    for other in others {
        shard.port.borrow_mut().command(&shard.ring, other, Control::Count { asker: shard.id, question });
    }
    let guard = Asked { shard, question };
    poll_fn(|cx| {
        let mut questions = shard.questions.borrow_mut();
        match questions.take_complete(guard.question) {
            Some(counts) => Poll::Ready(counts),
            None => {
                questions.wait(guard.question, cx.waker().clone());
                Poll::Pending
            }
        }
    })
    .await
}

/// Forgets a question when nobody waits for its answers any more.
struct Asked<'s> {
    shard: &'s Shard,
    question: u32,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.shard.questions.borrow_mut().open.retain(|open| open.number != self.question);
    }
}

/// Questions to the other shards whose answers are still coming.
#[derive(Default)]
pub struct Questions {
    open: Vec<Question>,
    next: u32,
}

struct Question {
    number: u32,
    expected: usize,
    answers: Vec<Box<[u64]>>,
    waker: Option<std::task::Waker>,
}

impl Questions {
    /// Notes an answer; one to a question that was given up is dropped.
    pub fn answer(&mut self, number: u32, values: Box<[u64]>) {
        if let Some(question) = self.open.iter_mut().find(|open| open.number == number) {
            question.answers.push(values);
            if question.answers.len() == question.expected
                && let Some(waker) = question.waker.take()
            {
                waker.wake();
            }
        }
    }

    fn ask(&mut self, expected: usize) -> u32 {
        let number = self.next;
        self.next = number.wrapping_add(1);
        self.open.push(Question { number, expected, answers: Vec::new(), waker: None });
        number
    }

    fn take_complete(&mut self, number: u32) -> Option<Vec<Box<[u64]>>> {
        let question = self.open.iter_mut().find(|open| open.number == number)?;
        (question.answers.len() == question.expected).then(|| std::mem::take(&mut question.answers))
    }

    fn wait(&mut self, number: u32, waker: std::task::Waker) {
        if let Some(question) = self.open.iter_mut().find(|open| open.number == number) {
            question.waker = Some(waker);
        }
    }
}
