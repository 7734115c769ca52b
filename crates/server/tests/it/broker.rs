//! The embedded broker's rules, each on every store, under a paused clock.
#![allow(clippy::unwrap_used)]

mod damage;
mod dead_letters;
mod deduplication;
mod delivery;
mod durability;
mod kill;
mod labels;
mod model;
mod operator;
mod purge;
mod queues;
mod retention;
mod schedules;
mod stage;
mod time;
mod traffic;
#[cfg(feature = "disk")]
mod transfer;
