//! Statements and operands. The grammar is generic: names, numbers, `[base+off]`, `{…}`, `a|b`,
//! `!p`, `_`; which of them an opcode takes is the decoder's business.

use super::ast::{Entry, Guard, Inst, Module, Operand, Span, Stmt};
use super::lexer::{Tok, Token, tokens};
use crate::error::PtxError;

/// Deeper nesting of `{ }` than this is refused rather than risked on the stack.
const MAX_DEPTH: usize = 64;

pub(super) struct Parser<'a> {
    file: &'a str,
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
}

pub(super) type Parsed<T> = Result<T, PtxError>;

/// Reads a whole module.
pub(crate) fn parse(file: &str, source: &str) -> Parsed<Module> {
    let tokens = tokens(file, source)?;
    Parser { file, tokens, at: 0, depth: 0 }.module()
}

impl Parser<'_> {
    pub(super) fn peek(&self) -> &Tok {
        &self.tokens[self.at].tok
    }

    fn peek_at(&self, ahead: usize) -> &Tok {
        let last = self.tokens.len() - 1;
        &self.tokens[(self.at + ahead).min(last)].tok
    }

    pub(super) fn span(&self) -> Span {
        Span { line: self.tokens[self.at].line, column: self.tokens[self.at].column }
    }

    pub(super) fn next(&mut self) -> Tok {
        let tok = self.tokens[self.at].tok.clone();
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
        tok
    }

    pub(super) fn fail<T>(&self, span: Span, message: impl Into<String>) -> Parsed<T> {
        let Span { line, column } = span;
        Err(PtxError { file: self.file.into(), line, column, message: message.into() })
    }

    pub(super) fn expected<T>(&self, what: &str) -> Parsed<T> {
        let found = match self.peek() {
            Tok::Word(w) => format!("`{w}`"),
            Tok::Dot(w) => format!("`.{w}`"),
            Tok::Int(v) => format!("`{v}`"),
            Tok::F32(_) | Tok::F64(_) => "a float".into(),
            Tok::Str(_) => "a string".into(),
            Tok::Punct(c) => format!("`{c}`"),
            Tok::End => "the end of the text".into(),
        };
        self.fail(self.span(), format!("expected {what}, found {found}"))
    }

    pub(super) fn accept(&mut self, c: char) -> bool {
        let hit = *self.peek() == Tok::Punct(c);
        if hit {
            self.next();
        }
        hit
    }

    pub(super) fn punct(&mut self, c: char) -> Parsed<()> {
        if self.accept(c) { Ok(()) } else { self.expected(&format!("`{c}`")) }
    }

    pub(super) fn word(&mut self, what: &str) -> Parsed<String> {
        match self.peek() {
            Tok::Word(_) => match self.next() {
                Tok::Word(w) => Ok(w),
                _ => self.expected(what),
            },
            _ => self.expected(what),
        }
    }

    pub(super) fn dot(&mut self, what: &str) -> Parsed<String> {
        match self.peek() {
            Tok::Dot(_) => match self.next() {
                Tok::Dot(w) => Ok(w),
                _ => self.expected(what),
            },
            _ => self.expected(what),
        }
    }

    pub(super) fn int(&mut self, what: &str) -> Parsed<u64> {
        match *self.peek() {
            Tok::Int(v) => {
                self.next();
                Ok(v)
            }
            _ => self.expected(what),
        }
    }

    /// `{ … }` of an entry or of an inner scope; the opening brace is still to come.
    pub(super) fn block(&mut self) -> Parsed<Vec<Stmt>> {
        let open = self.span();
        self.punct('{')?;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.fail(open, "blocks are nested too deeply");
        }
        let mut out = Vec::new();
        while !self.accept('}') {
            if *self.peek() == Tok::End {
                return self.fail(open, "block is never closed");
            }
            self.statement(&mut out)?;
        }
        self.depth -= 1;
        Ok(out)
    }

    fn statement(&mut self, out: &mut Vec<Stmt>) -> Parsed<()> {
        let span = self.span();
        match self.peek().clone() {
            Tok::Punct('{') => out.push(Stmt::Block(self.block()?)),
            Tok::Punct(';') => {
                self.next();
            }
            Tok::Dot(word) if word == "reg" => self.registers(out)?,
            Tok::Dot(word) if word == "pragma" => self.pragma()?,
            Tok::Dot(word) if word == "loc" => self.location()?,
            Tok::Dot(word) if word == "file" => self.file_name()?,
            Tok::Dot(word) if word == "param" => {
                let var = self.argument()?;
                out.push(Stmt::Var(var));
                self.punct(';')?;
            }
            Tok::Dot(word) if matches!(word.as_str(), "shared" | "local" | "global" | "const") => {
                out.push(Stmt::Var(self.variable(false)?));
            }
            Tok::Dot(word) => {
                return self.fail(span, format!("directive `.{word}` is not known here"));
            }
            Tok::Word(name) if *self.peek_at(1) == Tok::Punct(':') => {
                self.next();
                self.next();
                if *self.peek() == Tok::Dot("branchtargets".into()) {
                    self.next();
                    let mut labels = vec![self.word("a label")?];
                    while self.accept(',') {
                        labels.push(self.word("a label")?);
                    }
                    self.punct(';')?;
                    out.push(Stmt::Targets(name, labels, span));
                } else {
                    out.push(Stmt::Label(name, span));
                }
            }
            _ => out.push(Stmt::Inst(self.instruction()?)),
        }
        Ok(())
    }

    fn instruction(&mut self) -> Parsed<Inst> {
        let mut guard = None;
        if self.accept('@') {
            let negated = self.accept('!');
            guard = Some(Guard { name: self.word("a predicate")?, negated });
        }
        let span = self.span();
        let op = self.word("an opcode")?;
        let mut mods = Vec::new();
        while let Tok::Dot(_) = self.peek() {
            mods.push(self.dot("a modifier")?);
        }
        let mut operands = Vec::new();
        let call = op == "call";
        if !self.accept(';') {
            loop {
                operands.push(if call && self.accept('(') {
                    self.arguments()?
                } else {
                    self.operand()?
                });
                if self.accept(';') {
                    break;
                }
                self.punct(',')?;
            }
        }
        Ok(Inst { guard, op, mods, operands, span })
    }

    /// What a call passes or gets back; the opening bracket is behind.
    fn arguments(&mut self) -> Parsed<Operand> {
        let mut items = Vec::new();
        if self.accept(')') {
            return Ok(Operand::Arguments(items));
        }
        loop {
            items.push(self.simple()?);
            if self.accept(')') {
                return Ok(Operand::Arguments(items));
            }
            self.punct(',')?;
        }
    }

    fn operand(&mut self) -> Parsed<Operand> {
        let first = self.simple()?;
        if self.accept('|') {
            let second = self.simple()?;
            return Ok(Operand::Pair(Box::new(first), Box::new(second)));
        }
        Ok(first)
    }

    fn simple(&mut self) -> Parsed<Operand> {
        match self.peek().clone() {
            Tok::Punct('{') => {
                self.next();
                let mut items = Vec::new();
                loop {
                    // Elements are names and numbers: no vector inside a vector.
                    if matches!(self.peek(), Tok::Punct('{' | '[')) {
                        return self.expected("a vector element");
                    }
                    items.push(self.simple()?);
                    if self.accept('}') {
                        return Ok(Operand::Vector(items));
                    }
                    self.punct(',')?;
                }
            }
            Tok::Punct('[') => {
                self.next();
                let base = match self.peek() {
                    Tok::Word(_) => Operand::Name(self.word("a base")?),
                    Tok::Int(_) => Operand::Int(self.int("an address")?, false),
                    _ => return self.expected("a register or a variable"),
                };
                let offset = self.offset()?.unwrap_or(0);
                if self.accept(',') {
                    if *self.peek() != Tok::Punct('{') {
                        return self.expected("`{` and coordinates");
                    }
                    let coords = self.simple()?;
                    self.punct(']')?;
                    let Operand::Vector(coords) = coords else {
                        return self.expected("coordinates");
                    };
                    return Ok(Operand::Tensor(Box::new(base), offset, coords));
                }
                self.punct(']')?;
                Ok(Operand::Address(Box::new(base), offset))
            }
            Tok::Punct('!') => {
                self.next();
                Ok(Operand::Not(Box::new(Operand::Name(self.word("a predicate")?))))
            }
            Tok::Punct('-') if matches!(self.peek_at(1), Tok::F64(_)) => {
                self.next();
                match self.next() {
                    Tok::F64(v) => Ok(Operand::F64(v ^ 1 << 63)),
                    _ => self.expected("a number after `-`"),
                }
            }
            Tok::Int(_) | Tok::Punct('-' | '(' | '~') => self.constant(),
            Tok::Word(name) if name == "WARP_SZ" => self.constant(),
            Tok::F32(v) => {
                self.next();
                Ok(Operand::F32(v))
            }
            Tok::F64(v) => {
                self.next();
                Ok(Operand::F64(v))
            }
            Tok::Word(name) => {
                self.next();
                if name == "_" {
                    return Ok(Operand::Sink);
                }
                if let Tok::Dot(part) = self.peek().clone()
                    && self.tokens[self.at].glued
                {
                    self.next();
                    return Ok(Operand::Name(format!("{name}.{part}")));
                }
                Ok(match self.offset()? {
                    Some(offset) => Operand::NameOffset(name, offset),
                    None => Operand::Name(name),
                })
            }
            _ => self.expected("an operand"),
        }
    }

    /// A constant expression as an operand.
    fn constant(&mut self) -> Parsed<Operand> {
        let span = self.span();
        let value = self.expression(0)?;
        if i64::try_from(value).is_err() && u64::try_from(value).is_err() {
            return self.fail(span, format!("{value} does not fit 64 bits"));
        }
        Ok(Operand::Int(value as u64, value < 0))
    }

    /// `+4`, `-4`, `+-4`, or nothing.
    fn offset(&mut self) -> Parsed<Option<i64>> {
        let span = self.span();
        if !self.accept('+') && *self.peek() != Tok::Punct('-') {
            return Ok(None);
        }
        let value = self.expression(0)?;
        // The ISA gives addresses a 32-bit signed offset.
        match i32::try_from(value) {
            Ok(value) => Ok(Some(i64::from(value))),
            Err(_) => self.fail(span, format!("offset {value} does not fit 32 bits")),
        }
    }

    /// A constant expression of integers, with C's precedence: operators that bind at least as tightly as
    /// `least`. Wide enough that no step of what fits 64 bits overflows; what does is refused.
    fn expression(&mut self, least: u8) -> Parsed<i128> {
        let mut left = self.term()?;
        loop {
            let span = self.span();
            let (operator, binds) = match self.peek() {
                Tok::Punct(c @ '|') => (*c, 1),
                Tok::Punct(c @ '^') => (*c, 2),
                Tok::Punct(c @ '&') => (*c, 3),
                Tok::Punct(c @ ('<' | '>')) if self.peek_at(1) == self.peek() => (*c, 4),
                Tok::Punct(c @ ('+' | '-')) => (*c, 5),
                Tok::Punct(c @ ('*' | '/')) => (*c, 6),
                _ => return Ok(left),
            };
            if binds < least {
                return Ok(left);
            }
            self.next();
            if binds == 4 {
                self.next();
            }
            let right = self.expression(binds + 1)?;
            let value = match operator {
                '|' => Some(left | right),
                '^' => Some(left ^ right),
                '&' => Some(left & right),
                '<' => u32::try_from(right).ok().filter(|&n| n < 64).map(|n| left << n),
                '>' => u32::try_from(right).ok().filter(|&n| n < 64).map(|n| left >> n),
                '+' => left.checked_add(right),
                '-' => left.checked_sub(right),
                '*' => left.checked_mul(right),
                _ => left.checked_div(right),
            };
            match value.filter(|v| v.unsigned_abs() < 1 << 64) {
                Some(value) => left = value,
                None => return self.fail(span, "the constant expression has no value of 64 bits"),
            }
        }
    }

    fn term(&mut self) -> Parsed<i128> {
        let span = self.span();
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.fail(span, "the expression is nested too deeply");
        }
        let value = if self.accept('(') {
            let inner = self.expression(0)?;
            self.punct(')')?;
            inner
        } else if self.accept('-') {
            -self.term()?
        } else if self.accept('~') {
            !self.term()?
        } else if *self.peek() == Tok::Word("WARP_SZ".into()) {
            self.next();
            32
        } else {
            i128::from(self.int("a number")?)
        };
        self.depth -= 1;
        Ok(value)
    }

    pub(super) fn entry_body(&mut self, mut entry: Entry) -> Parsed<Entry> {
        entry.body = self.block()?;
        Ok(entry)
    }
}
