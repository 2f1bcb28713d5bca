//! What leaves, over real sockets.

mod webhook;
