//! Delivery to programs: one process per message, or one that stays and speaks JSON lines.

pub(crate) mod command;
pub(crate) mod lines;
pub(crate) mod process;
