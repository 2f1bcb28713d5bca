//! What is the same in every store, and knows no SQL: what a change comes to, what rows say, how lists are cut.

pub mod accepting;
pub mod change;
pub mod erasing;
pub mod facts;
pub mod listing;
pub mod replaying;
pub mod retaining;
pub mod rows;
pub mod sealing;
pub mod searching;
