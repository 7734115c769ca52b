//! The access control of a dashboard: its callers and their rights.
//!
//! | file | contents |
//! |---|---|
//! | `gate` | [`Gate`]: who may see the pages and act there |
//! | `visitor` | [`Visitor`]: the caller of a request, with language and theme |
//! | `session` | sessions of browsers that have logged in |
//! | `invitation` | links that log in once |
//! | `origin` | the rule for requests that web pages cause |
//! | `headers` | the security headers of every answer |
//! | `wrong_tokens` | delays for wrong tokens |
//! | `activity` | the actions through the dashboard |

pub(crate) mod activity;
pub(crate) mod gate;
pub(crate) mod headers;
mod invitation;
pub(crate) mod origin;
pub(crate) mod session;
pub(crate) mod visitor;
mod wrong_tokens;
