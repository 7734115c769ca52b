//! Extractors: types that a function of [`handler_fn`](crate::worker::handler_fn) takes from the delivery.
//!
//! | argument | value |
//! |---|---|
//! | [`Delivery`](crate::worker::Delivery) | the message with everything that is known about it |
//! | [`Json<T>`](Json) | the decoded body; if it cannot be decoded, the message is rejected |
//! | [`Body`](crate::message::Body) | the body as JSON text |
//! | [`State<T>`](State) | the state of the handler, or a part of it |
//! | [`Attributes`](crate::message::Attributes) | all attributes |
//! | [`TypedAttributes<T>`](TypedAttributes) | the attributes, decoded into a struct; if they do not fit, the message is rejected |
//! | [`MessageId`](crate::MessageId), or an `Option` of it | the id of the message; see [`Delivery::id`](crate::worker::Delivery::id) |
//! | [`Tags`] | the labels |
//! | [`Attempt`] | the number of the attempt |
//! | `Result<E, HandlerError>` | the extractor `E`, whose failure the function handles itself |
//! | a type of your own | whatever its [`FromDelivery`] returns |
//!
//! ```
//! use dms_worker::{
//!     Json, State,
//!     worker::extract::{Attempt, TypedAttributes},
//!     handler_fn,
//! };
//! use serde::Deserialize;
//!
//! #[derive(Deserialize)]
//! struct Order {
//!     id: u64,
//! }
//!
//! #[derive(Deserialize)]
//! struct Headers {
//!     customer: String,
//! }
//!
//! #[derive(Clone)]
//! struct Db;
//!
//! impl Db {
//!     async fn charge(&self, customer: &str, order: u64) -> Result<(), std::io::Error> {
//!         Ok(println!("{customer} pays for order {order}"))
//!     }
//! }
//!
//! let handler = handler_fn(
//!     |Json(order): Json<Order>, TypedAttributes(headers): TypedAttributes<Headers>, Attempt(attempt): Attempt, State(db): State<Db>| async move {
//!         println!("attempt {attempt}");
//!         db.charge(&headers.customer, order.id).await?;
//!         Ok(())
//!     },
//! )
//! .with_state(Db);
//! ```
//!
//! A type that is no extractor does not compile:
//!
//! ```compile_fail
//! # use dms_worker::{Client, Worker, handler_fn};
//! # fn worker(client: Client) {
//! struct Db;
//! Worker::builder(client).handler(handler_fn(|db: Db| async { Ok(()) }));
//! # }
//! ```

pub(super) mod arguments;
mod json;
mod parts;
mod state;

use std::future::Future;

pub use self::{
    arguments::{Arguments, HandlerFunction},
    json::Json,
    parts::{Attempt, Tags, TypedAttributes},
    state::{FromRef, State},
};
use super::{delivery::Delivery, error::HandlerError};

/// A type that can be an argument of a function of [`handler_fn`](crate::worker::handler_fn).
///
/// `S` is the state that [`with_state`](crate::worker::HandlerFn::with_state) sets.
///
/// ```
/// use dms_worker::{Delivery, FromDelivery, HandlerError, handler_fn};
///
/// /// The customer, from an attribute that every message of the queue must have.
/// struct Customer(String);
///
/// impl<S: Sync> FromDelivery<S> for Customer {
///     async fn from_delivery(delivery: &Delivery, _: &S) -> Result<Self, HandlerError> {
///         let customer = delivery.attribute("customer").ok_or_else(|| HandlerError::reject("no customer"))?;
///         Ok(Self(customer.into_owned()))
///     }
/// }
///
/// let handler = handler_fn(|Customer(customer): Customer| async move { Ok(println!("for {customer}")) });
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be taken from a delivery",
    label = "an argument of the handler has this type",
    note = "arguments are `Delivery`, `Json<T>`, `State<T>`, the other types in `dms_worker::worker::extract`, and types that \
            implement `FromDelivery`",
    note = "the decoded body is taken as `Json<{Self}>`; a value that the calls share, such as a database pool, as `State<{Self}>`, \
            and set with `handler_fn(…).with_state(…)`"
)]
pub trait FromDelivery<S>: Sized + Send {
    /// Takes the argument from the delivery and the handler's state.
    ///
    /// # Errors
    /// The error is the result of the handler, whose function is not called. Return [`HandlerError::reject`] if another
    /// attempt cannot help.
    ///
    /// # Cancel safety
    /// The future is dropped at the delivery's deadline.
    fn from_delivery(delivery: &Delivery, state: &S) -> impl Future<Output = Result<Self, HandlerError>> + Send;

    /// The same for the last argument of a function, which nothing else needs the delivery after.
    #[doc(hidden)]
    fn from_owned(delivery: Delivery, state: &S) -> impl Future<Output = Result<Self, HandlerError>> + Send
    where
        S: Sync,
    {
        async move { Self::from_delivery(&delivery, state).await }
    }
}

/// Leaves a failure of the extractor to the function.
impl<E: FromDelivery<S>, S: Sync> FromDelivery<S> for Result<E, HandlerError> {
    async fn from_delivery(delivery: &Delivery, state: &S) -> Result<Self, HandlerError> {
        Ok(E::from_delivery(delivery, state).await)
    }
}
