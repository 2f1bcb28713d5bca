//! The program as others see it: its commands, its API, what it sends.

#[cfg(test)]
mod cli;
#[cfg(test)]
mod kill;
#[cfg(test)]
mod main_path;
#[cfg(test)]
mod support;
