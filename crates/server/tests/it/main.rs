//! The program as others see it: its commands, its API, what it sends.

#[cfg(test)]
mod backups;
#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod bench;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod console;
#[cfg(test)]
mod contract;
#[cfg(test)]
mod demo;
#[cfg(test)]
mod engine;
#[cfg(test)]
mod erasures;
#[cfg(test)]
mod hostile_receivers;
#[cfg(test)]
mod house;
#[cfg(test)]
mod kill;
#[cfg(test)]
mod main_path;
#[cfg(test)]
#[cfg(feature = "peers")]
mod peers;
#[cfg(test)]
mod replays;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod statistics;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tail;
#[cfg(test)]
mod tenancy;
