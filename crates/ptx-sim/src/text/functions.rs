//! `.func`, and what debuggers read (`.file`, `.loc`, `.section`), which is passed over. Called by the
//! parser.

use super::ast::{Formal, Func, Var};
use super::lexer::Tok;
use super::parser::{Parsed, Parser};

impl Parser<'_> {
    /// `.func (returns) name (params) .noreturn { … }`, or `;` in place of the body.
    pub(super) fn function(&mut self) -> Parsed<Func> {
        let span = self.span();
        self.next();
        let returns = if self.accept('(') { self.formals()? } else { Vec::new() };
        let name = self.word("a function's name")?;
        let params = if self.accept('(') { self.formals()? } else { Vec::new() };
        let mut func = Func { name, returns, params, body: None, span };
        loop {
            let span = self.span();
            match self.peek().clone() {
                Tok::Dot(word) if word == "noreturn" => {
                    self.next();
                }
                Tok::Dot(word) if word == "pragma" => self.pragma()?,
                Tok::Dot(word) => {
                    return self.fail(span, format!("function directive `.{word}` is not known"));
                }
                Tok::Punct('{') => {
                    func.body = Some(self.block()?);
                    return Ok(func);
                }
                _ => {
                    self.punct(';')?;
                    return Ok(func);
                }
            }
        }
    }

    /// The rest of a list in brackets.
    fn formals(&mut self) -> Parsed<Vec<Formal>> {
        let mut out = Vec::new();
        if self.accept(')') {
            return Ok(out);
        }
        loop {
            if *self.peek() == Tok::Dot("reg".into()) {
                self.next();
                let ty = self.dot("a register type")?;
                let name = self.word("a register's name")?;
                out.push(Formal::Reg { ty, name });
            } else {
                out.push(Formal::Param(self.argument()?));
            }
            if self.accept(')') {
                return Ok(out);
            }
            self.punct(',')?;
        }
    }

    /// `.param .b32 name` of a function or of a call.
    pub(super) fn argument(&mut self) -> Parsed<Var> {
        let var = self.param()?;
        if var.bytes == 0 {
            return self.fail(var.span, format!("`{}` has no length", var.name));
        }
        Ok(var)
    }

    /// `.file 1 "name"`, with a time and a size or without.
    pub(super) fn file_name(&mut self) -> Parsed<()> {
        self.next();
        self.int("a file's number")?;
        match self.peek() {
            Tok::Str(_) => self.next(),
            _ => return self.expected("a file's name"),
        };
        while self.accept(',') {
            self.int("a time or a size")?;
        }
        Ok(())
    }

    /// `.loc file line column`, and where it was inlined.
    pub(super) fn location(&mut self) -> Parsed<()> {
        self.next();
        self.place()?;
        while self.accept(',') {
            match self.word("`function_name` or `inlined_at`")?.as_str() {
                "function_name" => {
                    self.word("a label")?;
                    if self.accept('+') {
                        self.int("an offset")?;
                    }
                }
                "inlined_at" => self.place()?,
                other => return self.fail(self.span(), format!("`{other}` is not known in .loc")),
            }
        }
        Ok(())
    }

    fn place(&mut self) -> Parsed<()> {
        for what in ["a file", "a line", "a column"] {
            self.int(what)?;
        }
        Ok(())
    }

    /// `.section .name { … }`
    pub(super) fn section(&mut self) -> Parsed<()> {
        let span = self.span();
        self.next();
        self.dot("a section's name")?;
        self.punct('{')?;
        while !self.accept('}') {
            match self.peek() {
                Tok::End => return self.fail(span, "the section is never closed"),
                Tok::Punct('{') => return self.expected("the section's bytes"),
                _ => self.next(),
            };
        }
        Ok(())
    }
}
