const TILE_TOKENS: u32 = 4u;
const TILE_FOURS: u32 = 1u;
const THREADS_M: u32 = 16u;
const THREADS_N: u32 = 16u;
const DEPTH: u32 = 16u;
const b_K_MAJOR: bool = true;
const w_K_MAJOR: bool = true;

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

// linear · WGSL
//
// computes   y = x·wᵀ + shrunk·bᵀ (+ bias), shrunk from the workspace
// tile       TILE_M tokens × 4·THREADS_N columns; of it a thread has TILE_TOKENS × 4 in registers
// threads    THREADS_N along the columns × THREADS_M along the tokens
// workgroup  memory: staged = [ DEPTH steps of x | as many of w ]
// serves     forward and, with the roles turned, backward_input: many tokens on a GPU
//
// needs: TILE_TOKENS, THREADS_M, THREADS_N, DEPTH, Tile, p.depth, p.groups_y, add_x_w, finish
// needs: add_border // where border
// gives: linear, staged, TILE_M, AT_W

const TILE_M = TILE_TOKENS * THREADS_M;
const AT_W = TILE_M * DEPTH / 4u;
var<workgroup> staged: array<vec4<f32>, AT_W + THREADS_N * DEPTH>;

@compute @workgroup_size(THREADS_N, THREADS_M)
fn linear(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) id: vec3<u32>) {
    let token = group.x * TILE_M;
    let col = (group.z * p.groups_y + group.y) * THREADS_N * 4u;

    // ── multiply, then the border: shrunk meets b ────────────────────────
    var tile: Tile;
    add_x_w(&tile, token, col, p.depth, id.xy);
    let own_token = token + id.y * TILE_TOKENS;
    let own_col = col + 4u * id.x;
    add_border(&tile, own_token, own_col, 0u, 1u); // where border

    // ── finish: bias, β, rounded once ────────────────────────────────────
    for (var m = 0u; m < TILE_TOKENS; m++) {
        finish(own_token + m, own_col, tile[m]);
    }
}

// tile · a thread's sums: four columns of one token each, tokens one below the other
//
// needs: TILE_TOKENS, TILE_FOURS
// gives: Tile

alias Tile = array<vec4<f32>, TILE_TOKENS * TILE_FOURS>;

// staged · x·wᵀ through workgroup memory, DEPTH steps at a time
//
// needs: Tile, TILE_TOKENS, TILE_M, AT_W, THREADS_M, THREADS_N, DEPTH, staged
// needs: stage_rows_x, stage_columns_w, staged_columns_w, add_step
// gives: add_x_w
//
// tile[m] += x·wᵀ for the workgroup's tile, a sum of `depth` products; `token` and `col` are
// the tile's first. Every thread of the workgroup calls this.

fn add_x_w(tile: ptr<function, Tile>, token: u32, col: u32, depth: u32, id: vec2<u32>) {
    let thread = id.y * THREADS_N + id.x;
    for (var first = 0u; first < depth; first += DEPTH) {
        stage_rows_x(token, first, depth, thread);
        stage_columns_w(AT_W, THREADS_N, col, first, depth, thread);
        workgroupBarrier();
        for (var k4 = 0u; k4 < DEPTH / 4u; k4++) {
            let columns = staged_columns_w(AT_W, THREADS_N, k4, id.x);
            for (var m = 0u; m < TILE_TOKENS; m++) {
                let word = staged[k4 * TILE_M + m * THREADS_M + id.y];
                (*tile)[m] = add_step((*tile)[m], word, columns);
            }
        }
        workgroupBarrier();
    }
}

// stage_rows · DEPTH steps of x's rows from `token` on, into workgroup memory
//
// needs: TILE_M, TILE_TOKENS, THREADS_M, THREADS_N, DEPTH, staged, x_four
// gives: stage_rows_x
//
// They lie in `staged` at [four steps][row of the tile]: a word is four steps of one row. Rows are
// dealt out so that threads that lie one below the other read words side by side: row r of the tile
// is word r % TILE_TOKENS · THREADS_M + r / TILE_TOKENS.

fn stage_rows_x(token: u32, first: u32, depth: u32, thread: u32) {
    for (var i = thread; i < TILE_M * DEPTH / 4u; i += THREADS_M * THREADS_N) {
        let row = i / (DEPTH / 4u);
        let k4 = i % (DEPTH / 4u);
        let k = vec4(first + 4u * k4) + vec4(0u, 1u, 2u, 3u);
        let four = select(vec4<f32>(), x_four(token + row, k.x), k < vec4(depth));
        staged[k4 * TILE_M + (row % TILE_TOKENS) * THREADS_M + row / TILE_TOKENS] = four;
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

// stage_columns · DEPTH steps of w's columns from `col` on, into workgroup memory
//
// needs: THREADS_M, THREADS_N, DEPTH, staged, w_K_MAJOR, w_four
// gives: stage_columns_w, staged_columns_w
//
// `fours` groups of four columns, into `staged` from word `at` on. Where the sum runs along w's
// stored rows a word is four steps of one column, at [four steps][column of its group][group];
// else it is one step of four columns, at [step][group].

fn stage_columns_w(at: u32, fours: u32, col: u32, first: u32, depth: u32, thread: u32) {
    for (var i = thread; i < fours * DEPTH; i += THREADS_M * THREADS_N) {
        if (w_K_MAJOR) {
            let row = i / (DEPTH / 4u);
            let k4 = i % (DEPTH / 4u);
            let k = vec4(first + 4u * k4) + vec4(0u, 1u, 2u, 3u);
            let four = select(vec4<f32>(), w_four(col + row, k.x), k < vec4(depth));
            staged[at + (4u * k4 + row % 4u) * fours + row / 4u] = four;
        } else {
            let k = i / fours;
            let four = w_four(first + k, col + 4u * (i % fours));
            staged[at + k * fours + i % fours] = select(vec4<f32>(), four, first + k < depth);
        }
    }
}
// Four steps of four columns as `stage_columns_w` left them: step by step, columns side by
// side.
fn staged_columns_w(at: u32, fours: u32, k4: u32, group: u32) -> mat4x4<f32> {
    let first = at + 4u * k4 * fours + group;
    let columns = mat4x4(
        staged[first], staged[first + fours],
        staged[first + 2u * fours], staged[first + 3u * fours],
    );
    if (w_K_MAJOR) { return transpose(columns); }
    return columns;
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
