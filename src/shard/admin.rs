//! The admin listener: health, readiness, metrics. Served by one shard, which asks the others for their counts.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::counters::{self, Counters};
use super::{Phase, Shard};
use crate::mesh::Control;
use crate::ring::Timer;

/// What an admin request is answered with.
pub struct Answer {
    pub status: u16,
    pub content_type: &'static str,
    pub body: String,
}

/// How long the other shards have to send their counts.
const ANSWER_PATIENCE: Duration = Duration::from_secs(1);

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
        "/metrics" => Some(match metrics(shard).await {
            Some(body) => Answer { status: 200, content_type: METRICS, body },
            // A part of the counts would look like counters that went backwards.
            None => text(503, "not every shard can be counted"),
        }),
        _ => None,
    }
}

async fn metrics(shard: &Rc<Shard>) -> Option<String> {
    let mut counts = ask_all(shard).await?;
    counts.push(shard.count());
    let mut text = Counters::sum(&shard.plan, &counts).render(&shard.plan);
    counters::render_certificates(&mut text, &shard.certificates.borrow());
    Some(text)
}

/// The counts of all other shards; `None` when one does not answer. While they drain nobody is asked: one that is over reads no mail any more.
async fn ask_all(shard: &Rc<Shard>) -> Option<Vec<Box<[u64]>>> {
    let others: Vec<_> = shard.port.borrow().others().collect();
    if shard.phase() == Phase::Draining && !others.is_empty() {
        return None;
    }
    let question = shard.questions.borrow_mut().ask(others.len());
    for other in others {
        shard.port.borrow_mut().command(&shard.ring, other, Control::Count { asker: shard.id, question });
    }
    let guard = Asked { shard, question };
    let answers = poll_fn(|cx| {
        let mut questions = shard.questions.borrow_mut();
        match questions.take_complete(guard.question) {
            Some(counts) => Poll::Ready(counts),
            None => {
                questions.wait(guard.question, cx.waker().clone());
                Poll::Pending
            }
        }
    });
    // The others may have come to their end between the question and its answer.
    let mut timer = Timer::new(&shard.ring);
    timer.within(shard.now() + ANSWER_PATIENCE, answers).await.ok()
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
