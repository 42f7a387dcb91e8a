//! When a failed try of a request is retried.

use std::time::Duration;

use http::{Method, StatusCode};

use crate::entity::retry as entity;
use crate::entity::upstream::RetryBudget;

/// The retry settings of a service or a route. A setting of the route takes precedence over that of
/// the service, and both over the default.
#[derive(Debug, Clone, Default)]
pub struct Retry {
    statuses: Option<Vec<u16>>,
    methods: Option<Vec<Method>>,
    per_try_timeout: Option<Duration>,
    budget_percent: Option<f64>,
    min_retry_concurrency: Option<u32>,
}

impl Retry {
    /// Reads the settings of the entity.
    pub fn of(retry: &entity::Retry) -> Self {
        let methods = retry.methods.iter().flatten();
        // The Admin API accepts only valid methods.
        let methods = methods.filter_map(|method| method.parse().ok()).collect();
        Self {
            statuses: retry.statuses.clone(),
            methods: retry.methods.is_some().then_some(methods),
            per_try_timeout: retry.per_try_timeout.map(Duration::from_millis),
            budget_percent: retry.budget_percent,
            min_retry_concurrency: retry.min_retry_concurrency,
        }
    }
}

/// The retry settings of one request: those of the route take precedence over those of the service.
#[derive(Clone, Copy)]
pub(crate) struct Repeats<'a> {
    pub(crate) route: &'a Retry,
    pub(crate) service: &'a Retry,
}

impl Repeats<'_> {
    /// Whether a response with this status is discarded and the request retried, while tries are
    /// left.
    pub(crate) fn unwanted(self, status: StatusCode) -> bool {
        let statuses = self
            .route
            .statuses
            .as_ref()
            .or(self.service.statuses.as_ref());
        statuses.is_some_and(|statuses| statuses.contains(&status.as_u16()))
    }

    /// Whether a request of this method may be sent twice. Source: nginx, which considers every
    /// method idempotent except these three, including unknown methods.
    pub(crate) fn is_idempotent(self, method: &Method) -> bool {
        let methods = self
            .route
            .methods
            .as_ref()
            .or(self.service.methods.as_ref());
        match methods {
            Some(methods) => methods.contains(method),
            None => {
                *method != Method::POST && *method != Method::PATCH && method.as_str() != "LOCK"
            }
        }
    }

    /// The retry budget of the request. `budget` is that of the upstream.
    pub(crate) fn budget(self, budget: RetryBudget) -> RetryBudget {
        let (route, service) = (self.route, self.service);
        let percent = route.budget_percent.or(service.budget_percent);
        let least = route
            .min_retry_concurrency
            .or(service.min_retry_concurrency);
        RetryBudget {
            budget_percent: percent.unwrap_or(budget.budget_percent),
            min_retry_concurrency: least.unwrap_or(budget.min_retry_concurrency),
        }
    }

    /// The timeout of each try, until the head of the response is received.
    pub(crate) fn per_try_timeout(self) -> Option<Duration> {
        self.route.per_try_timeout.or(self.service.per_try_timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_of_a_route_come_before_those_of_its_service_and_nginx_is_the_default() {
        let none = Retry::default();
        let service = Retry {
            statuses: Some(vec![503]),
            methods: Some(vec![Method::POST]),
            ..Retry::default()
        };
        let kong = Repeats {
            route: &none,
            service: &none,
        };
        assert!(kong.is_idempotent(&Method::PUT) && !kong.is_idempotent(&Method::POST));
        assert!(!kong.unwanted(StatusCode::SERVICE_UNAVAILABLE));
        let ours = Repeats {
            route: &none,
            service: &service,
        };
        assert!(ours.is_idempotent(&Method::POST) && !ours.is_idempotent(&Method::GET));
        assert!(ours.unwanted(StatusCode::SERVICE_UNAVAILABLE));
        let route = Retry {
            statuses: Some(Vec::new()),
            ..Retry::default()
        };
        let off = Repeats {
            route: &route,
            service: &service,
        };
        assert!(!off.unwanted(StatusCode::SERVICE_UNAVAILABLE));
    }

    #[test]
    fn each_part_of_the_budget_is_the_first_that_is_set() {
        let upstream = RetryBudget {
            budget_percent: 20.0,
            min_retry_concurrency: 3,
        };
        let service = Retry {
            budget_percent: Some(0.0),
            min_retry_concurrency: Some(5),
            ..Retry::default()
        };
        let route = Retry {
            budget_percent: Some(50.0),
            ..Retry::default()
        };
        let of = |route, service| {
            let budget = Repeats { route, service }.budget(upstream);
            (budget.budget_percent, budget.min_retry_concurrency)
        };
        let none = Retry::default();
        assert_eq!(of(&none, &none), (20.0, 3));
        assert_eq!(of(&none, &service), (0.0, 5));
        assert_eq!(of(&route, &service), (50.0, 5));
    }
}
