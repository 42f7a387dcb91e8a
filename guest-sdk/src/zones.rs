//! Endpoints that are preferred to others by a label, such as those of a zone.

use crate::{Column, Endpoints};

/// Prefers the endpoints that have a label. `T` is what a balancer keeps of a table; there is one
/// for the preferred endpoints and one for the others, and the balancer chooses among each as if
/// they were its whole table.
///
/// ```
/// # use guest_sdk::{Balancer, Endpoint, Endpoints, Entropy, Lottery, Request, Zones};
/// #[derive(Default)]
/// struct Nearby(Zones<Lottery>);
///
/// impl Balancer for Nearby {
///     fn configure(&mut self, _config: &str) -> Result<(), String> {
///         self.0.configure(Some("zone:a"), Some(8.0))
///     }
///
///     fn endpoints_changed(&mut self, endpoints: &Endpoints) {
///         self.0.endpoints_changed(endpoints, |part, _| Lottery::new(part));
///     }
///
///     fn pick(&mut self, request: &Request, endpoints: &Endpoints) -> Option<usize> {
///         let mut entropy = Entropy::of(request);
///         self.0.pick(endpoints, |lottery, _| lottery.draw(&mut entropy))
///     }
/// }
/// ```
#[derive(Debug, Default)]
pub struct Zones<T> {
    /// Key and value of the label.
    label: Option<(String, String)>,
    spill_at: Option<f64>,
    /// Of the preferred endpoints; of the whole table if it is not split.
    preferred: T,
    split: Option<Split<T>>,
    /// Whether the log says that no endpoint of the table has the label.
    is_told: bool,
}

#[derive(Debug)]
struct Split<T> {
    /// The preferred endpoints, and the others.
    parts: [Endpoints; 2],
    others: T,
    /// Mean weight of all endpoints.
    weight: f64,
}

impl<T: Default> Zones<T> {
    /// Sets the label of the preferred endpoints, such as `zone:a`, and how many requests in flight
    /// a preferred endpoint has when a request may go to another one. Without a label no endpoint
    /// is preferred; without `spill_at`, the others get requests only if there is no preferred one.
    ///
    /// # Errors
    ///
    /// A sentence for the operator if `spill_at` is set without a label, or one of the two is
    /// invalid.
    pub fn configure(&mut self, prefer: Option<&str>, spill_at: Option<f64>) -> Result<(), String> {
        let label = prefer.map(|label| label.split_once(':').unwrap_or((label, "")));
        if label.is_some_and(|(key, _)| key.is_empty()) {
            return Err(
                "prefer must be a label, such as zone:a for targets with the tag zone:a, or canary for \
                 those with the tag canary"
                    .into(),
            );
        }
        if spill_at.is_some() && label.is_none() {
            return Err("spill_at needs prefer: without it no endpoint is preferred".into());
        }
        if spill_at.is_some_and(|limit| !(limit > 0.0 && limit.is_finite())) {
            return Err("spill_at must be above 0".into());
        }
        self.label = label.map(|(key, value)| (key.into(), value.into()));
        self.spill_at = spill_at;
        Ok(())
    }

    /// Takes a new table. `make` gets each part of it, and what the balancer kept of that part
    /// before. If no endpoint has the label, it logs that once; again only after a table that is
    /// empty or has such an endpoint. To be called in
    /// [`Balancer::endpoints_changed`](crate::Balancer::endpoints_changed), since labels are known
    /// only there.
    pub fn endpoints_changed(
        &mut self,
        endpoints: &Endpoints,
        mut make: impl FnMut(&Endpoints, T) -> T,
    ) {
        let preferred = std::mem::take(&mut self.preferred);
        let others = self
            .split
            .take()
            .map_or_else(T::default, |split| split.others);
        let parts = self.label.as_ref().and_then(|(key, value)| {
            let has = |position| endpoints.label(position, key).as_ref() == Some(value);
            endpoints.split(has)
        });
        let missing = match parts {
            None => self.missing(endpoints),
            Some(_) => None,
        };
        if let Some(label) = missing.as_ref().filter(|_| !self.is_told) {
            crate::warn!(
                "prefer: no endpoint that can get requests has the label {label}, so that all get them"
            );
        }
        self.is_told = missing.is_some();
        let Some(parts) = parts else {
            self.preferred = make(endpoints, preferred);
            return;
        };
        self.preferred = make(&parts[0], preferred);
        let weights = endpoints.iter().map(|endpoint| f64::from(endpoint.weight));
        self.split = Some(Split {
            others: make(&parts[1], others),
            weight: weights.sum::<f64>() / endpoints.len().max(1) as f64,
            parts,
        });
    }

    /// The label, if there are endpoints and none of them has it.
    fn missing(&self, endpoints: &Endpoints) -> Option<String> {
        let (key, value) = self.label.as_ref()?;
        let mut positions = 0..endpoints.len();
        let is_there =
            positions.any(|position| endpoints.label(position, key).as_ref() == Some(value));
        let is_missing = !is_there && !endpoints.is_empty();
        is_missing.then(|| match value.as_str() {
            "" => key.clone(),
            value => format!("{key}:{value}"),
        })
    }

    /// Picks a position of the whole table. `choose` picks one of a part; it may be called for each
    /// part.
    #[inline]
    pub fn pick(
        &mut self,
        endpoints: &Endpoints,
        mut choose: impl FnMut(&mut T, &Endpoints) -> Option<usize>,
    ) -> Option<usize> {
        if self.split.is_none() {
            return choose(&mut self.preferred, endpoints);
        }
        self.pick_of_parts(endpoints, choose)
    }

    /// Picks a position of a table that is split. Out of line, so that a pick of a table that is
    /// not is as short as without zones.
    #[inline(never)]
    fn pick_of_parts(
        &mut self,
        endpoints: &Endpoints,
        mut choose: impl FnMut(&mut T, &Endpoints) -> Option<usize>,
    ) -> Option<usize> {
        let split = self.split.as_mut()?;
        let [near, far] = &mut split.parts;
        near.read_load_of(endpoints);
        let preferred = near.in_whole(choose(&mut self.preferred, near)?);
        let Some(limit) = self.spill_at else {
            return Some(preferred);
        };
        let busy = |position: usize, in_flight: u32| {
            f64::from(in_flight) * split.weight / f64::from(endpoints[position].weight.max(1))
        };
        let [[in_flight, _], _] = endpoints.look([Column::InFlight; 2], [preferred; 2]);
        let preferred_busy = busy(preferred, in_flight);
        if preferred_busy < limit {
            return Some(preferred);
        }
        far.read_load_of(endpoints);
        let other = far.in_whole(choose(&mut split.others, far)?);
        let [[in_flight, _], _] = endpoints.look([Column::InFlight; 2], [other; 2]);
        let less = busy(other, in_flight) < preferred_busy;
        Some(if less { other } else { preferred })
    }

    /// What the balancer keeps of each part: of the preferred endpoints first.
    pub fn parts(&self) -> impl Iterator<Item = &T> {
        let others = self.split.as_ref().map(|split| &split.others);
        std::iter::once(&self.preferred).chain(others)
    }

    /// What the balancer keeps of each part, to be changed: of the preferred endpoints first.
    pub fn parts_mut(&mut self) -> impl Iterator<Item = &mut T> {
        let others = self.split.as_mut().map(|split| &mut split.others);
        std::iter::once(&mut self.preferred).chain(others)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Endpoint;

    fn zones(prefer: Option<&str>, spill_at: Option<f64>) -> Zones<()> {
        let mut zones = Zones::default();
        zones.configure(prefer, spill_at).unwrap();
        zones
    }

    /// A table of equal endpoints, of which some are in zone a.
    fn table(in_a: &[bool], busy: &[u32]) -> Endpoints {
        let rows = (1..).zip(in_a).map(|(id, _)| Endpoint { id, weight: 7 });
        let table = Endpoints::new(rows.collect()).with_column(Column::InFlight, busy);
        let zone = |in_a: &bool| if *in_a { "a" } else { "b" };
        let zones = in_a.iter().map(zone).enumerate();
        zones.fold(table, |table, (position, zone)| {
            table.with_label(position, "zone", zone)
        })
    }

    /// The least busy one.
    fn least(_: &mut (), part: &Endpoints) -> Option<usize> {
        (0..part.len()).min_by_key(|position| part.in_flight(*position))
    }

    #[test]
    fn settings_that_cannot_be_are_refused() {
        let refused =
            |prefer, spill_at| Zones::<()>::default().configure(prefer, spill_at).is_err();
        assert!(refused(None, Some(1.0)) && refused(Some(":a"), None));
        assert!(refused(Some("zone:a"), Some(0.0)) && refused(Some("a"), Some(f64::NAN)));
        assert!(!refused(Some("zone:a"), Some(0.5)) && !refused(Some("canary"), None));
    }

    #[test]
    fn a_label_that_no_endpoint_has_is_logged_once() {
        let mut zones = zones(Some("zone:c"), None);
        let mut told = |zones_of: &[bool]| {
            let table = table(zones_of, &vec![0; zones_of.len()]);
            let missing = zones.missing(&table);
            let is_new = missing.is_some() && !zones.is_told;
            zones.endpoints_changed(&table, |_, ()| ());
            (missing, is_new)
        };
        let missing = Some("zone:c".to_owned());
        assert_eq!(told(&[]), (None, false));
        assert_eq!(told(&[true, false]), (missing.clone(), true));
        assert_eq!(told(&[true, true]), (missing.clone(), false));
        // After a table without endpoints it is told again.
        assert_eq!(told(&[]), (None, false));
        assert_eq!(told(&[false]), (missing, true));
        let zones = super::tests::zones(Some("zone:a"), None);
        assert_eq!(zones.missing(&table(&[true, true], &[0, 0])), None);
        assert_eq!(zones.missing(&table(&[false, true], &[0, 0])), None);
    }

    proptest! {
        #[test]
        fn a_request_leaves_its_zone_only_to_a_less_busy_endpoint_and_only_from_the_limit_on(
            endpoints in prop::collection::vec((any::<bool>(), 0_u32..9), 1..9),
            prefers: bool,
            spill_at in prop::option::of(1_u32..6),
        ) {
            let (in_a, busy): (Vec<bool>, Vec<u32>) = endpoints.into_iter().unzip();
            let spill_at = spill_at.filter(|_| prefers);
            let mut zones = zones(prefers.then_some("zone:a"), spill_at.map(f64::from));
            let table = table(&in_a, &busy);
            zones.endpoints_changed(&table, |_, ()| ());
            let chosen = zones.pick(&table, least).unwrap();
            let least_of = |wanted: &dyn Fn(usize) -> bool| {
                (0..busy.len()).filter(|p| wanted(*p)).map(|p| busy[p]).min()
            };
            let (all, near) = (least_of(&|_| true).unwrap(), least_of(&|p| in_a[p]));
            let expected = match near.filter(|_| prefers) {
                None => all,
                Some(near) if spill_at.is_some_and(|limit| near >= limit) => near.min(all),
                Some(near) => near,
            };
            prop_assert_eq!(busy[chosen], expected);
            if near == Some(busy[chosen]) && prefers {
                prop_assert!(in_a[chosen], "an endpoint elsewhere is not less busy");
            }
        }
    }
}
