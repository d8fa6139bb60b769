const GROUPS: u32 = 2u;
const LANES_R: u32 = 2u;
const LANES_N: u32 = 32u;
const da_ROW_MAJOR: bool = true;
const db_ROW_MAJOR: bool = false;

// A stored matrix, in elements: where it begins in its binding, from row to row, its last ones.
struct Matrix {
    offset: u32,
    stride: u32,
    last_row: u32,
    last_col: u32,
}
struct Params {
    tokens: u32,
    slab_tokens: u32,
    first_slab: u32,
    da_groups: u32,
    beta: f32,
    da_rows: u32,
    db_rows: u32,
    @align(16) dshrunk: Matrix,
    @align(16) x: Matrix,
    @align(16) da: Matrix,
    @align(16) shrunk: Matrix,
    @align(16) dy: Matrix,
    @align(16) db: Matrix,
}

@group(0) @binding(0) var<storage, read> dshrunk: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read> x: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read_write> workspace: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> shrunk: array<vec2<u32>>;
@group(0) @binding(4) var<storage, read> dy: array<vec2<u32>>;
@group(0) @binding(5) var<uniform> p: Params;

// gradient · WGSL
//
// computes   da = dshrunkᵀ·x and db = dyᵀ·shrunk over one slab of tokens, both in one dispatch:
//            the first workgroups of a row form da, the others db
// tile       a thread has GROUPS × 4 ranks × 4 columns in registers
// threads    LANES_N along the columns × LANES_R along the ranks, so that memory gives x and dy
//            once
// serves     backward_adapter; with one slab it writes the gradients, else partial sums,
//            slab by slab, which `sum` adds in order
//
// needs: GROUPS, LANES_R, LANES_N, p.tokens, p.slab_tokens, p.first_slab
// needs: form_da // where da
// needs: form_db, p.da_groups // where db
// gives: gradient

@compute @workgroup_size(LANES_N, LANES_R)
fn gradient(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) id: vec3<u32>) {
    // Slab `group.y` of this launch, and of all.
    let first = group.y * p.slab_tokens;
    let end = min(first + p.slab_tokens, p.tokens);
    let slab = p.first_slab + group.y;
    let rank = (group.z * LANES_R + id.y) * GROUPS * 4u;
    if (group.x < p.da_groups) { // where da and db
        form_da(first, end, rank, (group.x * LANES_N + id.x) * 4u, slab); // where da
    } else { // where da and db
        let col = ((group.x - p.da_groups) * LANES_N + id.x) * 4u; // where db
        form_db(first, end, rank, col, slab); // where db
    } // where da and db
}

// form_gradient · da of one slab of tokens
//
// needs: GROUPS, dshrunk_four, x_four, put_da
// gives: form_da
//
// The sum over tokens first .. end of dshrunk[token]ᵀ·x[token], for GROUPS × 4 ranks from `rank`
// on and four columns from `col` on. Precise: dshrunk has a low part behind its high one.

fn form_da(first: u32, end: u32, rank: u32, col: u32, slab: u32) {
    var tile: array<mat4x4<f32>, GROUPS>;
    for (var token = first; token < end; token++) {
        let right = x_four(token, col);
        for (var g = 0u; g < GROUPS; g++) {
            var left = dshrunk_four(token, rank + 4u * g);
            tile[g][0] = fma(vec4(left.x), right, tile[g][0]);
            tile[g][1] = fma(vec4(left.y), right, tile[g][1]);
            tile[g][2] = fma(vec4(left.z), right, tile[g][2]);
            tile[g][3] = fma(vec4(left.w), right, tile[g][3]);
        }
    }
    put_da(&tile, rank, col, slab);
}

// read_16x4 · dshrunk is f16, read four at a time; rows begin at multiples of four and hold a
// multiple of four
//
// needs: dshrunk, p.dshrunk, index_of, widen_f16
// gives: dshrunk_at, dshrunk_four

fn dshrunk_at(row: u32, col: u32) -> f32 {
    let i = index_of(p.dshrunk, row, col);
    return widen_f16(dshrunk[i >> 2u][(i >> 1u) & 1u] >> (16u * (i & 1u))).x;
}
fn dshrunk_four(row: u32, col: u32) -> vec4<f32> {
    let words = dshrunk[index_of(p.dshrunk, row, col) >> 2u];
    return vec4(widen_f16(words.x), widen_f16(words.y));
}

// index · where the elements of a stored matrix lie in what is bound of it
//
// needs: Matrix
// gives: index_of, indices_of, index_inside

// Of one element, and of four of a row from `col` on. Clamped, so that no read leaves the matrix.
fn index_of(matrix: Matrix, row: u32, col: u32) -> u32 {
    return matrix.offset + min(row, matrix.last_row) * matrix.stride + min(col, matrix.last_col);
}
fn indices_of(matrix: Matrix, row: u32, col: u32) -> vec4<u32> {
    let start = matrix.offset + min(row, matrix.last_row) * matrix.stride;
    return start + min(vec4(col) + vec4(0u, 1u, 2u, 3u), vec4(matrix.last_col));
}
// Of an element to be written: whoever writes it leaves out what lies outside.
fn index_inside(matrix: Matrix, row: u32, col: u32) -> u32 {
    return matrix.offset + row * matrix.stride + col;
}

// f16 · five bits of exponent, ten of mantissa
//
// gives: widen_f16, widen_low_f16, narrow_f16, round_f16

// The low and the high half of a word.
fn widen_f16(word: u32) -> vec2<f32> { return unpack2x16float(word); }
// The low halves of four words.
fn widen_low_f16(words: vec4<u32>) -> vec4<f32> {
    return vec4(
        unpack2x16float(words.x).x, unpack2x16float(words.y).x,
        unpack2x16float(words.z).x, unpack2x16float(words.w).x,
    );
}
// To nearest even, in integers, because a conversion may round either way; a NaN stays one,
// and from 65520 on it is infinity. The bits stand in the low halves.
fn narrow_f16(value: vec4<f32>) -> vec4<u32> {
    let bits = bitcast<vec4<u32>>(value);
    let sign = (bits >> vec4(16u)) & vec4(0x8000u);
    let size = bits & vec4(0x7fffffffu);
    // Normal: the exponent's bias goes from 127 to 15, then 13 bits are rounded off.
    let odd = (size >> vec4(13u)) & vec4(1u);
    let normal = (size - 0x38000000u + 0xfffu + odd) >> vec4(13u);
    // Subnormal: a number of 2⁻²⁴; from 2⁻²⁵ downwards it is none.
    let shift = clamp(vec4(126u) - (size >> vec4(23u)), vec4(1u), vec4(25u));
    let mantissa = (size & vec4(0x7fffffu)) | vec4(0x800000u);
    let floor = mantissa >> shift;
    let rest = mantissa & ((vec4(1u) << shift) - 1u);
    let tie = vec4(1u) << (shift - 1u);
    let up = (rest > tie) | ((rest == tie) & ((floor & vec4(1u)) == vec4(1u)));
    let subnormal = floor + select(vec4(0u), vec4(1u), up);
    var rounded = select(normal, subnormal, size < vec4(0x38800000u));
    rounded = select(rounded, vec4(0u), size <= vec4(0x33000000u));
    rounded = select(rounded, vec4(0x7c00u), size >= vec4(0x477ff000u));
    rounded = select(rounded, vec4(0x7e00u), size > vec4(0x7f800000u));
    return sign | rounded;
}
fn round_f16(value: vec4<f32>) -> vec4<f32> {
    let bits = narrow_f16(value);
    return vec4(
        unpack2x16float(bits.x | (bits.y << 16u)), unpack2x16float(bits.z | (bits.w << 16u)),
    );
}

// read_16x4 · x is f16, read four at a time; rows begin at multiples of four and hold a
// multiple of four
//
// needs: x, p.x, index_of, widen_f16
// gives: x_at, x_four

fn x_at(row: u32, col: u32) -> f32 {
    let i = index_of(p.x, row, col);
    return widen_f16(x[i >> 2u][(i >> 1u) & 1u] >> (16u * (i & 1u))).x;
}
fn x_four(row: u32, col: u32) -> vec4<f32> {
    let words = x[index_of(p.x, row, col) >> 2u];
    return vec4(widen_f16(words.x), widen_f16(words.y));
}

// put_gradient · what one slab of tokens gives to da
//
// needs: GROUPS, da_ROW_MAJOR, da_old, da_put, p.da_rows, p.beta
// gives: put_da, store_da
//
// GROUPS × 4 ranks from `rank` on and four columns from `col` on, written as da is stored: its
// rows of slab `slab` follow those of the slab before.

fn put_da(
    tile: ptr<function, array<mat4x4<f32>, GROUPS>>,
    rank: u32,
    col: u32,
    slab: u32,
) {
    // Ranks are da's stored rows, or its stored columns.
    if (!da_ROW_MAJOR) {
        for (var g = 0u; g < GROUPS; g++) { (*tile)[g] = transpose((*tile)[g]); }
    }
    // The tile moves up by a vector each time, as in `finish_tile`, so that no driver unrolls the
    // stores.
    for (var i = 0u; i < 4u * GROUPS; i++) {
        let stored = select(
            vec2(col + i % 4u, rank + i / 4u * 4u), vec2(rank + i, col), da_ROW_MAJOR,
        );
        if (stored.x < p.da_rows) {
            store_da(slab * p.da_rows + stored.x, stored.y, (*tile)[0][0]);
        }
        for (var g = 0u; g < GROUPS; g++) {
            let next = (*tile)[min(g + 1u, GROUPS - 1u)][0];
            (*tile)[g] = mat4x4((*tile)[g][1], (*tile)[g][2], (*tile)[g][3], next);
        }
    }
}
fn store_da(row: u32, col: u32, sum: vec4<f32>) {
    var value = sum;
    if (p.beta != 0.0) { value = fma(vec4(p.beta), da_old(row, col), value); }
    da_put(row, col, value);
}

// write_f32x4 · da is f32, written four at a time; rows begin at multiples of four and hold a
// multiple of four
//
// needs: workspace, p.da, index_inside, index_of
// gives: da_old, da_put

fn da_old(row: u32, col: u32) -> vec4<f32> { return workspace[index_of(p.da, row, col) >> 2u]; }
fn da_put(row: u32, col: u32, value: vec4<f32>) {
    if (row > p.da.last_row || col > p.da.last_col) { return; }
    workspace[index_inside(p.da, row, col) >> 2u] = value;
}

// form_gradient · db of one slab of tokens
//
// needs: GROUPS, shrunk_four, dy_four, put_db
// gives: form_db
//
// The sum over tokens first .. end of shrunk[token]ᵀ·dy[token], for GROUPS × 4 ranks from `rank`
// on and four columns from `col` on. Precise: shrunk has a low part behind its high one.

fn form_db(first: u32, end: u32, rank: u32, col: u32, slab: u32) {
    var tile: array<mat4x4<f32>, GROUPS>;
    for (var token = first; token < end; token++) {
        let right = dy_four(token, col);
        for (var g = 0u; g < GROUPS; g++) {
            var left = shrunk_four(token, rank + 4u * g);
            tile[g][0] = fma(vec4(left.x), right, tile[g][0]);
            tile[g][1] = fma(vec4(left.y), right, tile[g][1]);
            tile[g][2] = fma(vec4(left.z), right, tile[g][2]);
            tile[g][3] = fma(vec4(left.w), right, tile[g][3]);
        }
    }
    put_db(&tile, rank, col, slab);
}

// read_16x4 · shrunk is f16, read four at a time; rows begin at multiples of four and hold a
// multiple of four
//
// needs: shrunk, p.shrunk, index_of, widen_f16
// gives: shrunk_at, shrunk_four

fn shrunk_at(row: u32, col: u32) -> f32 {
    let i = index_of(p.shrunk, row, col);
    return widen_f16(shrunk[i >> 2u][(i >> 1u) & 1u] >> (16u * (i & 1u))).x;
}
fn shrunk_four(row: u32, col: u32) -> vec4<f32> {
    let words = shrunk[index_of(p.shrunk, row, col) >> 2u];
    return vec4(widen_f16(words.x), widen_f16(words.y));
}

// read_16x4 · dy is f16, read four at a time; rows begin at multiples of four and hold a
// multiple of four
//
// needs: dy, p.dy, index_of, widen_f16
// gives: dy_at, dy_four

fn dy_at(row: u32, col: u32) -> f32 {
    let i = index_of(p.dy, row, col);
    return widen_f16(dy[i >> 2u][(i >> 1u) & 1u] >> (16u * (i & 1u))).x;
}
fn dy_four(row: u32, col: u32) -> vec4<f32> {
    let words = dy[index_of(p.dy, row, col) >> 2u];
    return vec4(widen_f16(words.x), widen_f16(words.y));
}

// put_gradient · what one slab of tokens gives to db
//
// needs: GROUPS, db_ROW_MAJOR, db_old, db_put, p.db_rows, p.beta
// gives: put_db, store_db
//
// GROUPS × 4 ranks from `rank` on and four columns from `col` on, written as db is stored: its
// rows of slab `slab` follow those of the slab before.

fn put_db(
    tile: ptr<function, array<mat4x4<f32>, GROUPS>>,
    rank: u32,
    col: u32,
    slab: u32,
) {
    // Ranks are db's stored rows, or its stored columns.
    if (!db_ROW_MAJOR) {
        for (var g = 0u; g < GROUPS; g++) { (*tile)[g] = transpose((*tile)[g]); }
    }
    // The tile moves up by a vector each time, as in `finish_tile`, so that no driver unrolls the
    // stores.
    for (var i = 0u; i < 4u * GROUPS; i++) {
        let stored = select(
            vec2(col + i % 4u, rank + i / 4u * 4u), vec2(rank + i, col), db_ROW_MAJOR,
        );
        if (stored.x < p.db_rows) {
            store_db(slab * p.db_rows + stored.x, stored.y, (*tile)[0][0]);
        }
        for (var g = 0u; g < GROUPS; g++) {
            let next = (*tile)[min(g + 1u, GROUPS - 1u)][0];
            (*tile)[g] = mat4x4((*tile)[g][1], (*tile)[g][2], (*tile)[g][3], next);
        }
    }
}
fn store_db(row: u32, col: u32, sum: vec4<f32>) {
    var value = sum;
    if (p.beta != 0.0) { value = fma(vec4(p.beta), db_old(row, col), value); }
    db_put(row, col, value);
}

// write_f32x4 · db is f32, written four at a time; rows begin at multiples of four and hold a
// multiple of four
//
// needs: workspace, p.db, index_inside, index_of
// gives: db_old, db_put

fn db_old(row: u32, col: u32) -> vec4<f32> { return workspace[index_of(p.db, row, col) >> 2u]; }
fn db_put(row: u32, col: u32, value: vec4<f32>) {
    if (row > p.db.last_row || col > p.db.last_col) { return; }
    workspace[index_inside(p.db, row, col) >> 2u] = value;
}
