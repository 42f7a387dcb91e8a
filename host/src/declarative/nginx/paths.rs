//! Which requests a location is for, as paths of a route.
//!
//! nginx compares an exact path first, then takes the longest prefix; unless that is a `^~`, the
//! first regular expression that matches comes before it. Routes with regular expressions come
//! before those with prefixes alone, and among each other in the order of `regex_priority`.

use super::grammar::Directive;

/// The priorities of regular expressions, by what they stand for. Those of prefixes grow with their
/// length, and those of regular expressions of nginx fall from the first one to the last.
const REWRITE: usize = 4_000_000;
const EXACT: usize = 3_000_000;
const BEFORE_PATTERNS: usize = 2_000_000;
const PATTERNS: usize = 1_000_000;

/// The range of the priorities above.
const SPAN: usize = 10_000_000;

/// How a location compares its text with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Exact,
    Prefix,
    /// A prefix before regular expressions.
    FirstPrefix,
    Pattern {
        ignores_case: bool,
    },
}

/// What a location compares with the path of a request.
#[derive(Debug, Clone)]
pub(super) struct LocationMatch {
    pub(super) comparison: Comparison,
    pub(super) text: String,
}

/// Paths of a route.
#[derive(Debug, PartialEq)]
pub(super) struct Paths {
    pub(super) paths: Vec<String>,
    /// None if no path is a regular expression.
    pub(super) priority: Option<usize>,
    /// Whether they are for more requests than the location.
    pub(super) is_wider: bool,
}

impl LocationMatch {
    /// None for a location that no request of a client is compared with.
    pub(super) fn of(location: &Directive) -> Option<Self> {
        let (comparison, text) = match location.values() {
            [text] if text.starts_with('@') => return None,
            [text] => (Comparison::Prefix, text),
            [sign, text] => {
                let comparison = match sign.as_str() {
                    "=" => Comparison::Exact,
                    "^~" => Comparison::FirstPrefix,
                    "~*" => Comparison::Pattern { ignores_case: true },
                    _ => Comparison::Pattern {
                        ignores_case: false,
                    },
                };
                (comparison, text)
            }
            _ => return None,
        };
        let text = match comparison {
            Comparison::Pattern { .. } => text.clone(),
            _ => as_sent(text),
        };
        Some(Self { comparison, text })
    }

    pub(super) fn is_prefix(&self) -> bool {
        matches!(
            self.comparison,
            Comparison::Prefix | Comparison::FirstPrefix
        )
    }

    /// The characters other than slashes that it names, and that may be escaped in the normal form
    /// of a request's path, where nginx compares them as if they were not. What a regular
    /// expression matches without naming it, as `.` does, is not among them.
    pub(super) fn reserved(&self) -> Vec<char> {
        let is_pattern = matches!(self.comparison, Comparison::Pattern { .. });
        let (mut found, mut in_class) = (Vec::new(), false);
        let mut letters = self.text.chars().peekable();
        while let Some(letter) = letters.next() {
            let is_named = match letter {
                _ if !is_pattern => true,
                '\\' => {
                    found.extend(letters.next().filter(|named| RESERVED.contains(*named)));
                    false
                }
                '[' if !in_class => {
                    in_class = true;
                    letters.next_if_eq(&'^');
                    // As the first one of a class, it is one of its characters.
                    found.extend(letters.next_if_eq(&']'));
                    false
                }
                ']' if in_class => {
                    in_class = false;
                    false
                }
                '(' if !in_class && letters.next_if_eq(&'?').is_some() => {
                    let is_flag = |next: &char| next.is_alphanumeric() || "<_P".contains(*next);
                    while letters.next_if(is_flag).is_some() {}
                    letters.next_if(|next| ":=!>)".contains(*next));
                    false
                }
                letter => in_class || !"()*+$[]".contains(letter),
            };
            if is_named && RESERVED.contains(letter) {
                found.push(letter);
            }
        }
        found
    }

    /// The paths for it, of which `number` counts the locations of the server. With a `rank`, all
    /// are regular expressions, and those of a higher rank come first.
    pub(super) fn paths(&self, number: usize, rank: Option<usize>) -> Paths {
        let escaped = || escaped(&self.text);
        let length = self.text.len().min(SPAN / 20);
        let (path, priority, is_wider) = match self.comparison {
            Comparison::Exact => (format!("~{}$", escaped()), Some(EXACT), false),
            Comparison::FirstPrefix => {
                let path = format!("~{}", escaped());
                (path, Some(BEFORE_PATTERNS + length), false)
            }
            Comparison::Pattern { ignores_case } => {
                let (path, is_wider) = pattern(&self.text, ignores_case);
                let priority = PATTERNS.saturating_sub(1 + number).max(SPAN / 20);
                (path, Some(priority), is_wider)
            }
            Comparison::Prefix => match rank {
                Some(_) => (format!("~{}", escaped()), Some(length), false),
                None => (self.text.clone(), None, false),
            },
        };
        Paths {
            paths: vec![path],
            priority: priority.map(|priority| priority + rank.unwrap_or(0) * SPAN),
            is_wider,
        }
    }
}

impl Paths {
    /// The path without the slash at the end of a prefix, which nginx answers itself.
    pub(super) fn add_without_slash(&mut self, prefix: &str, rank: Option<usize>) {
        let Some(path) = prefix.strip_suffix('/').filter(|path| !path.is_empty()) else {
            return;
        };
        self.paths.push(format!("~{}$", escaped(path)));
        let priority = EXACT - 1 + rank.unwrap_or(0) * SPAN;
        self.priority = Some(self.priority.unwrap_or(0).max(priority));
    }
}

/// The reserved characters of RFC 3986 that a path may have as they are, without the slash.
const RESERVED: &str = ":[]@!$&'()*+,;=";

/// A text that nginx compares with decoded paths, as it is in the normal form of a request's path.
fn as_sent(text: &str) -> String {
    let mut sent = String::new();
    for byte in text.bytes() {
        match byte {
            b'%'
            | b' '
            | b'"'
            | b'<'
            | b'>'
            | b'\\'
            | b'^'
            | b'`'
            | b'{'
            | b'|'
            | b'}'
            | b'?'
            | b'#'
            | 0..=0x1f
            | 0x7f.. => sent.push_str(&format!("%{byte:02X}")),
            byte => sent.push(byte.into()),
        }
    }
    sent
}

/// A regular expression whose `$` matches before a line end at the end of the text as well, as that
/// of PCRE does. In the normal form of a path, a line end is escaped.
fn with_line_end(text: &str) -> String {
    let (mut changed, mut is_escaped, mut in_class) = (String::new(), false, false);
    for letter in text.chars() {
        match letter {
            _ if std::mem::take(&mut is_escaped) => {}
            '\\' => is_escaped = true,
            '[' => in_class = true,
            ']' => in_class = false,
            '$' if !in_class => changed.push_str("(?:%0A)?"),
            _ => {}
        }
        changed.push(letter);
    }
    changed
}

/// The priority of what comes before all locations.
pub(super) fn before_all(rank: Option<usize>) -> usize {
    REWRITE + rank.unwrap_or(0) * SPAN
}

/// A regular expression of nginx, which may match anywhere in a path, as one that begins with it;
/// and whether it is for more paths, because it has what is not known here.
pub(super) fn pattern(text: &str, ignores_case: bool) -> (String, bool) {
    let flag = if ignores_case { "(?i)" } else { "" };
    let as_path = |text: &str| match text.strip_prefix('^') {
        Some(rest) if rest.starts_with('/') && !text.contains('|') && !ignores_case => {
            format!("~{rest}")
        }
        // A path of a route begins with a slash; here it stands for nothing.
        _ => format!("~/{{0}}{flag}(?s:.*)(?:{text})"),
    };
    let text = &with_line_end(text);
    let is_valid = |path: &str| crate::pattern::is_pattern(path.trim_start_matches('~')).is_ok();
    let exact = as_path(text);
    if is_valid(&exact) {
        return (exact, false);
    }
    let wider = as_path(&without_lookaround(text));
    match is_valid(&wider) {
        true => (wider, true),
        false => ("~/".to_owned(), true),
    }
}

/// A regular expression without what it says of the text around a match: for more texts.
fn without_lookaround(text: &str) -> String {
    let mut wider = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let begins = ["(?=", "(?!", "(?<=", "(?<!"];
        if begins.iter().any(|begin| rest.starts_with(begin)) {
            rest = &rest[group(rest)..];
            // What repeats the group.
            rest = rest.trim_start_matches(['*', '+', '?']);
            continue;
        }
        let length = match first {
            '\\' => rest.chars().take(2).map(char::len_utf8).sum(),
            first => first.len_utf8(),
        };
        wider += &rest[..length];
        rest = &rest[length..];
    }
    wider
}

/// How many bytes a group has at the beginning of a regular expression.
fn group(text: &str) -> usize {
    let (mut depth, mut is_escaped, mut in_class) = (0_usize, false, false);
    for (at, letter) in text.char_indices() {
        match letter {
            _ if std::mem::take(&mut is_escaped) => {}
            '\\' => is_escaped = true,
            '[' => in_class = true,
            ']' => in_class = false,
            '(' if !in_class => depth += 1,
            ')' if !in_class => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    text.len()
}

/// A path as a regular expression that matches it alone.
pub(in super::super) fn escaped(path: &str) -> String {
    let mut pattern = String::new();
    for letter in path.chars() {
        if !letter.is_alphanumeric() && !"/-_~%".contains(letter) {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(text: &str, path: &str) -> bool {
        let (pattern, _) = pattern(text, false);
        let mut room = 1 << 20;
        let compiled = crate::pattern::Pattern::new(&pattern[1..], "^", &mut room);
        compiled.is_ok_and(|pattern| pattern.find(path.as_bytes()).is_some())
    }

    #[test]
    fn a_regular_expression_matches_where_nginx_finds_it() {
        for (text, path, is_match) in [
            ("^/a", "/ab", true),
            ("^/a", "/b/a", false),
            (r"\.php$", "/x/y.php", true),
            (r"\.php$", "/x/y.php5", false),
            ("/api/", "/api/", true),
            ("/api/", "/v1/api/x", true),
            (r"\.php$", "/x.php%0A", true),
            (r"\.php$", "/x.php%0A%0A", false),
            (r"\$", "/x%0A", false),
            ("[$]x", "/%0Ax", false),
            ("^/a|^/b$", "/b", true),
            ("^/a|^/b$", "/c/b", false),
            ("^(/a|/b)", "/b/c", true),
        ] {
            assert_eq!(matches(text, path), is_match, "{text} {path}");
        }
        assert_eq!(pattern("^/v[0-9]+", false), ("~/v[0-9]+".into(), false));
    }

    #[test]
    fn the_reserved_characters_of_a_location_are_those_that_it_names() {
        let of = |comparison, text: &str| {
            let text = text.to_owned();
            LocationMatch { comparison, text }
                .reserved()
                .into_iter()
                .collect::<String>()
        };
        assert_eq!(of(Comparison::Prefix, "/a:b/(c)"), ":()");
        let pattern = |text| {
            of(
                Comparison::Pattern {
                    ignores_case: false,
                },
                text,
            )
        };
        assert_eq!(pattern(r"^/a:b(c|d)+$"), ":");
        assert_eq!(pattern(r"\.(php|ini)$"), "");
        assert_eq!(pattern(r"/(?!x)(?:y)(?<name>z)\$[]=]*@"), "$]=@");
    }

    #[test]
    fn a_text_is_compared_with_what_a_request_has_in_its_place() {
        assert_eq!(as_sent("/a b/%20/é"), "/a%20b/%2520/%C3%A9");
        assert_eq!(as_sent("/a-b_c.d~e:f@g!"), "/a-b_c.d~e:f@g!");
    }

    #[test]
    fn what_a_regular_expression_cannot_say_here_makes_it_wider() {
        assert!(pattern(r"/\.(?!well-known)", false).1);
        assert!(matches(r"/\.(?!well-known)", "/.git/config"));
        assert!(matches(r"^/(?!(a|b\))x)[^)]*$", "/secret"));
        assert_eq!(pattern(r"(a)\1(", false), ("~/".into(), true));
    }
}
