//! The grammar of nginx: words, directives, and blocks of directives.

/// Most levels of blocks: nginx has four.
const DEPTH: usize = 16;

/// A directive of nginx, with the block behind it.
#[derive(Debug)]
pub(super) struct Directive {
    pub(super) line: usize,
    pub(super) words: Vec<String>,
    pub(super) block: Vec<Directive>,
}

impl Directive {
    pub(super) fn name(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    pub(super) fn values(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }

    pub(super) fn value(&self) -> &str {
        self.values().first().map_or("", String::as_str)
    }
}

/// Reads the directives of a file.
///
/// # Errors
/// The file is not one of nginx: where, and why.
pub(super) fn directives(text: &str) -> Result<Vec<Directive>, String> {
    block(&mut words(text)?.into_iter(), 0)
}

/// A word with its line; `;`, `{` and `}` outside of quotes are words of their own.
struct Word {
    line: usize,
    text: String,
    is_mark: bool,
}

fn words(text: &str) -> Result<Vec<Word>, String> {
    let mut words = Vec::new();
    let mut line = 1;
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\n' => line += 1,
            letter if letter.is_whitespace() => {}
            '#' => while letters.next_if(|next| *next != '\n').is_some() {},
            ';' | '{' | '}' => words.push(Word {
                line,
                text: letter.to_string(),
                is_mark: true,
            }),
            first => {
                let quote = ['"', '\''].contains(&first).then_some(first);
                let (start, mut word) = (line, String::new());
                if quote.is_none() {
                    word.push(first);
                }
                loop {
                    let next = match quote {
                        Some(_) => letters.next(),
                        // `${name}` is part of a word.
                        None if word.ends_with('$') && letters.peek() == Some(&'{') => {
                            letters.next()
                        }
                        None if word.rfind("${") > word.rfind('}') => letters.next(),
                        None => letters.next_if(|next| {
                            !next.is_whitespace() && ![';', '{', '}'].contains(next)
                        }),
                    };
                    match next {
                        None if quote.is_some() => {
                            return Err(format!("line {start}: a quote is not closed"));
                        }
                        None => break,
                        Some(next) if Some(next) == quote => break,
                        Some('\\') if quote.is_some() => {
                            // Only quotes and backslashes are escaped; regular expressions stay.
                            let escaped = letters.next_if(|next| ['"', '\'', '\\'].contains(next));
                            word.push(escaped.unwrap_or('\\'));
                        }
                        Some(next) => {
                            line += usize::from(next == '\n');
                            word.push(next);
                        }
                    }
                }
                words.push(Word {
                    line: start,
                    text: word,
                    is_mark: false,
                });
            }
        }
    }
    Ok(words)
}

fn block(words: &mut impl Iterator<Item = Word>, depth: usize) -> Result<Vec<Directive>, String> {
    if depth > DEPTH {
        return Err(format!("blocks are nested deeper than {DEPTH} levels"));
    }
    let mut directives = Vec::new();
    let mut current: Vec<Word> = Vec::new();
    let mut line = 1;
    while let Some(word) = words.next() {
        line = word.line;
        if !word.is_mark {
            current.push(word);
            continue;
        }
        if word.text == "}" {
            return match (depth, current.is_empty()) {
                (0, _) => Err(format!("line {line}: unexpected \"}}\"")),
                (_, false) => Err(format!("line {line}: a directive does not end in \";\"")),
                (_, true) => Ok(directives),
            };
        }
        let Some(first) = current.first().map(|word| word.line) else {
            return Err(format!("line {line}: unexpected \"{}\"", word.text));
        };
        let block = match word.text == "{" {
            true => block(words, depth + 1)?,
            false => Vec::new(),
        };
        let words = std::mem::take(&mut current).into_iter();
        directives.push(Directive {
            line: first,
            words: words.map(|word| word.text).collect(),
            block,
        });
    }
    match (depth, current.is_empty()) {
        (0, true) => Ok(directives),
        _ => Err(format!(
            "line {line}: the file ends inside a block or a directive"
        )),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_variable_in_braces_is_part_of_its_word() {
        let read = directives("a ${b;c};").unwrap();
        assert_eq!(read[0].words, ["a", "${b;c}"]);
    }
}
