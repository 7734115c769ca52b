//! Log lines about one message, which all name it in the same way.

/// Logs a line with the worker, the queue, the group, the id and the attempt of a delivery. The fields are read only if the line is
/// logged.
macro_rules! log_message {
    ($level:ident, $delivery:expr, $($rest:tt)*) => {
        tracing::$level!(
            worker = $delivery.origin().worker(),
            queue = $delivery.queue(),
            group = $delivery.group(),
            message_id = $delivery.id().as_ref().map($crate::message::MessageId::as_str),
            attempt = $delivery.attempt(),
            $($rest)*
        )
    };
}

pub(crate) use log_message;
