//! Text to syntax tree: a generic PTX grammar that knows no opcode. Called by `isa::module`.

pub(crate) mod ast;
mod directives;
mod functions;
mod lexer;
mod parser;

pub(crate) use parser::parse;
