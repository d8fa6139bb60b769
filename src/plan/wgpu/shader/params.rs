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

            fn write(&self, bytes: &mut Vec<u8>) {
                $(bytes.extend(uint(self.$field));)*
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

#[derive(Debug, Clone, Copy)]
pub(super) enum Scalar {
    Uint(usize),
    Float(f32),
}

/// Fields in their order, scalars first; those that no part needs are left out.
#[derive(Debug, Default)]
pub(super) struct Params {
    scalars: Vec<(String, Scalar, bool)>,
    matrices: Vec<(String, Matrix, bool)>,
}

impl Params {
    pub(super) fn scalar(&mut self, name: String, value: Scalar) {
        self.scalars.push((name, value, false));
    }

    pub(super) fn matrix(&mut self, name: &str, matrix: Matrix) {
        self.matrices.push((name.to_owned(), matrix, false));
    }

    /// Whether there is such a field; it is then in the block.
    pub(super) fn need(&mut self, name: &str) -> bool {
        if let Some((.., needed)) = self.scalars.iter_mut().find(|of| of.0 == name) {
            *needed = true;
        } else if let Some((.., needed)) = self.matrices.iter_mut().find(|of| of.0 == name) {
            *needed = true;
        } else {
            return false;
        }
        true
    }

    /// The declaration and the bytes; where in these each factor is that is needed, and of each
    /// matrix its `offset`.
    pub(super) fn render(&self, text: &mut String) -> (Vec<u8>, Vec<(&str, u32)>) {
        let (mut bytes, mut offsets) = (Vec::new(), Vec::new());
        text.push_str(Matrix::DECLARED);
        text.push_str("struct Params {\n");
        let mut field = |name: &str, kind| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "    {name}: {kind},");
        };
        for (name, value, _) in self.scalars.iter().filter(|of| of.2) {
            match value {
                Scalar::Uint(value) => {
                    field(name, "u32");
                    bytes.extend(uint(*value));
                }
                Scalar::Float(value) => {
                    field(name, "f32");
                    offsets.push((&**name, bytes.len() as u32));
                    bytes.extend(value.to_le_bytes());
                }
            }
        }
        bytes.resize(bytes.len().next_multiple_of(16), 0);
        for (name, matrix, _) in self.matrices.iter().filter(|of| of.2) {
            // Where a uniform buffer may have a struct in a struct. Said of the field, because not
            // every compiler sees what `Matrix` says of itself.
            field(&format!("@align(16) {name}"), "Matrix");
            offsets.push((&**name, bytes.len() as u32));
            matrix.write(&mut bytes);
        }
        text.push_str("}\n");
        (bytes, offsets)
    }
}
