//! [`PageRequest`]: the parts of a request that pages need.

use std::sync::Arc;

use axum::{
    Extension, RequestPartsExt,
    extract::{FromRequest, FromRequestParts, RawPathParams, Request},
    response::{IntoResponse, Response},
};
use http::request::Parts;

use crate::{
    broker::{MessageOrigin, QueueOverview, ScheduleOverview},
    dashboard::{
        access::visitor::Visitor,
        form::Form,
        html::frame::Ui,
        server::{
            MAX_FORM, Pages,
            find::{self, DeadLetterPlace, Found, param},
            jobs::Job,
        },
    },
};

/// A request of a visitor about what its path names.
pub(super) struct PageRequest<T = ()> {
    pub(super) pages: Pages,
    pub(super) visitor: Visitor,
    /// The queue, the group, the message, the schedule or the job in the path.
    pub(super) target: T,
    /// The query string.
    pub(super) form: Form,
}

/// A request that sends a form. Its [`form`](PageRequest::form) is the body, not the query string.
pub(super) struct Posted<T = ()>(pub(super) PageRequest<T>);

/// The parts of a path that name something.
pub(super) trait Target: Sized {
    /// Finds it. `None` is answered with 404.
    fn find(pages: &Pages, params: &RawPathParams, form: &Form) -> impl Future<Output = Option<Self>> + Send;
}

impl Target for () {
    async fn find(_: &Pages, _: &RawPathParams, _: &Form) -> Option<Self> {
        Some(())
    }
}

impl Target for QueueOverview {
    async fn find(pages: &Pages, params: &RawPathParams, form: &Form) -> Option<Self> {
        find::queue(pages, params, form).await
    }
}

impl Target for Found {
    async fn find(pages: &Pages, params: &RawPathParams, form: &Form) -> Option<Self> {
        find::group(pages, params, form).await
    }
}

impl Target for DeadLetterPlace {
    async fn find(pages: &Pages, params: &RawPathParams, form: &Form) -> Option<Self> {
        let sequence = param(params, "sequence").parse().ok()?;
        find::group(pages, params, form).await.map(|found| Self { found, sequence })
    }
}

impl Target for MessageOrigin {
    async fn find(_: &Pages, params: &RawPathParams, _: &Form) -> Option<Self> {
        Self::parse(param(params, "id"))
    }
}

impl Target for ScheduleOverview {
    async fn find(pages: &Pages, params: &RawPathParams, _: &Form) -> Option<Self> {
        let (queue, name) = (param(params, "queue"), param(params, "name"));
        let all = pages.app.broker.schedules().await.ok()?;
        all.into_iter().find(|schedule| {
            (schedule.queue.as_str() == queue || schedule.queue_name == queue) && schedule.schedule.name == name
        })
    }
}

impl Target for Arc<Job> {
    async fn find(pages: &Pages, params: &RawPathParams, _: &Form) -> Option<Self> {
        pages.dashboard.jobs.find(param(params, "id"))
    }
}

impl PageRequest {
    async fn read(parts: &mut Parts, pages: &Pages) -> Result<Self, Response> {
        let Extension(visitor) = parts.extract().await.map_err(IntoResponse::into_response)?;
        let Ok(form) = parts.extract().await;
        Ok(Self { pages: pages.clone(), visitor, target: (), form })
    }
}

impl<T> PageRequest<T> {
    /// The frame of the answer.
    pub(super) fn ui(&self) -> Ui<'_> {
        Ui::new(&self.pages.dashboard.gate, &self.visitor)
    }

    async fn about<U: Target>(self, parts: &mut Parts) -> Result<PageRequest<U>, Response> {
        let params: RawPathParams = parts.extract().await.map_err(IntoResponse::into_response)?;
        match U::find(&self.pages, &params, &self.form).await {
            Some(target) => {
                let Self { pages, visitor, form, .. } = self;
                Ok(PageRequest { pages, visitor, target, form })
            }
            None => Err(self.ui().not_found()),
        }
    }
}

impl<T: Target> FromRequestParts<Pages> for PageRequest<T> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, pages: &Pages) -> Result<Self, Response> {
        PageRequest::read(parts, pages).await?.about(parts).await
    }
}

impl<T: Target> FromRequest<Pages> for Posted<T> {
    type Rejection = Response;

    async fn from_request(request: Request, pages: &Pages) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let mut read = PageRequest::read(&mut parts, pages).await?;
        read.form = match Form::read(body, MAX_FORM).await {
            Ok(form) => form,
            Err(_) => return Err(read.ui().bad_form()),
        };
        read.about(&mut parts).await.map(Self)
    }
}
