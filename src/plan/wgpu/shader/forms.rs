//! How a buffer is declared, and the part that reads or writes it. Called by `Shader`.

use std::sync::LazyLock;

use super::part::Part;
use super::parts::chosen::*;
use crate::DType;
use crate::plan::wgpu::matrix::StoredMatrix;

pub(super) struct Form {
    /// An element of the declared array.
    pub(super) element: &'static str,
    pub(super) part: &'static Part,
}

fn form(element: &'static str, part: &'static LazyLock<Part>) -> Form {
    Form { element, part }
}

/// `native`: whether the device has f16.
pub(super) fn reading(matrix: &StoredMatrix, native: bool) -> Form {
    match (matrix.dtype, native && matrix.dtype == DType::F16, matrix.groups(4)) {
        (DType::F32, _, false) => form("f32", &READ_F32),
        (DType::F32, _, true) => form("vec4<f32>", &READ_F32X4),
        (_, true, false) => form("f16", &READ_F16_NATIVE),
        (_, true, true) => form("vec4<f16>", &READ_F16X4_NATIVE),
        (_, false, false) => form("u32", &READ_16),
        (_, false, true) => form("vec2<u32>", &READ_16X4),
    }
}

pub(super) fn writing(matrix: &StoredMatrix, native: bool) -> Form {
    match (matrix.dtype, matrix.groups(4), matrix.groups(2)) {
        (DType::F32, true, _) => form("vec4<f32>", &WRITE_F32X4),
        (DType::F32, false, _) => form("f32", &WRITE_F32),
        (_, true, _) => form("vec2<u32>", &WRITE_16X4),
        (_, _, true) => form("u32", &WRITE_16),
        (DType::F16, ..) if native => form("f16", &WRITE_F16_NATIVE),
        _ => form("atomic<u32>", &WRITE_16_RAGGED),
    }
}
