//! Authentication and authorization: who sent a request, and what that caller may do.
//!
//! | file | contents |
//! |---|---|
//! | `sender` | the head of a request and its connection |
//! | `authenticator` | [`Authenticator`](authenticator::Authenticator): signature or token to caller |
//! | `keys`, `key_lock`, `replays` | signatures with access keys |
//! | `login_throttle`, `tokens` | passwords and the tokens issued for them |
//! | `token_seal` | tokens that several servers accept |
//! | `caller`, `rights` | [`Caller`](caller::Caller) and its rights |
//! | `authorize` | what a route requires |
//! | `project`, `checks` | accounts as a configuration has them, and the rules for them |
//! | `accounts`, `account_changes` | a snapshot of all accounts, and replacing it |
//! | `last_use`, `refused` | when callers were let in last, and who was not |
//! | `secret`, `lru` | comparing secrets; a bounded map |

pub(crate) mod account_changes;
pub(crate) mod accounts;
pub(crate) mod authenticator;
pub(crate) mod authorize;
pub(crate) mod caller;
pub(crate) mod checks;
pub(crate) mod key_lock;
pub(crate) mod keys;
pub(crate) mod last_use;
pub(crate) mod login_throttle;
pub(crate) mod lru;
pub(crate) mod project;
pub(crate) mod refused;
pub(crate) mod replays;
pub(crate) mod rights;
pub(crate) mod secret;
pub(crate) mod sender;
#[cfg(feature = "postgres")]
pub(crate) mod token_seal;
pub(crate) mod tokens;
