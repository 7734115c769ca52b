//! Functions of zero to eight arguments, and the arguments as a tuple.

use std::future::Future;

use super::FromDelivery;
use crate::worker::handler::{delivery::Delivery, error::HandlerError};

/// An async function or closure that [`handler_fn`](crate::worker::handler_fn) accepts. Implemented for every
/// function of up to eight arguments; `A` is the tuple of their types.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an async function of up to eight arguments",
    note = "needed is a function or closure that is `Send + Sync + 'static` and returns a future of `Result<(), HandlerError>`"
)]
pub trait HandlerFunction<A>: Send + Sync + 'static {
    /// The future that the function returns.
    type Future;

    /// Calls the function.
    #[doc(hidden)]
    fn call(&self, arguments: A) -> Self::Future;
}

/// The arguments of a function. Implemented for tuples of up to eight types that implement [`FromDelivery`].
pub trait Arguments<S>: Sized {
    /// Takes the arguments from the delivery, one after the other.
    #[doc(hidden)]
    fn take(delivery: Delivery, state: &S) -> impl Future<Output = Result<Self, HandlerError>> + Send;
}

impl<F, Fut> HandlerFunction<()> for F
where
    F: Fn() -> Fut + Send + Sync + 'static,
{
    type Future = Fut;

    fn call(&self, (): ()) -> Fut {
        self()
    }
}

impl<S: Sync> Arguments<S> for () {
    async fn take(_: Delivery, _: &S) -> Result<Self, HandlerError> {
        Ok(())
    }
}

macro_rules! arguments {
    ($($argument:ident)* ; $last:ident) => {
        impl<F, Fut, $($argument,)* $last> HandlerFunction<($($argument,)* $last,)> for F
        where
            F: Fn($($argument,)* $last) -> Fut + Send + Sync + 'static,
        {
            type Future = Fut;

            #[allow(non_snake_case)]
            fn call(&self, ($($argument,)* $last,): ($($argument,)* $last,)) -> Fut {
                self($($argument,)* $last)
            }
        }

        impl<S: Sync, $($argument: FromDelivery<S>,)* $last: FromDelivery<S>> Arguments<S> for ($($argument,)* $last,) {
            #[allow(non_snake_case)]
            async fn take(delivery: Delivery, state: &S) -> Result<Self, HandlerError> {
                $(let $argument = $argument::from_delivery(&delivery, state).await?;)*
                let $last = $last::from_owned(delivery, state).await?;
                Ok(($($argument,)* $last,))
            }
        }
    };
}

arguments!(; A1);
arguments!(A1; A2);
arguments!(A1 A2; A3);
arguments!(A1 A2 A3; A4);
arguments!(A1 A2 A3 A4; A5);
arguments!(A1 A2 A3 A4 A5; A6);
arguments!(A1 A2 A3 A4 A5 A6; A7);
arguments!(A1 A2 A3 A4 A5 A6 A7; A8);
