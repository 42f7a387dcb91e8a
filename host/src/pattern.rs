//! Regular expressions of routes, and the limit of their memory.

use std::collections::HashMap;
use std::ops::Range;

use parking_lot::Mutex;
use regex_automata::PatternID;
use regex_automata::meta::Regex;
use regex_automata::util::syntax;
use thiserror::Error;
use uuid::Uuid;

/// Largest compiled program of one pattern, in bytes. Source: the default of the crate `regex`.
const LARGEST: usize = 10 << 20;

/// Memory that a pattern takes in addition to its programs, approximately, in bytes.
const FRAME: usize = 2 << 10;

/// Default limit of the memory of all patterns, in bytes. It is enough for some thousand patterns
/// with `\w`, which takes half a megabyte because it matches every Unicode letter, and for seven
/// thousand with `\d`.
pub const PATTERN_MEMORY: usize = 512 << 20;

/// Replaces a byte that is not part of a valid character: the control character SUBSTITUTE.
const SUBSTITUTE: u8 = 0x1a;

/// A regular expression that matches bytes.
///
/// In the syntax of Kong's patterns, `.` and classes such as `[^/]` match characters, and so do not
/// match a byte that is not part of a valid character. A text with such bytes that does not match
/// is matched a second time, with each of these bytes replaced by a character.
#[derive(Debug, Clone)]
pub struct Pattern(Regex);

/// Why a pattern cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PatternError {
    /// It is not a regular expression.
    #[error("invalid regex: '{pattern}' ({reason})")]
    Syntax {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Its program would exceed the limit of one pattern.
    #[error(
        "the regex is too large: compiled, it takes more than {} MiB. Use smaller repetitions, or classes \
         such as [0-9A-Za-z_] in place of \\w",
        LARGEST >> 20
    )]
    TooLarge,
    /// The patterns of other routes leave too little memory for it.
    #[error(
        "the regexes of all routes together take too much memory: {left} bytes are left for this route \
         (setting route_regex_memory)"
    )]
    NoRoom {
        /// Bytes that other routes leave.
        left: usize,
    },
}

impl Pattern {
    /// Compiles a pattern with an anchor before it. The memory that it takes, in bytes, is
    /// subtracted from `room`. If it would take more than `room`, compilation stops early.
    pub(crate) fn new(pattern: &str, anchor: &str, room: &mut usize) -> Result<Self, PatternError> {
        let left = *room;
        let most = LARGEST.min(left);
        let config = Regex::config().utf8_empty(false).nfa_size_limit(Some(most));
        let regex = Regex::builder()
            .configure(config)
            .syntax(syntax())
            .build(&format!("{anchor}(?:{pattern})"))
            .map_err(|error| match error.size_limit() {
                Some(LARGEST) => PatternError::TooLarge,
                Some(_) => PatternError::NoRoom { left },
                // The message of the outer error has only the index of the pattern.
                None => match error.syntax_error() {
                    Some(wrong) => invalid(pattern, &wrong.to_string()),
                    None => invalid(pattern, &error.to_string()),
                },
            })?;
        // Workers share the programs, and each worker that matches needs its own cache.
        let size = regex.memory_usage() + regex.create_cache().memory_usage() + FRAME;
        *room = left
            .checked_sub(size)
            .ok_or(PatternError::NoRoom { left })?;
        Ok(Self(regex))
    }

    /// The first match.
    pub(crate) fn find(&self, text: &[u8]) -> Option<Range<usize>> {
        self.look(text, |regex, text| Some(regex.find(text)?.range()))
    }

    /// The bytes that a group, given by name or number, has captured in the first match.
    pub(crate) fn capture<'t>(&self, text: &'t [u8], group: &str) -> Option<&'t [u8]> {
        let captured: Option<Range<usize>> = self.look(text, |regex, text| {
            let mut captures = regex.create_captures();
            regex.captures(text, &mut captures);
            let span = match group.parse() {
                Ok(number) => captures.get_group(number),
                Err(_) => captures.get_group_by_name(group),
            };
            captures.is_match().then(|| span.map(|span| span.range()))
        })?;
        text.get(captured?)
    }

    /// The groups in their order, each with its name if it has one.
    pub(crate) fn groups(&self) -> impl Iterator<Item = Option<&str>> {
        // The first one is the whole match.
        let groups = self.0.group_info().pattern_names(PatternID::ZERO);
        groups.skip(1)
    }

    fn look<T>(&self, text: &[u8], look: impl Fn(&Regex, &[u8]) -> Option<T>) -> Option<T> {
        look(&self.0, text).or_else(|| look(&self.0, &characters(text)?))
    }
}

/// Checks that a text is a regular expression, without compiling it. The time is proportional to
/// its length.
pub(crate) fn is_pattern(pattern: &str) -> Result<(), PatternError> {
    match syntax::parse_with(&format!("(?:{pattern})"), &syntax()) {
        Ok(_) => Ok(()),
        Err(error) => Err(invalid(pattern, &error.to_string())),
    }
}

fn syntax() -> syntax::Config {
    syntax::Config::new().utf8(false)
}

fn invalid(pattern: &str, error: &str) -> PatternError {
    PatternError::Syntax {
        pattern: pattern.to_owned(),
        // The lines before the last one show the position in the pattern.
        reason: error.lines().last().unwrap_or_default().to_owned(),
    }
}

/// The text with each byte that is not part of a valid character replaced by [`SUBSTITUTE`]; the
/// length stays the same. `None` if there is no such byte.
fn characters(text: &[u8]) -> Option<Vec<u8>> {
    if std::str::from_utf8(text).is_ok() {
        return None;
    }
    let mut characters = Vec::with_capacity(text.len());
    for chunk in text.utf8_chunks() {
        characters.extend_from_slice(chunk.valid().as_bytes());
        characters.extend(chunk.invalid().iter().map(|_| SUBSTITUTE));
    }
    Some(characters)
}

/// The memory that the patterns of all routes may take together.
#[derive(Debug)]
pub struct PatternMemory {
    limit: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    by_route: HashMap<Uuid, usize>,
    total: usize,
}

impl PatternMemory {
    /// `limit` is in bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            taken: Mutex::default(),
        }
    }

    /// The memory that the patterns of a route may take, in bytes: the limit less that of the other
    /// routes.
    pub fn left_for(&self, route: Uuid) -> usize {
        let taken = self.taken.lock();
        let own = taken.by_route.get(&route).copied().unwrap_or(0);
        (self.limit + own).saturating_sub(taken.total)
    }

    /// What the patterns of all routes may take besides those of these routes, in bytes.
    pub fn left_beside(&self, routes: impl Iterator<Item = Uuid>) -> usize {
        let taken = self.taken.lock();
        let kept = routes.filter_map(|route| taken.by_route.get(&route));
        self.limit.saturating_sub(kept.sum())
    }

    /// Records the memory that the patterns of a route take, in bytes; 0 for a deleted route.
    pub fn set(&self, route: Uuid, bytes: usize) {
        let mut taken = self.taken.lock();
        let old = match bytes {
            0 => taken.by_route.remove(&route),
            bytes => taken.by_route.insert(route, bytes),
        };
        taken.total = taken.total + bytes - old.unwrap_or(0);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::new(text, "^", &mut { PATTERN_MEMORY }).unwrap()
    }

    #[test]
    fn an_invalid_utf8_byte_matches_like_a_character() {
        let named = pattern("/a/([^/]+)/(?P<end>.)");
        for (text, end, last) in [
            (&b"/a/\xff\xfe/\x80x"[..], 7, &b"\x80"[..]),
            ("/a/é/é".as_bytes(), 8, "é".as_bytes()),
            (b"/a/b/\xc3", 6, b"\xc3"),
        ] {
            assert_eq!(named.find(text), Some(0..end), "{text:?}");
            assert_eq!(named.capture(text, "end"), Some(last), "{text:?}");
        }
        assert_eq!(named.find(b"/a//\xff"), None);
        assert_eq!(named.capture(b"/a//\xff", "1"), None);
        assert_eq!(named.capture(b"/a/\xff/b", "1"), Some(&b"\xff"[..]));
        assert_eq!(named.capture(b"/a/\xff/b", "2"), Some(&b"b"[..]));
        assert_eq!(named.capture(b"/a/\xff/b", "3"), None);
        // A pattern can match a single byte explicitly.
        let names: Vec<Option<&str>> = named.groups().collect();
        assert_eq!(names, [None, Some("end")]);
        let byte = pattern(r"/(?-u:\xff)");
        assert_eq!(byte.find(b"/\xff"), Some(0..2));
        assert_eq!(byte.find(b"/\xfe"), None);
    }

    #[test]
    fn the_memory_of_a_pattern_is_subtracted_from_the_room() {
        let mut room = PATTERN_MEMORY;
        Pattern::new(r"/\w{10}", "^", &mut room).unwrap();
        let taken = PATTERN_MEMORY - room;
        assert!(taken > 10_000, "{taken}");
        let mut room = taken - 1;
        let refused = Pattern::new(r"/\w{10}", "^", &mut room);
        assert_eq!(
            refused.unwrap_err(),
            PatternError::NoRoom { left: taken - 1 }
        );
        let mut room = taken;
        Pattern::new(r"/\w{10}", "^", &mut room).unwrap();
        assert_eq!(room, 0);
        let refused = Pattern::new("/", "^", &mut room);
        assert_eq!(refused.unwrap_err(), PatternError::NoRoom { left: 0 });
        let refused = Pattern::new(r"/\w{1000}{1000}", "^", &mut { usize::MAX });
        assert_eq!(refused.unwrap_err(), PatternError::TooLarge);
    }

    #[test]
    fn an_invalid_pattern_is_refused_without_compiling_it() {
        is_pattern(r"/\w{1000}{1000}{1000}").unwrap();
        let error = is_pattern("/a(").unwrap_err().to_string();
        assert_eq!(error, "invalid regex: '/a(' (error: unclosed group)");
        assert_eq!(
            is_pattern("/a(").unwrap_err(),
            Pattern::new("/a(", "^", &mut { 1 << 20 }).unwrap_err()
        );
    }

    #[test]
    fn a_route_may_take_what_others_leave() {
        let memory = PatternMemory::new(100);
        let [a, b] = [1, 2].map(Uuid::from_u128);
        memory.set(a, 60);
        assert_eq!((memory.left_for(a), memory.left_for(b)), (100, 40));
        memory.set(b, 40);
        memory.set(a, 10);
        assert_eq!((memory.left_for(a), memory.left_for(b)), (60, 90));
        memory.set(b, 0);
        memory.set(b, 0);
        assert_eq!(memory.left_for(b), 90);
    }
}
