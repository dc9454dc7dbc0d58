//! Postern.

pub mod config;
pub mod ids;
pub mod logic;
pub mod ring;
pub mod mesh;
