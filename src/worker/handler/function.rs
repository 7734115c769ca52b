//! [`handler_fn`]: async functions as handlers, with arguments that are taken from the delivery.

use std::{fmt, future::Future, marker::PhantomData};

use async_trait::async_trait;

use super::{
    Handler,
    delivery::Delivery,
    error::HandlerError,
    extract::arguments::{Arguments, HandlerFunction},
};

/// Makes a handler from an async function or closure of up to eight arguments.
///
/// Each argument is taken from the delivery by its type, which implements [`FromDelivery`](crate::worker::extract::FromDelivery):
/// the [`Delivery`] itself, the decoded body ([`Json`](crate::worker::extract::Json)), the shared state
/// ([`State`](crate::worker::extract::State)), and [others](crate::worker::extract). The arguments of a closure need
/// their types, as in `|delivery: Delivery|`.
///
/// ```
/// use dms_worker::{Delivery, Json, State, handler_fn};
///
/// #[derive(Clone)]
/// struct Db;
///
/// #[derive(serde::Deserialize)]
/// struct Order {
///     id: u64,
/// }
///
/// let handler = handler_fn(|Json(order): Json<Order>, State(db): State<Db>, delivery: Delivery| async move {
///     println!("order {}, attempt {}", order.id, delivery.attempt());
///     Ok(())
/// })
/// .with_state(Db);
/// ```
///
/// The future resolves to `Result<(), HandlerError>`:
///
/// ```compile_fail
/// # use dms_worker::{Delivery, handler_fn};
/// let handler = handler_fn(|delivery: Delivery| async move { println!("{:?}", delivery.body()) });
/// ```
pub fn handler_fn<F, A>(function: F) -> HandlerFn<F, A>
where
    F: HandlerFunction<A>,
    F::Future: Future<Output = Result<(), HandlerError>> + Send,
{
    HandlerFn { function, state: (), arguments: PhantomData }
}

/// A handler made from a function by [`handler_fn`].
pub struct HandlerFn<F, A, S = ()> {
    function: F,
    state: S,
    arguments: PhantomData<fn(A)>,
}

impl<F, A> HandlerFn<F, A> {
    /// Sets the state from which [`State`](crate::worker::extract::State) arguments are cloned.
    ///
    /// Use an `Arc`, a pool or another handle that is cheap to clone, because each message gets its own clone. A
    /// handler with a `State` argument and without this state does not compile:
    ///
    /// ```compile_fail
    /// # use dms_worker::{Client, State, Worker, handler_fn};
    /// # fn worker(client: Client) {
    /// # #[derive(Clone)]
    /// # struct Db;
    /// Worker::builder(client).handler(handler_fn(|State(db): State<Db>| async { Ok(()) }));
    /// # }
    /// ```
    pub fn with_state<S>(self, state: S) -> HandlerFn<F, A, S> {
        HandlerFn { function: self.function, state, arguments: PhantomData }
    }
}

impl<F: Clone, A, S: Clone> Clone for HandlerFn<F, A, S> {
    fn clone(&self) -> Self {
        Self { function: self.function.clone(), state: self.state.clone(), arguments: PhantomData }
    }
}

impl<F, A, S> fmt::Debug for HandlerFn<F, A, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HandlerFn")
    }
}

#[async_trait]
impl<F, A, S> Handler for HandlerFn<F, A, S>
where
    F: HandlerFunction<A>,
    F::Future: Future<Output = Result<(), HandlerError>> + Send,
    A: Arguments<S> + Send + 'static,
    S: Send + Sync + 'static,
{
    async fn handle(&self, delivery: Delivery) -> Result<(), HandlerError> {
        let arguments = A::take(delivery, &self.state).await?;
        self.function.call(arguments).await
    }
}
