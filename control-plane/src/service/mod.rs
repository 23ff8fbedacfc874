//! The rules: what may be done, and what follows from it. No HTTP here, and no SQL.

pub mod access;
