//! Connections that several requests use at once: those that speak HTTP/2.
//!
//! One serves a whole endpoint until it has as many requests as its peer takes, and only then another is opened. So while one is being dialled nobody
//! else dials the same endpoint: they wait, and find places when it is there. What an endpoint speaks may be known only then, and until it is
//! known they wait as well; once it turns out not to share, everybody dials for themselves.
//!
//! Such a connection is *open* until whoever drives it says that it has closed. It may be *forgotten* before: then it takes no more requests, and ends with those
//! that it has.

use std::time::Instant;

use super::{Checkout, Protocol, TargetId, Ticket, Upstream};

/// One shared connection of an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SharedId(u64);

pub(super) struct Shared<S> {
    id: SharedId,
    handle: S,
    born: Instant,
    /// Requests that use it.
    streams: u32,
    /// Requests that its peer takes at once.
    limit: u32,
    /// Since when none does.
    unused_since: Instant,
}

/// What connections to a target are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaks {
    /// The first one will show.
    Unknown,
    Exclusive,
    Shared,
}

impl Speaks {
    pub(super) fn of(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Auto => Self::Unknown,
            Protocol::H1 => Self::Exclusive,
            Protocol::H2 => Self::Shared,
        }
    }
}

impl<C, S: Clone> Upstream<C, S> {
    /// What a request gets where connections may be shared; `None` for a connection of its own, or leave to dial.
    pub(super) fn checkout_shared(&mut self, target: TargetId, fresh: bool) -> Option<Checkout<C, S>> {
        if !fresh && let Some(checkout) = self.take_place(target) {
            return Some(checkout);
        }
        let has_room = self.open < self.max_open || self.idle > 0;
        let slot = &mut self.targets[target.0];
        // It may have spoken HTTP/1.1 before.
        if has_room && (slot.speaks == Speaks::Exclusive || !slot.shelf.is_empty()) {
            return None;
        }
        if slot.speaks != Speaks::Exclusive && slot.dialling > 0 {
            return Some(self.wait());
        }
        if !has_room {
            let others = self.live.clone();
            return Some(others.into_iter().find_map(|other| self.take_place(other)).unwrap_or_else(|| self.wait()));
        }
        self.targets[target.0].dialling += 1;
        None
    }

    fn take_place(&mut self, target: TargetId) -> Option<Checkout<C, S>> {
        let slot = &mut self.targets[target.0];
        let shared = slot.shared.iter_mut().find(|shared| shared.streams < shared.limit)?;
        shared.streams += 1;
        slot.active += 1;
        self.places -= 1;
        Some(Checkout::Share { target, id: shared.id, handle: shared.handle.clone() })
    }

    /// A dial has brought a connection that its request has for itself. Returns those whose turn it is, who must be told.
    #[must_use]
    pub fn opened_exclusive(&mut self, target: TargetId) -> Vec<Ticket> {
        let slot = &mut self.targets[target.0];
        slot.dialling = slot.dialling.saturating_sub(1);
        if slot.speaks == Speaks::Exclusive {
            return Vec::new();
        }
        slot.speaks = Speaks::Exclusive;
        self.grant_all()
    }

    /// A dial has brought a connection that takes `limit` requests at once; the one that it was dialled for has a place on it. Returns those whose
    /// turn it is, who must be told.
    #[must_use]
    pub fn opened_shared(&mut self, target: TargetId, handle: S, limit: u32, now: Instant) -> (SharedId, Vec<Ticket>) {
        let id = SharedId(self.next_shared);
        self.next_shared += 1;
        let slot = &mut self.targets[target.0];
        slot.dialling = slot.dialling.saturating_sub(1);
        slot.speaks = Speaks::Shared;
        slot.active += 1;
        let limit = limit.max(1);
        slot.shared.push(Shared { id, handle, born: now, streams: 1, limit, unused_since: now });
        self.places += limit - 1;
        (id, self.grant_all())
    }

    /// A dial has come to nothing. Returns whose turn it is, who must be told.
    #[must_use]
    pub fn not_opened(&mut self, target: TargetId) -> Option<Ticket> {
        let slot = &mut self.targets[target.0];
        slot.dialling = slot.dialling.saturating_sub(1);
        self.closed(target)
    }

    /// A request has left its place on a shared connection. Returns whose turn it is, who must be told.
    #[must_use]
    pub fn leave(&mut self, target: TargetId, id: SharedId, now: Instant) -> Option<Ticket> {
        let keeps = !self.keep_idle.is_zero();
        let slot = &mut self.targets[target.0];
        slot.active -= 1;
        if let Some(shared) = slot.shared.iter_mut().find(|shared| shared.id == id) {
            shared.streams -= 1;
            self.places += u32::from(shared.streams < shared.limit);
            shared.unused_since = now;
            if shared.streams == 0 && !keeps {
                self.forget(target, id);
            }
        }
        self.retire(target);
        self.grant()
    }

    /// The peer of a shared connection takes `limit` requests at once. Returns those whose turn it is, who must be told.
    #[must_use]
    pub fn limited(&mut self, target: TargetId, id: SharedId, limit: u32) -> Vec<Ticket> {
        let slot = self.targets.get_mut(target.0);
        let shared = slot.and_then(|slot| slot.shared.iter_mut().find(|shared| shared.id == id));
        let Some(shared) = shared.filter(|shared| shared.limit != limit) else { return Vec::new() };
        self.places -= shared.limit.saturating_sub(shared.streams);
        shared.limit = limit;
        self.places += limit.saturating_sub(shared.streams);
        self.grant_all()
    }

    /// A shared connection takes no more requests. It stays open for those that it has.
    pub fn forget(&mut self, target: TargetId, id: SharedId) {
        let Some(slot) = self.targets.get_mut(target.0) else { return };
        if let Some(place) = slot.shared.iter().position(|shared| shared.id == id) {
            let shared = slot.shared.remove(place);
            self.places -= shared.limit.saturating_sub(shared.streams);
        }
    }

    pub(super) fn forget_all(&mut self, target: TargetId) {
        let ids: Vec<SharedId> = self.targets[target.0].shared.iter().map(|shared| shared.id).collect();
        ids.into_iter().for_each(|id| self.forget(target, id));
    }

    /// Forgets shared connections that nobody has used for too long, and those that are too old.
    pub(super) fn evict_shared(&mut self, now: Instant) {
        for (_, slot) in &mut self.targets {
            slot.shared.retain(|shared| {
                let is_unused =
                    shared.streams == 0 && now.saturating_duration_since(shared.unused_since) >= self.keep_idle;
                let goes = is_unused || now.saturating_duration_since(shared.born) >= self.max_age;
                if goes {
                    self.places -= shared.limit.saturating_sub(shared.streams);
                }
                !goes
            });
        }
    }

    /// Forgets the shared connections that no request may use any more.
    pub fn forget_where(&mut self, mut is_past: impl FnMut(&S) -> bool) {
        for (_, slot) in &mut self.targets {
            slot.shared.retain(|shared| {
                let goes = is_past(&shared.handle);
                if goes {
                    self.places -= shared.limit.saturating_sub(shared.streams);
                }
                !goes
            });
        }
    }

    /// Shared connections that nobody uses.
    pub(super) fn unused(&self) -> u32 {
        let shared = self.targets.iter().flat_map(|(_, slot)| &slot.shared);
        shared.filter(|shared| shared.streams == 0).count() as u32
    }

    fn grant_all(&mut self) -> Vec<Ticket> {
        std::iter::from_fn(|| self.grant()).collect()
    }
}

#[cfg(test)]
mod tests;
