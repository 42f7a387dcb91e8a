//! What `nginx -T` prints: all files of a configuration, one after the other, each behind a line
//! with its name. The directives of the files that are included take the place of `include`.

use super::grammar::{Directive, directives};

/// Most directives that may come of includes: a file may be included many times.
const MAX_DIRECTIVES: usize = 100_000;

/// Most files that include each other.
const DEPTH: usize = 16;

/// A file of the output.
struct File<'t> {
    path: &'t str,
    directives: Vec<Directive>,
}

/// Reads the directives of a file, or of the first one of such an output.
///
/// # Errors
/// It is not a file of nginx: where, and why.
pub(super) fn read(text: &str) -> Result<Vec<Directive>, String> {
    let mut sections: Vec<(&str, String)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let path = line.strip_prefix("# configuration file ");
        if let Some(path) = path.and_then(|path| path.strip_suffix(':')) {
            // So that a line has the number that it has in the whole text.
            sections.push((path, "\n".repeat(number + 1)));
        } else if let Some((_, section)) = sections.last_mut() {
            section.push_str(line);
            section.push('\n');
        }
    }
    if sections.is_empty() {
        return directives(text);
    }
    let mut files = Vec::with_capacity(sections.len());
    for (path, section) in sections {
        files.push(File {
            path,
            directives: directives(&section)?,
        });
    }
    let mut budget = MAX_DIRECTIVES;
    let Some(main) = files.first() else {
        return Ok(Vec::new());
    };
    expanded(&main.directives, &files, 0, &mut budget)
}

/// These directives with what they include.
fn expanded(
    of: &[Directive],
    files: &[File<'_>],
    depth: usize,
    budget: &mut usize,
) -> Result<Vec<Directive>, String> {
    let mut all = Vec::new();
    for directive in of {
        let included = match directive.name() {
            "include" => included(directive.value(), files),
            _ => Vec::new(),
        };
        let has_pattern = directive.value().contains(['*', '?', '[']);
        if directive.name() == "include" && (has_pattern || !included.is_empty()) {
            if depth == DEPTH {
                let line = directive.line;
                return Err(format!(
                    "line {line}: more than {DEPTH} files include each other"
                ));
            }
            for file in included {
                all.extend(expanded(&file.directives, files, depth + 1, budget)?);
            }
            continue;
        }
        *budget = (budget.checked_sub(1))
            .ok_or(format!("there are more than {MAX_DIRECTIVES} directives"))?;
        all.push(Directive {
            line: directive.line,
            words: directive.words.clone(),
            block: expanded(&directive.block, files, depth, budget)?,
        });
    }
    Ok(all)
}

/// The files that a pattern of `include` is for. One that is not absolute begins in the folder of
/// the first file.
fn included<'f, 't>(pattern: &str, files: &'f [File<'t>]) -> Vec<&'f File<'t>> {
    let folder = files.first().and_then(|main| main.path.rsplit_once('/'));
    let pattern = match (pattern.starts_with('/'), folder) {
        (false, Some((folder, _))) => format!("{folder}/{pattern}"),
        _ => pattern.to_owned(),
    };
    let is_meant = |file: &&File<'_>| matches(pattern.as_bytes(), file.path.as_bytes());
    files.iter().filter(is_meant).collect()
}

/// Whether a pattern of glob(7) is for a path. A set of characters in brackets is for any
/// character.
fn matches(pattern: &[u8], path: &[u8]) -> bool {
    // Where to go on if the last `*` takes one more character.
    let (mut at, mut taken, mut back) = (0, 0, None);
    loop {
        match (pattern.get(at), path.get(taken)) {
            (Some(b'*'), _) => {
                back = Some((at + 1, taken));
                at += 1;
                continue;
            }
            (None, None) => return true,
            (Some(b'?'), Some(byte)) if *byte != b'/' => {
                (at, taken) = (at + 1, taken + 1);
                continue;
            }
            (Some(b'['), Some(byte)) if *byte != b'/' => {
                let length = pattern[at..].iter().position(|byte| *byte == b']');
                (at, taken) = (at + length.unwrap_or(0) + 1, taken + 1);
                continue;
            }
            (Some(one), Some(other)) if one == other => {
                (at, taken) = (at + 1, taken + 1);
                continue;
            }
            _ => {}
        }
        match back {
            Some((after, from)) if path.get(from).is_some_and(|byte| *byte != b'/') => {
                back = Some((after, from + 1));
                (at, taken) = (after, from + 1);
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_for_files_of_one_folder() {
        for (pattern, path, is_match) in [
            ("/a/*.conf", "/a/b.conf", true),
            ("/a/*.conf", "/a/.conf", true),
            ("/a/*.conf", "/a/b/c.conf", false),
            ("/a/*", "/a/b.conf", true),
            ("/*/x*y", "/a/xzyy", true),
            ("/a/?[0-9]", "/a/b7", true),
            ("/a/b", "/a/bc", false),
            ("/a/bc", "/a/b", false),
        ] {
            let found = matches(pattern.as_bytes(), path.as_bytes());
            assert_eq!(found, is_match, "{pattern} {path}");
        }
    }

    #[test]
    fn included_directives_take_the_place_of_their_include() {
        let dump = "# configuration file /n/nginx.conf:\nhttp { include c/*.conf; x; }\n\
            # configuration file /n/c/a.conf:\na; include /n/more;\n\
            # configuration file /n/more:\nb { c; }\n\
            # configuration file /n/c/b.conf:\nd;\n";
        let read = read(dump).unwrap();
        let names: Vec<&str> = read[0].block.iter().map(Directive::name).collect();
        assert_eq!(names, ["a", "b", "d", "x"]);
        let lines: Vec<usize> = read[0].block.iter().map(|own| own.line).collect();
        assert_eq!(lines, [4, 6, 8, 2]);
    }

    #[test]
    fn files_that_include_themselves_are_refused() {
        let dump = "# configuration file /a:\ninclude /a; include /a;\n";
        assert!(read(dump).unwrap_err().contains("include each other"));
        let wide = "# configuration file /a:\ninclude /b; include /b;\n\
            # configuration file /b:\ninclude /c; include /c; include /c;\n\
            # configuration file /c:\nx;\n";
        assert_eq!(read(wide).unwrap().len(), 6);
    }
}
