//! All mutable policy state of one core, as one plain struct.

use crate::config::plan::Plan;
use crate::ids::UpstreamId;

use super::upstream::Upstream;

/// What one shard decides from. `C` is a connection and `S` a shared one; nothing here looks into them.
pub struct ShardState<C, S> {
    upstreams: Box<[Upstream<C, S>]>,
}

impl<C, S: Clone> ShardState<C, S> {
    /// The state of shard number `shard` of `shards`. `seed` decides all its random picks.
    pub fn new(plan: &Plan, shard: usize, shards: usize, seed: u64) -> Self {
        let upstreams = plan.upstreams.iter().zip(1..);
        Self { upstreams: upstreams.map(|(plan, salt)| Upstream::new(plan, shard, shards, mix(seed, salt))).collect() }
    }

    pub fn upstream(&mut self, id: UpstreamId) -> &mut Upstream<C, S> {
        &mut self.upstreams[id.index()]
    }

    pub fn upstreams(&mut self) -> impl Iterator<Item = (UpstreamId, &mut Upstream<C, S>)> {
        (0..).map(UpstreamId).zip(&mut self.upstreams)
    }
}

/// A seed for one of several generators (a step of splitmix64).
fn mix(seed: u64, salt: u64) -> u64 {
    let mut word = seed.wrapping_add(salt.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    word = (word ^ word >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ word >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ word >> 31
}
