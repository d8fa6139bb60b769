const TILE_TOKENS: u32 = 4u;
const TILE_FOURS: u32 = 1u;
const LANES_M: u32 = 4u;
const LANES_N: u32 = 4u;
const LANES_K: u32 = 8u;
const SLICES: u32 = 1u;
const a_K_MAJOR: bool = true;
const x_a_WHOLE: bool = true;

// A stored matrix, in elements: where it begins in its binding, from row to row, its last ones.
struct Matrix {
    offset: u32,
    stride: u32,
    last_row: u32,
    last_col: u32,
}
struct Params {
    tokens: u32,
    depth: u32,
    @align(16) x: Matrix,
    @align(16) a: Matrix,
    @align(16) slices: Matrix,
}

@group(0) @binding(0) var<storage, read> x: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read> a: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read_write> workspace: array<vec4<f32>>;
@group(0) @binding(3) var<uniform> p: Params;

// partial_shrink · WGSL
//
// computes   SLICES slices of the sums of x·aᵀ, in f32, as they are: the layer behind it adds the
//            slices in their order, scales and rounds
// tile       TILE_TOKENS · LANES_M tokens × 4 · LANES_N ranks of one slice; of it a thread has
//            TILE_TOKENS × 4 in registers, read straight from memory
// threads    LANES_N along the ranks × LANES_K that share each sum × LANES_M along the tokens
// workgroup  memory: the parts of the sums on their way to one thread
// serves     the first launch of TwoPass on a GPU: few tokens alone would leave most of it idle
//
// needs: TILE_TOKENS, LANES_M, LANES_N, LANES_K, SLICES, Tile, p.depth, p.tokens
// needs: add_x_a, reduce_tree, slices_put
// gives: partial_shrink

@compute @workgroup_size(LANES_N, LANES_K, LANES_M)
fn partial_shrink(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_id) id: vec3<u32>,
) {
    let token = (group.x * LANES_M + id.z) * TILE_TOKENS;
    let rank = (group.y * LANES_N + id.x) * 4u;

    // ── multiply: every SLICES-th of what all threads take ───────────────
    var tile: Tile;
    add_x_a(&tile, token, rank, p.depth, group.z * LANES_K + id.y, SLICES * LANES_K);

    // ── finish: slice by slice, tokens one below the other ───────────────
    reduce_tree(&tile, id);
    if (id.y == 0u) {
        for (var m = 0u; m < TILE_TOKENS; m++) {
            // Behind the last token begins the next slice.
            if (token + m < p.tokens) { slices_put(group.z * p.tokens + token + m, rank, tile[m]); }
        }
    }
}

// tile · a thread's sums: four columns of one token each, tokens one below the other
//
// needs: TILE_TOKENS, TILE_FOURS
// gives: Tile

alias Tile = array<vec4<f32>, TILE_TOKENS * TILE_FOURS>;

// product · x·aᵀ straight from memory, four steps at a time
//
// needs: Tile, TILE_TOKENS, x_four, a_columns, x_a_WHOLE, add_step
// gives: add_x_a
//
// tile[m] += x[token + m]·a[col .. col + 4]ᵀ, a sum of `depth` products along x's rows.
// `lanes` threads share it: this one takes every lanes-th group of four steps. Where the depth is
// no multiple of four, what lies behind the end is zero on both sides.

fn add_x_a(
    tile: ptr<function, Tile>, token: u32, col: u32, depth: u32, lane: u32, lanes: u32,
) {
    for (var k = 4u * lane; k < depth; k += 4u * lanes) {
        let inside = vec4(k) + vec4(0u, 1u, 2u, 3u) < vec4(depth);
        var columns = a_columns(k, col);
        if (!x_a_WHOLE) {
            columns[1] = select(vec4<f32>(), columns[1], inside.y);
            columns[2] = select(vec4<f32>(), columns[2], inside.z);
            columns[3] = select(vec4<f32>(), columns[3], inside.w);
        }
        for (var m = 0u; m < TILE_TOKENS; m++) {
            var x = x_four(token + m, k);
            if (!x_a_WHOLE) { x = select(vec4<f32>(), x, inside); }
            (*tile)[m] = add_step((*tile)[m], x, columns);
        }
    }
}

// read_16x4 · x is bf16, read four at a time; rows begin at multiples of four and hold a
// multiple of four
//
// needs: x, p.x, index_of, widen_bf16
// gives: x_at, x_four

fn x_at(row: u32, col: u32) -> f32 {
    let i = index_of(p.x, row, col);
    return widen_bf16(x[i >> 2u][(i >> 1u) & 1u] >> (16u * (i & 1u))).x;
}
fn x_four(row: u32, col: u32) -> vec4<f32> {
    let words = x[index_of(p.x, row, col) >> 2u];
    return vec4(widen_bf16(words.x), widen_bf16(words.y));
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

// bf16 · the upper half of an f32
//
// gives: widen_bf16, widen_low_bf16, narrow_bf16, round_bf16

// The low and the high half of a word.
fn widen_bf16(word: u32) -> vec2<f32> {
    return bitcast<vec2<f32>>(vec2(word << 16u, word & 0xffff0000u));
}
// The low halves of four words.
fn widen_low_bf16(words: vec4<u32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(words << vec4(16u));
}
// To nearest even, in integers; a NaN stays one. The bits stand in the low halves.
fn narrow_bf16(value: vec4<f32>) -> vec4<u32> {
    let bits = bitcast<vec4<u32>>(value);
    let even = (bits + 0x7fffu + ((bits >> vec4(16u)) & vec4(1u))) >> vec4(16u);
    let quiet = (bits >> vec4(16u)) | vec4(0x40u);
    return select(even, quiet, (bits & vec4(0x7fffffffu)) > vec4(0x7f800000u));
}
fn round_bf16(value: vec4<f32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(narrow_bf16(value) << vec4(16u));
}

// columns · four steps of four columns of a, from step `k` and column `col` on: step by step,
// columns side by side, however a is stored
//
// needs: a_K_MAJOR, a_four
// gives: a_columns

fn a_columns(k: u32, col: u32) -> mat4x4<f32> {
    if (a_K_MAJOR) {
        return transpose(mat4x4(
            a_four(col, k), a_four(col + 1u, k),
            a_four(col + 2u, k), a_four(col + 3u, k),
        ));
    }
    return mat4x4(
        a_four(k, col), a_four(k + 1u, col),
        a_four(k + 2u, col), a_four(k + 3u, col),
    );
}

// read_16x4 · a is bf16, read four at a time; rows begin at multiples of four and hold a
// multiple of four
//
// needs: a, p.a, index_of, widen_bf16
// gives: a_at, a_four

fn a_at(row: u32, col: u32) -> f32 {
    let i = index_of(p.a, row, col);
    return widen_bf16(a[i >> 2u][(i >> 1u) & 1u] >> (16u * (i & 1u))).x;
}
fn a_four(row: u32, col: u32) -> vec4<f32> {
    let words = a[index_of(p.a, row, col) >> 2u];
    return vec4(widen_bf16(words.x), widen_bf16(words.y));
}

// step · four steps of a sum: the products of x with four columns, each a component
//
// gives: add_step

fn add_step(sum: vec4<f32>, x: vec4<f32>, columns: mat4x4<f32>) -> vec4<f32> {
    let half_way = fma(vec4(x.y), columns[1], fma(vec4(x.x), columns[0], sum));
    return fma(vec4(x.w), columns[3], fma(vec4(x.z), columns[2], half_way));
}

// reduce_tree · adds the sums that several threads have parts of
//
// needs: Tile, TILE_TOKENS, LANES_M, LANES_N, LANES_K
// gives: reduce_tree
//
// LANES_K threads, a power of two, have a part of each sum of the workgroup's tile, of four columns
// a token. Round by round the upper half of them hands its parts to the lower one; in the end lane
// 0 has the sums. The order is the tree's, whoever comes first. Every thread of the workgroup calls
// this.

const TREE_SUMS = TILE_TOKENS * LANES_M * LANES_N;
// So far apart that the lanes of eight neighbouring threads meet different banks.
const TREE_LANE = TREE_SUMS | LANES_N;
var<workgroup> tree_sums: array<vec4<f32>, TREE_LANE * LANES_K / 2u>;

fn reduce_tree(tile: ptr<function, Tile>, id: vec3<u32>) {
    let quad = id.z * TILE_TOKENS * LANES_N + id.x;
    for (var lower = LANES_K / 2u; lower > 0u; lower /= 2u) {
        if (id.y >= lower && id.y < 2u * lower) {
            for (var m = 0u; m < TILE_TOKENS; m++) {
                tree_sums[(id.y - lower) * TREE_LANE + quad + m * LANES_N] = (*tile)[m];
            }
        }
        workgroupBarrier();
        if (id.y < lower) {
            for (var m = 0u; m < TILE_TOKENS; m++) {
                (*tile)[m] += tree_sums[id.y * TREE_LANE + quad + m * LANES_N];
            }
        }
        workgroupBarrier();
    }
}

// write_f32x4 · slices is f32, written four at a time; rows begin at multiples of four and hold a
// multiple of four
//
// needs: workspace, p.slices, index_inside, index_of
// gives: slices_old, slices_put

fn slices_old(row: u32, col: u32) -> vec4<f32> { return workspace[index_of(p.slices, row, col) >> 2u]; }
fn slices_put(row: u32, col: u32, value: vec4<f32>) {
    if (row > p.slices.last_row || col > p.slices.last_col) { return; }
    workspace[index_inside(p.slices, row, col) >> 2u] = value;
}
