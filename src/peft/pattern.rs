//! Keys of `rank_pattern` and `alpha_pattern`. PEFT matches them as regular expressions,
//! `re.match(rf"(.*\.)?({key})$", path)` (peft/utils/other.py, `get_pattern_key`); this is that
//! for the keys one meets: names, dotted paths, `.`, `.*`, `\.` and a leading `^`. Any other
//! special character is refused, because guessing at it would give a wrong rank or scale.

/// One position of a key.
struct Atom {
    /// `None`: any character.
    literal: Option<char>,
    /// Any number of times.
    star: bool,
}

/// A key, ready to match.
pub(super) struct Pattern {
    atoms: Vec<Atom>,
    /// The key begins with `^`: it is the whole path.
    anchored: bool,
}

impl Pattern {
    pub(super) fn new(key: &str) -> Result<Pattern, String> {
        let (anchored, text) = match key.strip_prefix('^') {
            Some(text) => (true, text),
            None => (false, key),
        };
        let mut atoms: Vec<Atom> = Vec::new();
        let mut chars = text.chars();
        while let Some(char) = chars.next() {
            let atom = match char {
                '.' => Atom { literal: None, star: false },
                '*' => match atoms.last_mut() {
                    Some(last) if !last.star => {
                        last.star = true;
                        continue;
                    }
                    _ => return Err(format!("key `{key}`: nothing for `*` to repeat")),
                },
                '\\' => match chars.next() {
                    Some(char) if char.is_ascii_punctuation() => {
                        Atom { literal: Some(char), star: false }
                    }
                    _ => return Err(format!("key `{key}`: this use of `\\` is not supported")),
                },
                '^' | '$' | '+' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '|' => {
                    return Err(format!(
                        "key `{key}`: the special character `{char}` is not supported (names, \
                         `.`, `.*`, `\\.` and a leading `^` are)"
                    ));
                }
                char => Atom { literal: Some(char), star: false },
            };
            atoms.push(atom);
        }
        Ok(Pattern { atoms, anchored })
    }

    /// Whether the key matches the end of `path`, from its start or from behind a dot.
    pub(super) fn matches(&self, path: &str) -> bool {
        // The places in the pattern that the characters so far may lead to; time is bounded by
        // their number times the path's length whatever the pattern is.
        let mut at = vec![false; self.atoms.len() + 1];
        let mut start = true;
        for char in path.chars() {
            at[0] |= start;
            self.skip_stars(&mut at);
            let mut next = vec![false; at.len()];
            for (place, atom) in self.atoms.iter().enumerate() {
                if at[place] && atom.literal.is_none_or(|literal| literal == char) {
                    next[if atom.star { place } else { place + 1 }] = true;
                }
            }
            at = next;
            start = char == '.' && !self.anchored;
        }
        at[0] |= start;
        self.skip_stars(&mut at);
        at[self.atoms.len()]
    }

    /// A starred atom may match nothing.
    fn skip_stars(&self, at: &mut [bool]) {
        for (place, atom) in self.atoms.iter().enumerate() {
            at[place + 1] |= at[place] && atom.star;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    fn matches(key: &str, path: &str) -> bool {
        Pattern::new(key).unwrap().matches(path)
    }

    /// Each line checked against Python's `re.match(rf"(.*\.)?({key})$", path)`.
    #[test]
    fn keys_match_as_in_peft() {
        for (key, path, expected) in [
            ("fc2", "fc2", true),
            ("fc2", "block.fc2", true),
            ("fc2", "block.xfc2", false),
            ("fc2", "fc2.inner", false),
            ("layers.1.q", "model.layers.1.q", true),
            ("layers.1.q", "model.layers.11.q", false),
            ("layers.1.q", "layersX1Xq", true),
            (r"layers\.1\.q", "layersX1Xq", false),
            (r"layers\.1\.q", "a.layers.1.q", true),
            ("^fc2", "fc2", true),
            ("^fc2", "block.fc2", false),
            ("layers.*.q", "model.layers.3.self_attn.q", true),
            ("layers.*.q", "model.layers.3.k", false),
            (".*", "anything.at.all", true),
            ("a*b", "aaab", true),
            ("a*b", "x.b", true),
            ("a*b", "xb", false),
            ("", "fc2", false),
            ("", "fc2.", true),
        ] {
            assert_eq!(matches(key, path), expected, "{key} on {path}");
        }
    }

    #[test]
    fn other_special_characters_are_refused_by_name() {
        for key in ["q|k", "fc[12]", "fc(1)", "fc+", "fc?", "fc{2}", "fc$", "a^b"] {
            let reason = Pattern::new(key).err().unwrap();
            assert!(reason.contains("special character"), "{reason}");
        }
        for key in ["*", "a**", "\\d", "fc\\"] {
            assert!(Pattern::new(key).is_err(), "{key}");
        }
    }

    #[test]
    fn many_stars_stay_fast() {
        let path = "a".repeat(2000);
        assert!(!matches(&format!("{}b", ".*".repeat(200)), &path));
    }
}
