//! The parts that run now, which the admin endpoint and the dashboard show, and which a reload changes.
//!
//! | file | contents |
//! |---|---|
//! | `parts` | the workers, publishers and outboxes that run now |
//! | `publisher` | a publisher that runs, and its key |
//! | `shared` | what all parts have in common |

pub(crate) mod parts;
pub(crate) mod publisher;
pub(crate) mod shared;
