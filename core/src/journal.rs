//! What a node writes down: one record format for the journal and the control log.

pub mod record;
