//! The words and signs of Rust source, for the scanner of modules.

/// The words and signs of a file with their lines, without comments and literals.
pub(super) fn tokens(source: &str) -> Vec<(String, usize)> {
    let chars: Vec<char> = source.chars().collect();
    let char_at = |at: usize| chars.get(at).copied().unwrap_or('\0');
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let mut tokens: Vec<(String, usize)> = Vec::new();
    let mut lines = 1;
    let mut at = 0;
    while at < chars.len() {
        let start = at;
        let line = lines;
        match char_at(at) {
            '/' if char_at(at + 1) == '/' => {
                while at < chars.len() && char_at(at) != '\n' {
                    at += 1;
                }
            }
            '/' if char_at(at + 1) == '*' => {
                let mut depth = 0;
                loop {
                    match (char_at(at), char_at(at + 1)) {
                        ('/', '*') => (depth, at) = (depth + 1, at + 2),
                        ('*', '/') => (depth, at) = (depth - 1, at + 2),
                        _ => at += 1,
                    }
                    if depth == 0 || at >= chars.len() {
                        break;
                    }
                }
            }
            '"' => at = string_end(&chars, at, 0, true),
            '\'' => {
                let is_lifetime = is_part(char_at(at + 1)) && char_at(at + 2) != '\'';
                at += 1;
                if !is_lifetime {
                    at += if char_at(at) == '\\' { 2 } else { 1 };
                    while at < chars.len() && char_at(at) != '\'' {
                        at += 1;
                    }
                    at += 1;
                }
                while is_lifetime && is_part(char_at(at)) {
                    at += 1;
                }
            }
            ':' if char_at(at + 1) == ':' => {
                tokens.push(("::".into(), line));
                at += 2;
            }
            first if is_part(first) => {
                while is_part(char_at(at)) {
                    at += 1;
                }
                let word: String = chars[start..at].iter().collect();
                let hashes = (at..).take_while(|&at| char_at(at) == '#').count();
                if ["r", "b", "br", "c", "cr"].contains(&word.as_str())
                    && char_at(at + hashes) == '"'
                    && (hashes == 0 || word.ends_with('r'))
                {
                    at = string_end(&chars, at + hashes, hashes, !word.ends_with('r'));
                } else if word == "r" && hashes == 1 {
                    // A word that would be a keyword: it comes next.
                    at += 1;
                } else {
                    tokens.push((word, line));
                }
            }
            other => {
                if !other.is_whitespace() {
                    tokens.push((other.to_string(), line));
                }
                at += 1;
            }
        }
        lines += chars[start..at.min(chars.len())]
            .iter()
            .filter(|c| **c == '\n')
            .count();
    }
    tokens
}

/// The place behind a string whose quote opens at a place, and that ends with as many hashes.
fn string_end(chars: &[char], open: usize, hashes: usize, escapes: bool) -> usize {
    let mut at = open + 1;
    while at < chars.len() {
        match chars[at] {
            '\\' if escapes => at += 1,
            '"' if chars[at + 1..].iter().take_while(|c| **c == '#').count() >= hashes => {
                return at + 1 + hashes;
            }
            _ => {}
        }
        at += 1;
    }
    at
}
