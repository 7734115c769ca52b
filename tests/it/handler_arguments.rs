//! Functions whose arguments are taken from the delivery by their types.

use std::sync::{Arc, Mutex};

use dms_worker::{
    Attributes, Delivery, FromDelivery, Handler, HandlerError, Json, Message, MessageId, NewQueue, State, handler_fn,
    message::Body,
    testing::TestServer,
    worker::{
        DeliveryBuilder, FailureKind, OnUndecodable,
        extract::{Attempt, FromRef, Tags, TypedAttributes},
    },
};
use serde::Deserialize;

#[derive(Debug, Deserialize, PartialEq)]
struct Order {
    id: u64,
}

/// The arguments that the handlers of a test received.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

fn order(id: u64) -> DeliveryBuilder {
    DeliveryBuilder::json(&serde_json::json!({ "id": id })).unwrap()
}

#[tokio::test]
async fn a_function_takes_the_body_the_state_and_the_delivery_by_type() {
    async fn charge(
        Json(order): Json<Order>,
        State(seen): State<Seen>,
        delivery: Delivery,
    ) -> Result<(), HandlerError> {
        seen.note(format!("{} of {}", order.id, delivery.queue()));
        Ok(())
    }
    let seen = Seen::default();
    let handler = handler_fn(charge).with_state(seen.clone());
    handler.handle(order(7).origin("orders", "billing").build()).await.unwrap();
    assert_eq!(seen.all(), ["7 of orders"]);
}

#[tokio::test]
async fn a_closure_takes_every_extractor_at_once() {
    let seen = Seen::default();
    let handler = handler_fn(
        |body: Body,
         Json(order): Json<Order>,
         attributes: Attributes,
         TypedAttributes(typed): TypedAttributes<Customer>,
         Tags(tags): Tags,
         Attempt(attempt): Attempt,
         State(seen): State<Seen>,
         delivery: Delivery| async move {
            assert_eq!((body.as_str(), &order), (r#"{"id":7}"#, &Order { id: 7 }));
            assert_eq!(attributes.get_str("customer").as_deref(), Some("c1"));
            assert_eq!((typed.customer, tags, attempt), ("c1".to_owned(), vec!["eu".to_owned()], 1));
            seen.note(delivery.group());
            Ok(())
        },
    )
    .with_state(seen.clone());
    handler.handle(order(7).attribute("customer", "c1").tag("eu").origin("orders", "billing").build()).await.unwrap();
    assert_eq!(seen.all(), ["billing"]);
}

#[derive(Deserialize)]
struct Customer {
    customer: String,
}

#[tokio::test]
async fn a_failed_extractor_is_the_result_and_the_function_is_not_called() {
    let called = Seen::default();
    let handler = handler_fn(|Json(_): Json<Order>, State(seen): State<Seen>| async move {
        seen.note("called");
        Ok(())
    })
    .with_state(called.clone());
    let error = handler.handle(DeliveryBuilder::json("no order").unwrap().build()).await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::Undecodable);

    let handler = handler_fn(|TypedAttributes(_): TypedAttributes<Customer>| async { Ok(()) });
    let error = handler.handle(order(7).build()).await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::Reject);
    assert!(error.to_string().contains("missing field `customer`"), "{error}");
    assert!(called.all().is_empty());
}

#[tokio::test]
async fn a_function_can_handle_the_failure_of_an_extractor_itself() {
    let seen = Seen::default();
    let handler = handler_fn(|order: Result<Json<Order>, HandlerError>, State(seen): State<Seen>| async move {
        seen.note(if order.is_ok() { "an order" } else { "something else" });
        Ok(())
    })
    .with_state(seen.clone());
    handler.handle(order(7).build()).await.unwrap();
    handler.handle(DeliveryBuilder::json("text").unwrap().build()).await.unwrap();
    assert_eq!(seen.all(), ["an order", "something else"]);
}

/// A state of two parts, and an extractor that needs one of them.
#[derive(Clone)]
struct App {
    seen: Seen,
    discount: u64,
}

impl FromRef<App> for Seen {
    fn from_ref(app: &App) -> Self {
        app.seen.clone()
    }
}

struct Price(u64);

impl FromDelivery<App> for Price {
    async fn from_delivery(delivery: &Delivery, app: &App) -> Result<Self, HandlerError> {
        tokio::task::yield_now().await; // an extractor can wait, for example for a database
        let Json(order) = Json::<Order>::from_delivery(delivery, app).await?;
        Ok(Self(order.id * 100 - app.discount))
    }
}

#[tokio::test]
async fn an_extractor_of_the_user_and_a_part_of_the_state_work_together() {
    let app = App { seen: Seen::default(), discount: 5 };
    let handler = handler_fn(|Price(price): Price, State(seen): State<Seen>| async move {
        seen.note(price.to_string());
        Ok(())
    })
    .with_state(app.clone());
    handler.handle(order(7).build()).await.unwrap();
    assert_eq!(app.seen.all(), ["695"]);
}

/// Without arguments, with a `?` of a foreign error, and as a clone.
#[tokio::test]
async fn a_function_needs_no_arguments_and_any_error_converts() {
    let handler = handler_fn(|| async {
        let _: u64 = "seven".parse()?;
        Ok(())
    });
    let error = handler.clone().handle(order(7).build()).await.unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (FailureKind::Retry, "invalid digit found in string"));
}

#[tokio::test(start_paused = true)]
async fn a_worker_rejects_what_its_function_cannot_decode() {
    let server = TestServer::start().await;
    let orders = server.group(NewQueue::new("orders").dead_letters_after(3), "billing").await;
    orders.send_messages([Message::json(&serde_json::json!({ "id": 7 })).unwrap(), Message::text("no order")]).await;
    let seen = Seen::default();
    let handler = handler_fn(|Json(order): Json<Order>, State(seen): State<Seen>| async move {
        seen.note(order.id.to_string());
        Ok(())
    })
    .with_state(seen.clone());
    let report = orders.run_worker(orders.worker(handler).on_undecodable(OnUndecodable::Reject)).await;
    assert_eq!((report.done, report.rejected), (1, 1), "{report:?}");
    assert_eq!(seen.all(), ["7"]);
    orders.assert_dead_lettered(["no order"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_function_takes_the_id_that_the_send_returned() {
    let server = TestServer::start().await;
    let orders = server.group(NewQueue::new("orders").dead_letters_after(3), "billing").await;
    let message = Message::json(&serde_json::json!({ "id": 7 })).unwrap();
    let options = dms_worker::SendOptions::new().return_ids(true);
    let sent = server.client().send_with(orders.queue_id(), &[message], options).await.unwrap().remove(0).unwrap();
    let seen = Seen::default();
    let handler = handler_fn(|Json(order): Json<Order>, State(seen): State<Seen>, id: MessageId| async move {
        seen.note(format!("{} {}", order.id, id.as_str()));
        Ok(())
    });
    orders.run(handler.with_state(seen.clone())).await;
    assert_eq!(seen.all(), [format!("7 {}", sent.id.unwrap().as_str())]);
}

#[tokio::test]
async fn a_message_without_an_id_is_rejected_unless_the_id_is_optional() {
    let needed = handler_fn(|_: MessageId| async { Ok(()) });
    assert_eq!(needed.handle(order(7).build()).await.unwrap_err().kind(), FailureKind::Reject);
    let optional = handler_fn(|id: Option<MessageId>| async move {
        assert_eq!(id, None);
        Ok(())
    });
    optional.handle(order(7).build()).await.unwrap();
}
