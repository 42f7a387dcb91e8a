//! Single values of `GET /metrics`.

use super::Gateway;

/// The value of the first sample that starts with this text.
pub(crate) fn metric(gateway: &Gateway, start: &str) -> f64 {
    let page = gateway.admin("GET", "/metrics", &[]).expect(200).text();
    let row = page.lines().find(|line| line.starts_with(start));
    let row = row.unwrap_or_else(|| panic!("no {start} in {page}"));
    row.rsplit(' ').next().unwrap().parse().unwrap()
}

pub(crate) fn in_flight(gateway: &Gateway) -> f64 {
    metric(gateway, "pointsman_endpoint_in_flight{")
}

pub(crate) fn active_connections(gateway: &Gateway) -> f64 {
    let page = gateway.admin("GET", "/metrics", &[]).expect(200).text();
    let row = page.lines().find(|line| {
        line.starts_with("kong_nginx_connections_total{") && line.contains("state=\"active\"")
    });
    row.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
}
