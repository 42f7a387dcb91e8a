use super::__private::{Slot, describe};
use super::*;

#[derive(Default)]
struct LeastInFlight;

impl Balancer for LeastInFlight {
    const COLUMNS: &'static [Column] = &[Column::InFlight];

    fn pick(&mut self, _request: &Request, endpoints: &Endpoints) -> Option<usize> {
        (0..endpoints.len()).min_by_key(|&position| endpoints.in_flight(position))
    }
}

/// Reads a column that is not in its `COLUMNS`.
#[derive(Default)]
struct Forgetful;

impl Balancer for Forgetful {
    fn pick(&mut self, _request: &Request, endpoints: &Endpoints) -> Option<usize> {
        Some(endpoints.in_flight(0) as usize)
    }
}

/// Always returns the position that its settings have.
#[derive(Default)]
struct Fixed(usize);

impl Balancer for Fixed {
    fn configure(&mut self, config: &str) -> Result<(), String> {
        self.0 = config
            .parse()
            .map_err(|error| format!("{config}: {error}"))?;
        Ok(())
    }

    fn pick(&mut self, _request: &Request, _endpoints: &Endpoints) -> Option<usize> {
        Some(self.0)
    }
}

export!(LeastInFlight);

fn table(length: u64) -> Vec<Endpoint> {
    (0..length).map(|id| Endpoint { id, weight: 100 }).collect()
}

#[test]
fn a_balancer_without_columns_asks_for_none() {
    let description = describe::<Fixed>("fixed", "1.2.3");
    assert_eq!(description.name, "fixed");
    assert_eq!(description.version, "1.2.3");
    assert!(description.columns.is_empty());
}

#[test]
fn columns_are_asked_for_by_their_names() {
    assert_eq!(describe::<LeastInFlight>("", "").columns, ["in-flight"]);
}

#[test]
fn columns_of_names_are_read_like_others() {
    let endpoints = Endpoints::new(table(2)).with_column(Column::Reported("gpu"), &[500, 0]);
    assert_eq!(endpoints.column(Column::Reported("gpu")), [500, 0]);
    let columns = [Column::Reported("gpu"), Column::Reported("other")];
    assert_eq!(endpoints.look(columns, [0, 1]), [[500, 0], [0, 0]]);
    assert_eq!(columns[0].name(), "reported:gpu");
}

#[test]
fn load_is_read_by_position() {
    let mut slot = Slot::<LeastInFlight>::default();
    slot.endpoints_changed(table(3));
    assert_eq!(
        slot.pick_by_load(&Request::default(), vec![5, 4, 6]),
        Some(1)
    );
    assert_eq!(
        slot.pick_by_load(&Request::default(), vec![5, 4, 3]),
        Some(2)
    );
}

#[test]
fn a_test_sets_the_load_with_with_column() {
    let endpoints = Endpoints::new(table(3)).with_column(Column::InFlight, &[5, 4, 6]);
    assert_eq!(LeastInFlight.pick(&Request::default(), &endpoints), Some(1));
}

#[test]
#[should_panic(expected = "name Column::InFlight in Balancer::COLUMNS")]
fn a_column_that_was_not_asked_for_panics_with_its_name() {
    let mut slot = Slot::<Forgetful>::default();
    slot.endpoints_changed(table(3));
    slot.pick(&Request::default());
}

#[test]
#[should_panic(expected = "range")]
fn a_new_table_discards_the_load_of_the_old_one() {
    let mut slot = Slot::<LeastInFlight>::default();
    slot.endpoints_changed(table(2));
    slot.pick_by_load(&Request::default(), vec![0, 0]);
    slot.endpoints_changed(table(2));
    slot.pick(&Request::default());
}

#[test]
#[should_panic(expected = "one value for each endpoint")]
fn a_column_is_as_long_as_the_table() {
    let _ = Endpoints::new(table(3)).with_column(Column::InFlight, &[1]);
}

#[test]
fn configure_passes_settings_to_the_balancer_and_returns_its_error() {
    let mut slot = Slot::<Fixed>::default();
    assert!(
        slot.configure("x")
            .is_err_and(|error| error.starts_with("x: "))
    );
    assert_eq!(slot.configure("2"), Ok(()));
    assert_eq!(slot.pick(&Request::default()), Some(2));
}

#[test]
fn a_position_beyond_u32_becomes_an_invalid_position() {
    let mut slot = Slot::<Fixed>::default();
    assert_eq!(slot.configure("4294967297"), Ok(()));
    assert_eq!(slot.pick(&Request::default()), Some(u32::MAX));
}

/// Saves the number of its picks.
#[derive(Default)]
struct Counting(u8);

impl Balancer for Counting {
    fn pick(&mut self, _request: &Request, _endpoints: &Endpoints) -> Option<usize> {
        self.0 += 1;
        Some(usize::from(self.0))
    }

    fn save(&self) -> Vec<u8> {
        vec![1, self.0]
    }

    fn restore(&mut self, saved: &[u8]) -> Result<(), String> {
        let &[1, count] = saved else {
            return Err(format!("what is {saved:?}?"));
        };
        self.0 = count;
        Ok(())
    }
}

#[test]
fn restore_continues_from_the_saved_state() {
    let mut old = Slot::<Counting>::default();
    old.pick(&Request::default());
    let mut new = Slot::<Counting>::default();
    assert_eq!(new.restore(&old.save()), Ok(()));
    assert_eq!(new.pick(&Request::default()), Some(2));
    assert!(new.restore(&[2]).is_err());
}

#[test]
fn a_balancer_without_save_and_restore_has_no_state() {
    let mut slot = Slot::<LeastInFlight>::default();
    assert!(slot.save().is_empty());
    assert!(slot.restore(&[1]).is_err());
}
