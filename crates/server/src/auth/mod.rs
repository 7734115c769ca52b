//! Who a request comes from, and what that caller may do.

pub(crate) mod authenticator;
pub(crate) mod authorize;
pub(crate) mod caller;
pub(crate) mod changes;
pub(crate) mod key_lock;
pub(crate) mod keys;
pub(crate) mod logins;
pub(crate) mod lru;
pub(crate) mod project;
pub(crate) mod replays;
pub(crate) mod rights;
pub(crate) mod roster;
pub(crate) mod tokens;
