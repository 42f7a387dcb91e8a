//! Properties that hold for every expression; see `crate::fuzzing`.

use super::{Expression, Family};
use crate::pattern::{PATTERN_MEMORY, Pattern};

/// An expression is read, whatever space is around it, or refused with a message.
pub fn expression(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    for family in [Family::Http, Family::Stream] {
        // What a regular expression is makes no difference here, but that it is compiled does.
        let mut room = PATTERN_MEMORY;
        let read = Expression::parse(text, family, |regex| {
            Pattern::new(regex, "", &mut room).map(|_| regex.to_owned())
        });
        match read {
            Ok(read) => {
                let spaced = format!(" \t{text}\r\n");
                let again = Expression::parse(&spaced, family, |regex| {
                    Ok::<_, std::convert::Infallible>(regex.to_owned())
                });
                assert!(again.is_ok_and(|again| again == read));
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}
