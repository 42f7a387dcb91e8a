//! What turns a [`Balancer`] into a component.

use crate::__private::Description;
use crate::{Balancer, Endpoint, Endpoints, Request};

/// Makes a component of a [`Balancer`](crate::Balancer).
///
/// The component's exports exist for WebAssembly only, so that the same crate links natively for its
/// tests.
#[macro_export]
macro_rules! export {
    ($balancer:ty) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            ::std::thread_local! {
                static SLOT: ::std::cell::RefCell<$crate::__private::Slot<$balancer>> =
                    ::std::default::Default::default();
            }
            struct Component;
            impl $crate::__private::Guest for Component {
                fn describe() -> $crate::__private::Description {
                    $crate::__private::describe::<$balancer>(
                        env!("CARGO_PKG_NAME"),
                        env!("CARGO_PKG_VERSION"),
                    )
                }
                fn configure(config: String) -> Result<(), String> {
                    SLOT.with_borrow_mut(|slot| slot.configure(&config))
                }
                fn endpoints_changed(endpoints: Vec<$crate::Endpoint>) {
                    SLOT.with_borrow_mut(|slot| slot.endpoints_changed(endpoints))
                }
                fn pick(request: $crate::Request) -> Option<u32> {
                    SLOT.with_borrow_mut(|slot| slot.pick(&request))
                }
                fn pick_by_load(request: $crate::Request, load: Vec<u32>) -> Option<u32> {
                    SLOT.with_borrow_mut(|slot| slot.pick_by_load(&request, load))
                }
            }
            $crate::__private::export!(Component with_types_in $crate::bindings);
        };
        // Natively there is nothing to export; the bound is checked all the same.
        #[cfg(not(target_family = "wasm"))]
        const _: fn() -> $balancer = $crate::__private::new::<$balancer>;
    };
}

/// Makes a balancer; its type in a constant checks the bound.
pub fn new<B: Balancer>() -> B {
    B::default()
}

/// What a balancer says about itself, with the name and version of its crate.
pub fn describe<B: Balancer>(name: &str, version: &str) -> Description {
    Description {
        name: name.into(),
        version: version.into(),
        config_schema: B::CONFIG_SCHEMA.into(),
        columns: B::COLUMNS.iter().map(|c| c.name().into()).collect(),
    }
}

/// A balancer beside the table that it chooses from.
#[derive(Debug)]
pub struct Slot<B> {
    balancer: B,
    endpoints: Endpoints,
}

impl<B: Balancer> Default for Slot<B> {
    fn default() -> Self {
        Self {
            balancer: B::default(),
            endpoints: Endpoints {
                columns: B::COLUMNS,
                ..Endpoints::default()
            },
        }
    }
}

impl<B: Balancer> Slot<B> {
    /// See [`Balancer::configure`].
    pub fn configure(&mut self, config: &str) -> Result<(), String> {
        self.balancer.configure(config)
    }

    /// See [`Balancer::endpoints_changed`].
    pub fn endpoints_changed(&mut self, table: Vec<Endpoint>) {
        self.endpoints.table = table;
        self.balancer.endpoints_changed(&self.endpoints);
    }

    /// See [`Balancer::pick`].
    pub fn pick(&mut self, request: &Request) -> Option<u32> {
        let position = self.balancer.pick(request, &self.endpoints)?;
        u32::try_from(position).ok()
    }

    /// As `pick`, with the columns that the balancer asked for.
    pub fn pick_by_load(&mut self, request: &Request, load: Vec<u32>) -> Option<u32> {
        self.endpoints.load = load;
        self.pick(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Column;

    #[derive(Default)]
    struct Least;

    impl Balancer for Least {
        const COLUMNS: &'static [Column] = &[Column::InFlight];

        fn pick(&mut self, _: &Request, endpoints: &Endpoints) -> Option<usize> {
            (0..endpoints.len()).min_by_key(|&position| endpoints.in_flight(position))
        }
    }

    crate::export!(Least);

    #[test]
    fn a_slot_hands_the_columns_to_the_balancer() {
        let mut slot = Slot::<Least>::default();
        slot.endpoints_changed(vec![
            Endpoint { id: 1, weight: 1 },
            Endpoint { id: 2, weight: 1 },
        ]);
        let request = Request {
            entropy: 0,
            now: 0,
            affinity: None,
            attempt: 0,
        };
        assert_eq!(slot.pick_by_load(&request, vec![4, 2]), Some(1));
        assert_eq!(slot.pick_by_load(&request, vec![1, 2]), Some(0));
    }

    #[test]
    fn the_description_names_the_columns() {
        let description = describe::<Least>("least", "1.2.3");
        assert_eq!(description.columns, ["in-flight"]);
        assert_eq!(description.name, "least");
    }
}
