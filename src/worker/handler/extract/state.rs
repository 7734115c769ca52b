//! [`State`]: what all calls of a handler share.

use super::FromDelivery;
use crate::worker::handler::{delivery::Delivery, error::HandlerError};

/// A clone of the handler's state, or of a part of it, which [`with_state`](crate::worker::HandlerFn::with_state) sets.
///
/// A part implements [`FromRef`], so that one state serves functions that need different parts:
///
/// ```
/// use dms_worker::{State, handler_fn, worker::extract::FromRef};
///
/// #[derive(Clone)]
/// struct Db;
/// #[derive(Clone)]
/// struct Mail;
///
/// #[derive(Clone)]
/// struct App {
///     db: Db,
///     mail: Mail,
/// }
///
/// impl FromRef<App> for Db {
///     fn from_ref(app: &App) -> Self {
///         app.db.clone()
///     }
/// }
///
/// let handler = handler_fn(|State(db): State<Db>| async move { Ok(()) }).with_state(App { db: Db, mail: Mail });
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State<T>(pub T);

/// A part of a handler's state. Every type that is `Clone` is a part of itself.
#[diagnostic::on_unimplemented(
    message = "the state of the handler, `{S}`, has no `{Self}`",
    label = "a `State<{Self}>` argument needs it",
    note = "set the state with `handler_fn(…).with_state(…)`: a `{Self}` that is `Clone`, or a type `App` for which \
            `impl FromRef<App> for {Self}` exists"
)]
pub trait FromRef<S> {
    /// Takes the part from the state.
    fn from_ref(state: &S) -> Self;
}

impl<T: Clone> FromRef<T> for T {
    fn from_ref(state: &T) -> Self {
        state.clone()
    }
}

impl<T: FromRef<S> + Send, S: Sync> FromDelivery<S> for State<T> {
    async fn from_delivery(_: &Delivery, state: &S) -> Result<Self, HandlerError> {
        Ok(Self(T::from_ref(state)))
    }
}
