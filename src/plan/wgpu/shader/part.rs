//! One file of `shaders/`, read once: its lines with the words in them that a rendering replaces,
//! and what its head says that it needs and gives. `parts` lists the files, `Shader` renders them.
//!
//! `// needs: NAMES` and `// gives: NAMES` are names of a text: functions, constants, aliases,
//! workgroup variables, and parameters as `p.NAME`. A line that ends in `// where bias` is in a
//! text only where `bias` is bound; `and` joins several such conditions.

/// The words in the place of which a rendering puts names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::plan::wgpu) enum Word {
    /// An operand, the buffer that it lies in, its storage.
    Name,
    Buffer,
    DType,
    /// The two sides of a product, and what it makes.
    Left,
    Right,
    Out,
}

impl Word {
    const ALL: [(Word, &'static str); 6] = [
        (Word::Name, "NAME"),
        (Word::Buffer, "BUFFER"),
        (Word::DType, "DTYPE"),
        (Word::Left, "LEFT"),
        (Word::Right, "RIGHT"),
        (Word::Out, "OUT"),
    ];
}

/// What stands for each word in one rendering.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Words([String; Word::ALL.len()]);

impl Words {
    pub(super) fn new<'w>(words: impl IntoIterator<Item = (Word, &'w str)>) -> Words {
        let mut all = Words::default();
        for (word, name) in words {
            name.clone_into(&mut all.0[word as usize]);
        }
        all
    }

    fn get(&self, word: Word) -> &str {
        &self.0[word as usize]
    }
}

/// Text with words in it.
#[derive(Debug)]
pub(super) struct Template(Vec<Piece>);

#[derive(Debug)]
enum Piece {
    Text(&'static str),
    Word(Word),
}

impl Template {
    fn new(mut text: &'static str) -> Template {
        let mut pieces = Vec::new();
        while let Some((at, word, name)) = first_word(text) {
            if at > 0 {
                pieces.push(Piece::Text(&text[..at]));
            }
            pieces.push(Piece::Word(word));
            text = &text[at + name.len()..];
        }
        if !text.is_empty() {
            pieces.push(Piece::Text(text));
        }
        Template(pieces)
    }

    pub(super) fn render(&self, into: &mut String, words: &Words) {
        for piece in &self.0 {
            into.push_str(match piece {
                Piece::Text(text) => text,
                Piece::Word(word) => words.get(*word),
            });
        }
    }

    pub(super) fn rendered(&self, words: &Words) -> String {
        let mut text = String::new();
        self.render(&mut text, words);
        text
    }

    /// The name that this is, where it has no words in it.
    pub(super) fn literal(&self) -> Option<&'static str> {
        match &self.0[..] {
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The words that make `name` of this, where it has at most one.
    fn matches(&self, name: &str) -> Option<Words> {
        match &self.0[..] {
            [Piece::Text(text)] => (*text == name).then(Words::default),
            [Piece::Word(word), Piece::Text(end)] => {
                let name = name.strip_suffix(end).filter(|name| !name.is_empty())?;
                Some(Words::new([(*word, name)]))
            }
            [Piece::Text(start), Piece::Word(word)] => {
                let name = name.strip_prefix(start).filter(|name| !name.is_empty())?;
                Some(Words::new([(*word, name)]))
            }
            _ => None,
        }
    }
}

fn first_word(text: &str) -> Option<(usize, Word, &'static str)> {
    let all = Word::ALL.into_iter();
    all.filter_map(|(word, name)| Some((text.find(name)?, word, name))).min_by_key(|of| of.0)
}

/// Something of a part that is there on conditions.
#[derive(Debug)]
struct Conditional<T> {
    conditions: Vec<&'static str>,
    what: T,
}

/// A file.
#[derive(Debug)]
pub(in crate::plan::wgpu) struct Part {
    pub(super) name: &'static str,
    lines: Vec<Conditional<Template>>,
    needs: Vec<Conditional<Template>>,
    gives: Vec<Template>,
}

impl Part {
    pub(super) fn new(name: &'static str, text: &'static str) -> Part {
        let mut part = Part { name, lines: Vec::new(), needs: Vec::new(), gives: Vec::new() };
        // Where the lines begin that are taken together.
        let (mut begin, mut end) = (0, 0);
        for line in text.split_inclusive('\n') {
            let conditions = conditions(line);
            if let Some(names) = line.strip_prefix("// needs: ") {
                part.needs.extend(list(names).map(|name| Conditional {
                    conditions: conditions.clone(),
                    what: Template::new(name),
                }));
            } else if let Some(names) = line.strip_prefix("// gives: ") {
                part.gives.extend(list(names).map(Template::new));
            }
            if !conditions.is_empty() {
                part.push(&text[begin..end], Vec::new());
                part.push(line, conditions);
                begin = end + line.len();
            }
            end += line.len();
        }
        part.push(&text[begin..], Vec::new());
        part
    }

    fn push(&mut self, text: &'static str, conditions: Vec<&'static str>) {
        if !text.is_empty() {
            self.lines.push(Conditional { conditions, what: Template::new(text) });
        }
    }

    pub(super) fn render(&self, into: &mut String, words: &Words, has: impl Fn(&str) -> bool) {
        for line in &self.lines {
            if line.conditions.iter().all(|of| has(of)) {
                line.what.render(into, words);
            }
        }
    }

    pub(super) fn needs(&self, words: &Words, has: impl Fn(&str) -> bool) -> Vec<String> {
        let needs = self.needs.iter().filter(|of| of.conditions.iter().all(|of| has(of)));
        needs.map(|of| of.what.rendered(words)).collect()
    }

    pub(super) fn gives(&self) -> &[Template] {
        &self.gives
    }

    /// The names that it gives with `words`.
    pub(super) fn giving_with(&self, words: &Words) -> Vec<String> {
        self.gives.iter().map(|of| of.rendered(words)).collect()
    }

    /// The words with which this part gives `name`, if it does.
    pub(super) fn giving(&self, name: &str) -> Option<Words> {
        self.gives.iter().find_map(|of| of.matches(name))
    }
}

/// What is behind `// where` at the end of a line.
fn conditions(line: &'static str) -> Vec<&'static str> {
    match line.trim_end().rsplit_once(" // where ") {
        Some((_, all)) if !all.contains(['.', ',']) => all.split(" and ").collect(),
        _ => Vec::new(),
    }
}

fn list(names: &'static str) -> impl Iterator<Item = &'static str> {
    let names = names.split_once(" // ").map_or(names, |(names, _)| names);
    names.split(',').map(str::trim)
}
