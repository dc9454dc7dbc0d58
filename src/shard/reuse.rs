//! Large futures in allocations that are used again.
//!
//! Serving a request takes a future of some kilobytes; waiting for the next one takes a few hundred bytes. So a connection's task holds only the small
//! part, and borrows a [`Slot`] for the large one while a request is served. An idle connection stays small, and a busy one allocates nothing.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// Futures made by one function of `I`, in allocations that go round.
pub struct Slots<I, O> {
    spare: RefCell<Vec<BoxedSlot<I, O>>>,
    make: Box<dyn Fn() -> BoxedSlot<I, O>>,
}

type BoxedSlot<I, O> = Pin<Box<dyn Slot<I, O>>>;

/// Empty slots that are kept. What is in use comes back before long, so this bounds how far the number may swing without an allocation, not how many
/// requests are served at once; and what a burst leaves behind: 0.7 MiB.
const SPARE_SLOTS: usize = 256;

trait Slot<I, O> {
    fn start(self: Pin<&mut Self>, input: I);
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<O>;
    fn clear(self: Pin<&mut Self>);
}

pin_project_lite::pin_project! {
    struct Typed<M, F> {
        make: M,
        #[pin]
        future: Option<F>,
    }
}

impl<I, O, M, F> Slot<I, O> for Typed<M, F>
where
    M: Fn(I) -> F,
    F: Future<Output = O>,
{
    fn start(self: Pin<&mut Self>, input: I) {
        let mut this = self.project();
        let future = (this.make)(input);
        this.future.set(Some(future));
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<O> {
        self.project().future.as_pin_mut().expect("started, and not polled after its end").poll(cx)
    }

    fn clear(self: Pin<&mut Self>) {
        self.project().future.set(None);
    }
}

impl<I: 'static, O: 'static> Slots<I, O> {
    pub fn new<M, F>(make: M) -> Rc<Self>
    where
        M: Fn(I) -> F + Clone + 'static,
        F: Future<Output = O> + 'static,
    {
        let boxed = move || -> BoxedSlot<I, O> { Box::pin(Typed { make: make.clone(), future: None }) };
        Rc::new(Self { spare: RefCell::default(), make: Box::new(boxed) })
    }

    /// Runs the function on `input`.
    pub fn run(self: &Rc<Self>, input: I) -> Running<I, O> {
        let mut slot = self.spare.borrow_mut().pop().unwrap_or_else(|| (self.make)());
        slot.as_mut().start(input);
        Running { slots: self.clone(), slot: Some(slot) }
    }
}

/// Boxes of one type that go round.
pub struct Boxes<T>(RefCell<Vec<Box<T>>>);

impl<T> Default for Boxes<T> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<T> Boxes<T> {
    /// `value` in a box, a used one if there is one.
    pub fn place(&self, value: T) -> Box<T> {
        match self.0.borrow_mut().pop() {
            Some(mut used) => {
                *used = value;
                used
            }
            None => Box::new(value),
        }
    }

    /// Keeps a box for the next value; what is in it goes when that comes.
    pub fn give_back(&self, used: Box<T>) {
        let mut spare = self.0.borrow_mut();
        if spare.len() < SPARE_SLOTS {
            spare.push(used);
        }
    }
}

/// A future in a borrowed slot. Dropping it drops the future and gives the slot back.
pub struct Running<I: 'static, O: 'static> {
    slots: Rc<Slots<I, O>>,
    slot: Option<BoxedSlot<I, O>>,
}

impl<I, O> Future for Running<I, O> {
    type Output = O;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<O> {
        self.get_mut().slot.as_mut().expect("held until dropped").as_mut().poll(cx)
    }
}

impl<I, O> Drop for Running<I, O> {
    fn drop(&mut self) {
        let Some(mut slot) = self.slot.take() else { return };
        slot.as_mut().clear();
        let mut spare = self.slots.spare.borrow_mut();
        if spare.len() < SPARE_SLOTS {
            spare.push(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_slot_is_used_again_after_its_future_ended_or_was_dropped() {
        let drops = Rc::new(Cell::new(0));
        struct Counted(Rc<Cell<u32>>);
        impl Drop for Counted {
            fn drop(&mut self) {
                self.0.set(self.0.get() + 1);
            }
        }
        let counter = drops.clone();
        let slots = Slots::new(move |input: u32| {
            let held = Counted(counter.clone());
            async move {
                let _held = held;
                if input == 0 {
                    std::future::pending::<()>().await;
                }
                input * 2
            }
        });
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut running = slots.run(21);
        assert_eq!(Pin::new(&mut running).poll(&mut cx), Poll::Ready(42));
        drop(running);
        let mut stuck = slots.run(0);
        assert_eq!(Pin::new(&mut stuck).poll(&mut cx), Poll::Pending);
        drop(stuck);
        assert_eq!(drops.get(), 2);
        assert_eq!(slots.spare.borrow().len(), 1);
    }
}
