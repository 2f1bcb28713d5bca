//! What leaves, over real sockets.

mod smtp;
mod webhook;
