//! What the operator wrote, and the frozen [`plan::Plan`] it becomes.

pub mod plan;
