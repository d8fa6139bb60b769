//! The parameter block: each field is named once, and from that follow the text that declares it
//! and the bytes that the executor uploads. Called by `Shader`.

use std::fmt::Write as _;

/// Declares a struct of u32 once for both languages.
macro_rules! uniform {
    ($(#[$doc:meta])* $said:literal $name:ident { $($(#[$field_doc:meta])* $field:ident,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub(super) struct $name {
            $($(#[$field_doc])* pub(super) $field: usize,)*
        }

        impl $name {
            const DECLARED: &str = concat!(
                $said,
                "struct ", stringify!($name), " {\n"
                $(, "    ", stringify!($field), ": u32,\n")*, "}\n"
            );

            const BYTES: usize = size_of::<u32>() * [$(stringify!($field)),*].len();

            fn write(&self, bytes: &mut [u8]) {
                let fields = [$(self.$field),*];
                for (to, field) in bytes.chunks_exact_mut(4).zip(fields) {
                    to.copy_from_slice(&uint(field));
                }
            }
        }
    };
}

uniform! {
    /// A stored matrix, in elements. Its first field is where executors write.
    "// A stored matrix, in elements: where it begins in its binding, from row to row, its last ones.\n"
    Matrix {
        /// From the start of the binding to the first element.
        offset,
        /// From one stored row to the next.
        stride,
        last_row,
        last_col,
    }
}

/// Sizes beyond u32 occur only where they are not used: the limits on bindings keep every index far
/// below.
fn uint(value: usize) -> [u8; 4] {
    u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes()
}

/// What a launch puts at a parameter's place.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value {
    Uint(usize),
    Float(f32),
    Matrix(Matrix),
}

impl Value {
    pub(super) fn write(self, bytes: &mut [u8]) {
        match self {
            Value::Uint(value) => bytes[..4].copy_from_slice(&uint(value)),
            Value::Float(value) => bytes[..4].copy_from_slice(&value.to_le_bytes()),
            Value::Matrix(matrix) => matrix.write(bytes),
        }
    }
}

/// What a parameter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Uint,
    Float,
    Matrix,
}

/// Fields in their order, of which a block has the scalars first; those that no part needs are left
/// out.
#[derive(Debug, Default)]
pub(super) struct Params(Vec<(String, Field, bool)>);

impl Params {
    pub(super) fn add(&mut self, name: String, field: Field) {
        self.0.push((name, field, false));
    }

    /// Whether there is such a field; it is then in the block.
    pub(super) fn need(&mut self, name: &str) -> bool {
        let field = self.0.iter_mut().find(|of| of.0 == name);
        field.map(|of| of.2 = true).is_some()
    }

    /// The declaration, and the bytes that the block has; where in these each field lies.
    pub(super) fn render(&self, text: &mut String) -> (usize, Vec<Option<u32>>) {
        let (mut bytes, mut places) = (0usize, vec![None; self.0.len()]);
        text.push_str(Matrix::DECLARED);
        text.push_str("struct Params {\n");
        let scalars = self.0.iter().enumerate().filter(|(_, of)| of.1 != Field::Matrix);
        for (at, (name, field, _)) in scalars.filter(|(_, of)| of.2) {
            let kind = if *field == Field::Float { "f32" } else { "u32" };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "    {name}: {kind},");
            places[at] = Some(bytes as u32);
            bytes += 4;
        }
        bytes = bytes.next_multiple_of(16);
        let matrices = self.0.iter().enumerate().filter(|(_, of)| of.1 == Field::Matrix);
        for (at, (name, ..)) in matrices.filter(|(_, of)| of.2) {
            // Where a uniform buffer may have a struct in a struct. Said of the field, because not
            // every compiler sees what `Matrix` says of itself.
            let _ = writeln!(text, "    @align(16) {name}: Matrix,");
            places[at] = Some(bytes as u32);
            bytes += Matrix::BYTES;
        }
        text.push_str("}\n");
        (bytes, places)
    }

    /// Where the field of this name lies.
    pub(super) fn place(&self, places: &[Option<u32>], name: &str) -> Option<u32> {
        let at = self.0.iter().position(|of| of.0 == name)?;
        *places.get(at)?
    }
}
