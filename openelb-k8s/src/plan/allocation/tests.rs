//! The sentences of the allocation rules, one test each: objects in, writes out. A [`World`] executes the writes as a
//! store would, one plan after the other, and checks on every step that nothing is published that is not committed,
//! and nothing committed to two that may not share.

mod world;

mod choice;
mod eips;
mod history;
mod requests;
mod rest;
mod sentences;
mod sharing;
mod sticky;
mod told;
mod truth;
