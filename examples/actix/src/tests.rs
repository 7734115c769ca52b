use actix_web::{App, test, web};
use dms_worker::{NewQueue, testing::TestServer};

use super::{Order, order, producer};

#[actix_web::test]
async fn an_order_is_stored_before_it_is_answered() {
    let server = TestServer::start().await;
    let group = server.group(NewQueue::new("orders"), "billing").await;
    let producer = producer(server.client()).await.expect("the queue is there");
    let app = test::init_service(App::new().app_data(web::Data::new(producer)).service(order)).await;

    let post = |body: &'static str| test::TestRequest::post().uri("/orders").set_payload(body).to_request();
    let answer = test::call_service(&app, post(r#"{"id": 1, "cents": 250}"#)).await;
    assert_eq!(answer.status(), 202);
    assert!(!test::read_body(answer).await.is_empty(), "the id of the message");
    assert_eq!(test::call_service(&app, post("no order")).await.status(), 400);

    let stored: Vec<Order> = group.waiting().await;
    assert_eq!(stored.iter().map(|stored| (stored.id, stored.cents)).collect::<Vec<_>>(), [(1, 250)]);
}
