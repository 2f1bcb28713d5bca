//! The program as others see it: its commands, its API, what it sends.

mod main_path;
mod support;
