//! see Cargo.toml
pub mod domain;
