//! The tasks that run beside the calls.
//!
//! | file | task |
//! |---|---|
//! | `timer` | wakes up when a lease or a delay ends, messages expire or a schedule ticks |
//! | `delays`, `retention`, `ticks` | what the timer does then |
//! | `maintenance` | has the store do its maintenance, probes a store that fails |
//! | `heartbeat` | detects pauses of the process |
//! | `rates` | samples the totals of queues and groups |

mod delays;
pub(crate) mod heartbeat;
pub(crate) mod maintenance;
pub(crate) mod rates;
mod retention;
mod ticks;
pub(crate) mod timer;
