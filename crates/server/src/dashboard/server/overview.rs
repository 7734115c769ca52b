//! `/ui/`: all queues and groups.

use axum::{Extension, extract::State, response::Response};
use maud::html;

use crate::dashboard::{access::visitor::Visitor, html::frame::Ui, server::Pages};

/// `GET /ui/`.
pub(super) async fn show(State(pages): State<Pages>, Extension(visitor): Extension<Visitor>) -> Response {
    let ui = Ui::new(&pages.gate, &visitor);
    let body = html! {
        h1 { (ui.t.overview) }
        table {
            @for queue in pages.app.broker.overview() { tr { td { (queue.queue.name) } } }
        }
    };
    ui.page(ui.t.overview, "/", &body)
}
