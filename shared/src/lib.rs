//! The pure core of Keypost.
