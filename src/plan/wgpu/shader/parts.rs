//! The files of `shaders/`: the kernels, the parts that a kernel chooses among, and those that come
//! by their names alone.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::part::{Part, Words};

/// The part that gives `name` by itself, and the words with which it does.
pub(super) fn giving(name: &str) -> Option<(&'static Part, Words)> {
    static LITERAL: LazyLock<HashMap<&str, &Part>> = LazyLock::new(|| {
        let all = found::ALL.iter().map(|part| &***part);
        all.flat_map(|part| part.gives().iter().map(move |of| (of.literal(), part)))
            .filter_map(|(name, part)| Some((name?, part)))
            .collect()
    });
    if let Some(part) = LITERAL.get(name) {
        return Some((part, Words::default()));
    }
    found::ALL.iter().find_map(|part| Some((&***part, part.giving(name)?)))
}

macro_rules! files {
    ($(#[$all:meta])* $folder:literal: $($name:ident $file:literal,)*) => {
        $(pub(in crate::plan::wgpu) static $name: LazyLock<Part> = LazyLock::new(|| {
            let text = include_str!(concat!("../../../../shaders/", $folder, $file, ".wgsl"));
            Part::new($file, text)
        });)*
        $(#[$all])*
        pub(in crate::plan::wgpu::shader) static ALL: &[&LazyLock<Part>] = &[$(&$name),*];
    };
}

/// The kernels.
pub(in crate::plan::wgpu) mod kernels {
    use super::*;

    files! { #[cfg(test)] "":
        BACKWARD_GAIN "backward_gain",
        BORDERED "bordered",
        CONTRACT "contract",
        COOPERATIVE "cooperative",
        DECODE "decode",
        GRADIENT "gradient",
        KRONECKER_W1 "kronecker_w1",
        KRONECKER_W2 "kronecker_w2",
        LINEAR "linear",
        MERGE "merge",
        MERGED "merged",
        NORM "norm",
        PARTIAL_SHRINK "partial_shrink",
        SHRINK "shrink",
        SUBGROUP "subgroup",
        SUBGROUP_GRADIENT "subgroup_gradient",
        SUBGROUP_SHRINK "subgroup_shrink",
        SUM "sum",
    }
}

/// Parts of which one is chosen for an operand or a product, or that have several words.
pub(in crate::plan::wgpu) mod chosen {
    use super::*;

    files! { #[cfg(test)] "parts/":
        FORM_GRADIENT "form_gradient",
        MATRICES_16 "matrices_16",
        MATRICES_8 "matrices_8",
        PLANES_16 "planes_16",
        PLANES_F32 "planes_f32",
        PRODUCT "product",
        PRODUCT_ONE "product_one",
        READ_16 "read_16",
        READ_16X4 "read_16x4",
        READ_F16_NATIVE "read_f16_native",
        READ_F16X4_NATIVE "read_f16x4_native",
        READ_F32 "read_f32",
        READ_F32X4 "read_f32x4",
        ROUNDED "rounded",
        SHRUNK "shrunk",
        SHUFFLED "shuffled",
        SHUFFLED_GRADIENT "shuffled_gradient",
        SLICES "slices",
        STAGED "staged",
        STAGED_MATRICES "staged_matrices",
        SUMMAND "summand",
        SUMMAND_TAPS "summand_taps",
        SUMMED "summed",
        SUMMED_TAPS "summed_taps",
        TURNED "turned",
        WINDOW "window",
        WRITE_16 "write_16",
        WRITE_16_RAGGED "write_16_ragged",
        WRITE_16X4 "write_16x4",
        WRITE_F16_NATIVE "write_f16_native",
        WRITE_F32 "write_f32",
        WRITE_F32X4 "write_f32x4",
    }
}

/// Parts that nobody chooses: whoever needs a name that one of them gives, gets it.
pub(in crate::plan::wgpu) mod found {
    use super::*;

    files! { "parts/":
        BF16 "bf16",
        BORDER "border",
        COLUMN "column",
        COLUMNS "columns",
        F16 "f16",
        F32 "f32",
        FINISH "finish",
        FINISH_TILE "finish_tile",
        INDEX "index",
        MULTIPLY_STAGED "multiply_staged",
        PUT_GRADIENT "put_gradient",
        REDUCE_LANES "reduce_lanes",
        REDUCE_TREE "reduce_tree",
        ROW_SLAB "row_slab",
        STAGE_COLUMNS "stage_columns",
        STAGE_HALVES "stage_halves",
        STAGE_ROWS "stage_rows",
        STEP "step",
        SUBGROUP_LANES "subgroup_lanes",
        SUM_SLABS "sum_slabs",
        TILE "tile",
    }
}
