const TILE_TOKENS: u32 = 4u;
const TILE_FOURS: u32 = 1u;
const LANES_M: u32 = 4u;
const LANES_N: u32 = 4u;
const LANES_K: u32 = 16u;
const x_K_MAJOR: bool = true;
const b_K_MAJOR: bool = true;
const w_K_MAJOR: bool = true;
const x_w_WHOLE: bool = true;

// A stored matrix, in elements: where it begins in its binding, from row to row, its last ones.
struct Matrix {
    offset: u32,
    stride: u32,
    last_row: u32,
    last_col: u32,
}
struct Params {
    depth: u32,
    beta: f32,
    rank: u32,
    groups_y: u32,
    @align(16) x: Matrix,
    @align(16) bias: Matrix,
    @align(16) y: Matrix,
    @align(16) t: Matrix,
    @align(16) b: Matrix,
    @align(16) w: Matrix,
}

@group(0) @binding(0) var<storage, read> x: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read> bias: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> workspace: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> b: array<vec2<u32>>;
@group(0) @binding(5) var<storage, read> w: array<vec2<u32>>;
@group(0) @binding(6) var<uniform> p: Params;

// decode · WGSL
//
// computes   y = x·wᵀ + shrunk·bᵀ (+ bias), shrunk from the workspace
// tile       TILE_TOKENS · LANES_M tokens × 4 · TILE_FOURS · LANES_N columns; of it a thread has
//            TILE_TOKENS × 4 · TILE_FOURS in registers, read straight from memory
// threads    LANES_N along the columns × LANES_K that share each sum × LANES_M along the tokens
// workgroup  memory: the parts of the sums on their way to one thread; none where LANES_K = 1
// serves     forward and, with the roles turned, backward_input: few tokens or few columns, where
//            w is read once; and software drivers, where barriers cost more than loads
//
// needs: TILE_TOKENS, TILE_FOURS, LANES_M, LANES_N, LANES_K, Tile, p.depth, p.groups_y, add_x_w
// needs: add_border // where border
// needs: reduce_lanes, QUADS, finish // where sharing
// gives: decode

@compute @workgroup_size(LANES_N, LANES_K, LANES_M)
fn decode(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) id: vec3<u32>) {
    let first_token = group.x * TILE_TOKENS * LANES_M;
    let first_col = (group.z * p.groups_y + group.y) * LANES_N * 4u * TILE_FOURS;
    let lane = select(id.y, 0u, LANES_K == 1u);
    let token = first_token + select(id.z, 0u, LANES_M == 1u) * TILE_TOKENS;
    let col = first_col + 4u * TILE_FOURS * id.x;

    // ── multiply, then the border: shrunk meets b ────────────────────────
    var tile: Tile;
    add_x_w(&tile, token, col, p.depth, lane, LANES_K);
    add_border(&tile, token, col, lane, LANES_K); // where border

    // ── finish: bias, β, rounded once ────────────────────────────────────
    let sum = reduce_lanes(&tile, id); // where sharing
    let quad = (id.z * LANES_K + id.y) * LANES_N + id.x; // where sharing
    let sum_token = first_token + quad / LANES_N; // where sharing
    let sum_col = first_col + 4u * (quad % LANES_N); // where sharing
    if (quad < QUADS) { finish(sum_token, sum_col, sum); } // where sharing
}

// tile · a thread's sums: four columns of one token each, tokens one below the other
//
// needs: TILE_TOKENS, TILE_FOURS
// gives: Tile

alias Tile = array<vec4<f32>, TILE_TOKENS * TILE_FOURS>;

// product · x·wᵀ straight from memory, four steps at a time
//
// needs: Tile, TILE_TOKENS, x_K_MAJOR, x_at, x_four, w_columns, x_w_WHOLE
// needs: add_step
// gives: add_x_w, x_steps
//
// tile[m] += x[token + m]·w[col .. col + 4]ᵀ, a sum of `depth` products. `lanes` threads
// share it: this one takes every lanes-th group of four steps. Where the depth is no multiple of
// four, what lies behind the end is zero on both sides.

fn x_steps(token: u32, k: u32) -> vec4<f32> {
    if (x_K_MAJOR) { return x_four(token, k); }
    return vec4(
        x_at(k, token), x_at(k + 1u, token), x_at(k + 2u, token), x_at(k + 3u, token),
    );
}
fn add_x_w(
    tile: ptr<function, Tile>, token: u32, col: u32, depth: u32, lane: u32, lanes: u32,
) {
    for (var k = 4u * lane; k < depth; k += 4u * lanes) {
        let inside = vec4(k) + vec4(0u, 1u, 2u, 3u) < vec4(depth);
        var columns = w_columns(k, col);
        if (!x_w_WHOLE) {
            columns[1] = select(vec4<f32>(), columns[1], inside.y);
            columns[2] = select(vec4<f32>(), columns[2], inside.z);
            columns[3] = select(vec4<f32>(), columns[3], inside.w);
        }
        for (var m = 0u; m < TILE_TOKENS; m++) {
            var x = x_steps(token + m, k);
            if (!x_w_WHOLE) { x = select(vec4<f32>(), x, inside); }
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

// columns · four steps of four columns of w, from step `k` and column `col` on: step by step,
// columns side by side, however w is stored
//
// needs: w_K_MAJOR, w_four
// gives: w_columns

fn w_columns(k: u32, col: u32) -> mat4x4<f32> {
    if (w_K_MAJOR) {
        return transpose(mat4x4(
            w_four(col, k), w_four(col + 1u, k),
            w_four(col + 2u, k), w_four(col + 3u, k),
        ));
    }
    return mat4x4(
        w_four(k, col), w_four(k + 1u, col),
        w_four(k + 2u, col), w_four(k + 3u, col),
    );
}

// read_16x4 · w is bf16, read four at a time; rows begin at multiples of four and hold a
// multiple of four
//
// needs: w, p.w, index_of, widen_bf16
// gives: w_at, w_four

fn w_at(row: u32, col: u32) -> f32 {
    let i = index_of(p.w, row, col);
    return widen_bf16(w[i >> 2u][(i >> 1u) & 1u] >> (16u * (i & 1u))).x;
}
fn w_four(row: u32, col: u32) -> vec4<f32> {
    let words = w[index_of(p.w, row, col) >> 2u];
    return vec4(widen_bf16(words.x), widen_bf16(words.y));
}

// step · four steps of a sum: the products of x with four columns, each a component
//
// gives: add_step

fn add_step(sum: vec4<f32>, x: vec4<f32>, columns: mat4x4<f32>) -> vec4<f32> {
    let half_way = fma(vec4(x.y), columns[1], fma(vec4(x.x), columns[0], sum));
    return fma(vec4(x.w), columns[3], fma(vec4(x.z), columns[2], half_way));
}

// border · shrunk meets b
//
// needs: Tile, TILE_TOKENS, TILE_FOURS, p.rank, b_column, t_at
// gives: add_border
//
// tile[m] += shrunk[token + m]·b[col .. col + 4 · TILE_FOURS]ᵀ, rank by rank, straight from memory:
// the ranks are few beside the steps of x·wᵀ, and shrunk's rows and b's columns lie in the caches.
// `lanes` threads share the sum: this one takes every lanes-th rank.

fn add_border(tile: ptr<function, Tile>, token: u32, col: u32, lane: u32, lanes: u32) {
    for (var rank = lane; rank < p.rank; rank += lanes) {
        var columns: array<vec4<f32>, TILE_FOURS>;
        for (var n = 0u; n < TILE_FOURS; n++) { columns[n] = b_column(rank, col + 4u * n); }
        for (var m = 0u; m < TILE_TOKENS; m++) {
            let shrunk = t_at(token + m, rank);
            for (var n = 0u; n < TILE_FOURS; n++) {
                let i = m * TILE_FOURS + n;
                (*tile)[i] = fma(vec4(shrunk), columns[n], (*tile)[i]);
            }
        }
    }
}

// column · one step of four columns of b, from column `col` on, however b is stored
//
// needs: b_K_MAJOR, b_at, b_four
// gives: b_column

fn b_column(k: u32, col: u32) -> vec4<f32> {
    if (b_K_MAJOR) {
        return vec4(
            b_at(col, k), b_at(col + 1u, k), b_at(col + 2u, k), b_at(col + 3u, k),
        );
    }
    return b_four(k, col);
}

// read_16x4 · b is bf16, read four at a time; rows begin at multiples of four and hold a
// multiple of four
//
// needs: b, p.b, index_of, widen_bf16
// gives: b_at, b_four

fn b_at(row: u32, col: u32) -> f32 {
    let i = index_of(p.b, row, col);
    return widen_bf16(b[i >> 2u][(i >> 1u) & 1u] >> (16u * (i & 1u))).x;
}
fn b_four(row: u32, col: u32) -> vec4<f32> {
    let words = b[index_of(p.b, row, col) >> 2u];
    return vec4(widen_bf16(words.x), widen_bf16(words.y));
}

// read_f32x4 · t is f32, read four at a time; rows begin at multiples of four and hold a
// multiple of four
//
// needs: workspace, p.t, index_of
// gives: t_at, t_four

fn t_at(row: u32, col: u32) -> f32 {
    let i = index_of(p.t, row, col);
    return workspace[i >> 2u][i & 3u];
}
fn t_four(row: u32, col: u32) -> vec4<f32> { return workspace[index_of(p.t, row, col) >> 2u]; }

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

// finish · bias, then β·old; `y_put` rounds once
//
// needs: p.beta, y_old, y_put
// needs: bias_four // where bias
// gives: finish

fn finish(token: u32, col: u32, sum: vec4<f32>) {
    var value = sum;
    value += bias_four(0u, col); // where bias
    if (p.beta != 0.0) { value = fma(vec4(p.beta), y_old(token, col), value); }
    y_put(token, col, value);
}

// write_16x4 · y is bf16, written four at a time; rows begin at multiples of four and hold a
// multiple of four
//
// needs: y, p.y, index_inside, index_of, widen_bf16, narrow_bf16
// gives: y_old, y_put

fn y_old(row: u32, col: u32) -> vec4<f32> {
    let words = y[index_of(p.y, row, col) >> 2u];
    return vec4(widen_bf16(words.x), widen_bf16(words.y));
}
fn y_put(row: u32, col: u32, value: vec4<f32>) {
    let bits = narrow_bf16(value);
    if (row > p.y.last_row || col > p.y.last_col) { return; }
    let words = vec2(bits.x | (bits.y << 16u), bits.z | (bits.w << 16u));
    y[index_inside(p.y, row, col) >> 2u] = words;
}

// read_16x4 · bias is bf16, read four at a time; rows begin at multiples of four and hold a
// multiple of four
//
// needs: bias, p.bias, index_of, widen_bf16
// gives: bias_at, bias_four

fn bias_at(row: u32, col: u32) -> f32 {
    let i = index_of(p.bias, row, col);
    return widen_bf16(bias[i >> 2u][(i >> 1u) & 1u] >> (16u * (i & 1u))).x;
}
fn bias_four(row: u32, col: u32) -> vec4<f32> {
    let words = bias[index_of(p.bias, row, col) >> 2u];
    return vec4(widen_bf16(words.x), widen_bf16(words.y));
}
