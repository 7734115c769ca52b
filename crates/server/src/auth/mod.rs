//! Who a request comes from, and what that caller may do.

pub(crate) mod account_changes;
pub(crate) mod accounts;
pub(crate) mod authenticator;
pub(crate) mod authorize;
pub(crate) mod caller;
pub(crate) mod key_lock;
pub(crate) mod keys;
pub(crate) mod login_throttle;
pub(crate) mod lru;
pub(crate) mod project;
pub(crate) mod replays;
pub(crate) mod rights;
pub(crate) mod secret;
pub(crate) mod sender;
pub(crate) mod tokens;
