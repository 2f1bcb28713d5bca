//! The webhook client.
