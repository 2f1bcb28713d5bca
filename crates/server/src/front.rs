//! What a connection's requests come to: executions directly, all others through the router.
//!
//! An execution is by far the most common request, and the smallest ones pay for every box and clone on their way. The
//! router's layers, which each request of it goes through, took 7 % of the processor time of an execution for one
//! recipient with all that follows from it.

use crate::api::{self, Api};
use crate::metrics::Metrics;
use axum::Router;
use axum::body::Body;
use axum::response::Response;
use futures_util::future::BoxFuture;
use http::{Method, Request};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::time::Instant;

/// The service of all connections.
#[derive(Clone)]
pub struct Front {
    router: TowerToHyperService<Router>,
    executions: Option<(Arc<Api>, Metrics)>,
}

impl Front {
    /// With executions taken directly, and counted as the router's requests are.
    pub fn with_executions(router: Router, api: Arc<Api>, metrics: Metrics) -> Self {
        Self { executions: Some((api, metrics)), ..Self::from(router) }
    }
}

impl From<Router> for Front {
    fn from(router: Router) -> Self {
        Self { router: TowerToHyperService::new(router), executions: None }
    }
}

impl Service<Request<Incoming>> for Front {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let route = match *request.method() {
            Method::POST => api::execution_route(request.uri().path()),
            _ => None,
        };
        match (&self.executions, route) {
            (Some((api, metrics)), Some((route, priority))) => {
                let (api, metrics) = (Arc::clone(api), metrics.clone());
                Box::pin(async move {
                    let started = Instant::now();
                    let response = api::execute_directly(api, priority, request.map(Body::new)).await;
                    metrics.count(route, response.status().as_u16(), started);
                    Ok(response)
                })
            }
            _ => Box::pin(self.router.call(request)),
        }
    }
}
