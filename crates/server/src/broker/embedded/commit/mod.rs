//! How a change is committed, in this order:
//!
//! | file | step |
//! |---|---|
//! | `committer` | the one task that writes: gathers commands, commits, answers |
//! | `prepare` | turns commands into records, or refuses them; changes nothing |
//! | `apply` | changes the state by records that are stored |

pub(crate) mod apply;
pub(crate) mod committer;
pub(crate) mod prepare;
