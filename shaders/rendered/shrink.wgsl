const TILE_TOKENS: u32 = 4u;
const TILE_FOURS: u32 = 1u;
const LANES_M: u32 = 1u;
const LANES_N: u32 = 4u;
const LANES_K: u32 = 32u;
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
    depth: u32,
    rank: u32,
    padded_rank: u32,
    scale: f32,
    @align(16) x: Matrix,
    @align(16) a: Matrix,
    @align(16) kept: Matrix,
    @align(16) t: Matrix,
}

@group(0) @binding(0) var<storage, read> x: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read> a: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read_write> kept: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> workspace: array<vec4<f32>>;
@group(0) @binding(4) var<uniform> p: Params;

// shrink · WGSL
//
// computes   shrunk = s·x·aᵀ, rounded once as it is stored (precise: a high and a low part);
//            t, in the workspace and in f32, is what was stored; kept, the caller's copy
// tile       TILE_TOKENS · LANES_M tokens × 4 · LANES_N ranks; of it a thread has TILE_TOKENS × 4
//            in registers, read straight from memory
// threads    LANES_N along the ranks × LANES_K that share each sum × LANES_M along the tokens
// workgroup  memory: the parts of the sums on their way to one thread
// serves     the first launch of TwoPass; backward_shrink, which has no t
//
// needs: TILE_TOKENS, LANES_M, LANES_N, LANES_K, Tile, p.depth
// needs: add_x_a, reduce_lanes, QUADS, finish_shrunk
// needs: t_put // where t
// gives: shrink

@compute @workgroup_size(LANES_N, LANES_K, LANES_M)
fn shrink(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) id: vec3<u32>) {
    let first_token = group.x * TILE_TOKENS * LANES_M;
    let first_rank = group.y * LANES_N * 4u;

    // ── multiply ─────────────────────────────────────────────────────────
    var tile: Tile;
    let token = first_token + id.z * TILE_TOKENS;
    add_x_a(&tile, token, first_rank + 4u * id.x, p.depth, id.y, LANES_K);

    // ── finish: scaled, the pad zero, rounded once ───────────────────────
    let sum = reduce_lanes(&tile, id);
    let quad = (id.z * LANES_K + id.y) * LANES_N + id.x;
    if (quad < QUADS) {
        let row = first_token + quad / LANES_N;
        let rank = first_rank + 4u * (quad % LANES_N);
        let stored = finish_shrunk(row, rank, sum, true);
        t_put(row, rank, stored); // where t
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

// reduce_lanes · adds the sums that several threads have parts of
//
// needs: Tile, TILE_TOKENS, LANES_M, LANES_N, LANES_K
// gives: reduce_lanes, QUADS, lane_sums
//
// LANES_K threads have a part of each sum of the workgroup's tile. The parts go through workgroup
// memory; afterwards the first QUADS threads have four columns of one token each. Every thread of
// the workgroup calls this. Parts are added in the order of the lanes. Where a sum is shared,
// TILE_FOURS is 1.

const QUADS = TILE_TOKENS * LANES_M * LANES_N;
var<workgroup> lane_sums: array<vec4<f32>, QUADS * LANES_K>;

fn reduce_lanes(tile: ptr<function, Tile>, id: vec3<u32>) -> vec4<f32> {
    for (var m = 0u; m < TILE_TOKENS; m++) {
        lane_sums[((id.z * TILE_TOKENS + m) * LANES_N + id.x) * LANES_K + id.y] = (*tile)[m];
    }
    workgroupBarrier();
    // Threads behind the last sum add the first one again, and nobody asks them.
    let quad = (id.z * LANES_K + id.y) * LANES_N + id.x;
    let first = select(0u, quad, quad < QUADS) * LANES_K;
    var sum = lane_sums[first];
    for (var i = 1u; i < LANES_K; i++) { sum += lane_sums[first + i]; }
    return sum;
}

// shrunk · four ranks of shrunk from their sums
//
// needs: p.scale, p.rank, round_bf16
// needs: p.padded_rank, kept_put // where kept
// gives: finish_shrunk
//
// Scaled, the pad behind the rank zero, rounded once as it is stored. Precise: a high part, and a
// low one of what that left. Returns what was stored; with `keeps` it goes to the caller's copy.

fn finish_shrunk(token: u32, rank: u32, sum: vec4<f32>, keeps: bool) -> vec4<f32> {
    let ranks = vec4(rank) + vec4(0u, 1u, 2u, 3u);
    let value = select(vec4<f32>(), p.scale * sum, ranks < vec4(p.rank));
    let high = round_bf16(value);
    var low = vec4<f32>();
    // The rank with its pad: behind it begins the low part, or what is not shrunk's.
    if (keeps && rank < p.padded_rank) { // where kept
        kept_put(token, rank, high); // where kept
    } // where kept
    return high + low;
}

// write_16x4 · kept is bf16, written four at a time; rows begin at multiples of four and hold a
// multiple of four
//
// needs: kept, p.kept, index_inside, index_of, widen_bf16, narrow_bf16
// gives: kept_old, kept_put

fn kept_old(row: u32, col: u32) -> vec4<f32> {
    let words = kept[index_of(p.kept, row, col) >> 2u];
    return vec4(widen_bf16(words.x), widen_bf16(words.y));
}
fn kept_put(row: u32, col: u32, value: vec4<f32>) {
    let bits = narrow_bf16(value);
    if (row > p.kept.last_row || col > p.kept.last_col) { return; }
    let words = vec2(bits.x | (bits.y << 16u), bits.z | (bits.w << 16u));
    kept[index_inside(p.kept, row, col) >> 2u] = words;
}

// write_f32x4 · t is f32, written four at a time; rows begin at multiples of four and hold a
// multiple of four
//
// needs: workspace, p.t, index_inside, index_of
// gives: t_old, t_put

fn t_old(row: u32, col: u32) -> vec4<f32> { return workspace[index_of(p.t, row, col) >> 2u]; }
fn t_put(row: u32, col: u32, value: vec4<f32>) {
    if (row > p.t.last_row || col > p.t.last_col) { return; }
    workspace[index_inside(p.t, row, col) >> 2u] = value;
}
