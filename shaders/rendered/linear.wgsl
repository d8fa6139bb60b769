const TILE_TOKENS: u32 = 4u;
const TILE_FOURS: u32 = 1u;
const THREADS_M: u32 = 16u;
const THREADS_N: u32 = 16u;
const DEPTH: u32 = 16u;
const b_K_MAJOR: bool = true;
const w_K_MAJOR: bool = true;
const SLICES: u32 = 1u;

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
    padded_rank: u32,
    scale: f32,
    groups_y: u32,
    tokens: u32,
    @align(16) x: Matrix,
    @align(16) bias: Matrix,
    @align(16) y: Matrix,
    @align(16) slices: Matrix,
    @align(16) b: Matrix,
    @align(16) kept: Matrix,
    @align(16) w: Matrix,
}

@group(0) @binding(0) var<storage, read> x: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read> bias: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> workspace: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> b: array<vec2<u32>>;
@group(0) @binding(5) var<storage, read_write> kept: array<vec2<u32>>;
@group(0) @binding(6) var<storage, read> w: array<vec2<u32>>;
@group(0) @binding(7) var<uniform> p: Params;

// linear · WGSL
//
// computes   y = gain∘(x·wᵀ + shrunk·bᵀ) (+ bias), shrunk from the workspace, in slices of its sums
// tile       TILE_M tokens × 4·FOURS_N columns; of it a thread has TILE_TOKENS × 4·TILE_FOURS in
//            registers: every THREADS_M-th token, every THREADS_N-th group of four columns
// threads    THREADS_N along the columns × THREADS_M along the tokens
// workgroup  memory: staged = [ DEPTH steps of x | as many of w ], then [ of shrunk | of b ]
// serves     forward and, with the roles turned, backward_input: many tokens on a GPU
//
// needs: TILE_TOKENS, TILE_FOURS, THREADS_M, THREADS_N, DEPTH, ROW_SLAB, Tile
// needs: p.depth, p.groups_y, add_x_w, finish
// needs: add_t_b, p.rank // where border
// needs: keep_shrunk // where kept
// gives: linear, staged, TILE_M, FOURS_N, AT_COLUMNS

const TILE_M = TILE_TOKENS * THREADS_M;
const FOURS_N = TILE_FOURS * THREADS_N;
const AT_COLUMNS = ROW_SLAB * DEPTH / 4u;
var<workgroup> staged: array<vec4<f32>, AT_COLUMNS + (4u * (FOURS_N | 4u) + 1u) * DEPTH / 4u>;

@compute @workgroup_size(THREADS_N, THREADS_M)
fn linear(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) id: vec3<u32>) {
    let token = group.x * TILE_M;
    let col = (group.z * p.groups_y + group.y) * FOURS_N * 4u;

    // ── multiply, then the border: shrunk meets b ────────────────────────
    var tile: Tile;
    add_x_w(&tile, token, col, p.depth, id.xy);
    // Of w a part is bound: its first column is one of all.
    var first_col = col;
    add_t_b(&tile, token, first_col, p.rank, id.xy); // where border

    // ── finish: gain, bias, β, rounded once ──────────────────────────────
    for (var m = 0u; m < TILE_TOKENS; m++) {
        for (var n = 0u; n < TILE_FOURS; n++) {
            let own_col = first_col + 4u * (n * THREADS_N + id.x);
            finish(token + m * THREADS_M + id.y, own_col, tile[m * TILE_FOURS + n]);
        }
    }
    if (group.y == 0u && group.z == 0u) { // where kept
        keep_shrunk(token, TILE_M, id.y * THREADS_N + id.x, THREADS_M * THREADS_N); // where kept
    } // where kept
}

// row_slab · words from one group of four steps of staged rows to the next
//
// needs: TILE_M
// gives: ROW_SLAB
//
// Two more than the rows: eight threads that store side by side, two rows of four groups, then meet
// eight different groups of banks.

const ROW_SLAB = TILE_M + 2u;

// tile · a thread's sums: four columns of one token each, tokens one below the other
//
// needs: TILE_TOKENS, TILE_FOURS
// gives: Tile

alias Tile = array<vec4<f32>, TILE_TOKENS * TILE_FOURS>;

// staged · x·wᵀ through workgroup memory, DEPTH steps at a time
//
// needs: Tile, FOURS_N, AT_COLUMNS, THREADS_N, DEPTH
// needs: stage_rows_x, stage_columns_w, multiply_staged_w
// gives: add_x_w
//
// tile += x·wᵀ for the workgroup's tile, a sum of `depth` products; `token` and `col` are
// the tile's first. Every thread of the workgroup calls this.

fn add_x_w(tile: ptr<function, Tile>, token: u32, col: u32, depth: u32, id: vec2<u32>) {
    let thread = id.y * THREADS_N + id.x;
    for (var first = 0u; first < depth; first += DEPTH) {
        stage_rows_x(token, first, depth, thread);
        stage_columns_w(AT_COLUMNS, FOURS_N, col, first, depth, thread);
        workgroupBarrier();
        multiply_staged_w(tile, 0u, AT_COLUMNS, id);
        workgroupBarrier();
    }
}

// stage_rows · DEPTH steps of x's rows from `token` on, into workgroup memory
//
// needs: TILE_M, ROW_SLAB, THREADS_M, THREADS_N, DEPTH, staged, x_four
// gives: stage_rows_x
//
// They lie in `staged` at [four steps][row of the tile]: a word is four steps of one row.

fn stage_rows_x(token: u32, first: u32, depth: u32, thread: u32) {
    for (var i = thread; i < TILE_M * DEPTH / 4u; i += THREADS_M * THREADS_N) {
        let row = i / (DEPTH / 4u);
        let k4 = i % (DEPTH / 4u);
        let k = vec4(first + 4u * k4) + vec4(0u, 1u, 2u, 3u);
        let four = select(vec4<f32>(), x_four(token + row, k.x), k < vec4(depth));
        staged[k4 * ROW_SLAB + row] = four;
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
// else it is one step of four columns, at [four steps][step of them][group]. Either way a column or
// step is `fours | 4` words from the next, and four steps are one word more than four of these:
// threads that store side by side then meet different banks (`fours` is 4, or a multiple of 8).

fn stage_columns_w(at: u32, fours: u32, col: u32, first: u32, depth: u32, thread: u32) {
    let next = fours | 4u;
    for (var i = thread; i < fours * DEPTH; i += THREADS_M * THREADS_N) {
        if (w_K_MAJOR) {
            let row = i / (DEPTH / 4u);
            let k4 = i % (DEPTH / 4u);
            let k = vec4(first + 4u * k4) + vec4(0u, 1u, 2u, 3u);
            let four = select(vec4<f32>(), w_four(col + row, k.x), k < vec4(depth));
            staged[at + k4 * (4u * next + 1u) + row % 4u * next + row / 4u] = four;
        } else {
            let k = i / fours;
            let four = w_four(first + k, col + 4u * (i % fours));
            let word = at + k / 4u * (4u * next + 1u) + k % 4u * next + i % fours;
            staged[word] = select(vec4<f32>(), four, first + k < depth);
        }
    }
}
// Four steps of four columns as `stage_columns_w` left them: step by step, columns side by
// side.
fn staged_columns_w(at: u32, fours: u32, k4: u32, group: u32) -> mat4x4<f32> {
    let next = fours | 4u;
    let first = at + k4 * (4u * next + 1u) + group;
    let columns = mat4x4(
        staged[first], staged[first + next], staged[first + 2u * next], staged[first + 3u * next],
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

// multiply_staged · DEPTH steps of a sum from workgroup memory
//
// needs: Tile, TILE_TOKENS, TILE_FOURS, FOURS_N, ROW_SLAB, THREADS_M, THREADS_N, DEPTH, staged
// needs: staged_columns_w, add_step
// gives: multiply_staged_w
//
// The rows lie from word `rows` on, w's columns from word `columns` on. Threads side by side
// have the same rows and neighbouring groups of columns.

fn multiply_staged_w(tile: ptr<function, Tile>, rows: u32, columns: u32, id: vec2<u32>) {
    for (var k4 = 0u; k4 < DEPTH / 4u; k4++) {
        var own: array<mat4x4<f32>, TILE_FOURS>;
        for (var n = 0u; n < TILE_FOURS; n++) {
            own[n] = staged_columns_w(columns, FOURS_N, k4, n * THREADS_N + id.x);
        }
        for (var m = 0u; m < TILE_TOKENS; m++) {
            let word = staged[rows + k4 * ROW_SLAB + m * THREADS_M + id.y];
            for (var n = 0u; n < TILE_FOURS; n++) {
                let i = m * TILE_FOURS + n;
                (*tile)[i] = add_step((*tile)[i], word, own[n]);
            }
        }
    }
}

// step · four steps of a sum: the products of x with four columns, each a component
//
// gives: add_step

fn add_step(sum: vec4<f32>, x: vec4<f32>, columns: mat4x4<f32>) -> vec4<f32> {
    let half_way = fma(vec4(x.y), columns[1], fma(vec4(x.x), columns[0], sum));
    return fma(vec4(x.w), columns[3], fma(vec4(x.z), columns[2], half_way));
}

// finish · gain, bias, then β·old; `y_put` rounds once
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

// staged · t·bᵀ through workgroup memory, DEPTH steps at a time
//
// needs: Tile, FOURS_N, AT_COLUMNS, THREADS_N, DEPTH
// needs: stage_rows_t, stage_columns_b, multiply_staged_b
// gives: add_t_b
//
// tile += t·bᵀ for the workgroup's tile, a sum of `depth` products; `token` and `col` are
// the tile's first. Every thread of the workgroup calls this.

fn add_t_b(tile: ptr<function, Tile>, token: u32, col: u32, depth: u32, id: vec2<u32>) {
    let thread = id.y * THREADS_N + id.x;
    for (var first = 0u; first < depth; first += DEPTH) {
        stage_rows_t(token, first, depth, thread);
        stage_columns_b(AT_COLUMNS, FOURS_N, col, first, depth, thread);
        workgroupBarrier();
        multiply_staged_b(tile, 0u, AT_COLUMNS, id);
        workgroupBarrier();
    }
}

// stage_rows · DEPTH steps of t's rows from `token` on, into workgroup memory
//
// needs: TILE_M, ROW_SLAB, THREADS_M, THREADS_N, DEPTH, staged, t_four
// gives: stage_rows_t
//
// They lie in `staged` at [four steps][row of the tile]: a word is four steps of one row.

fn stage_rows_t(token: u32, first: u32, depth: u32, thread: u32) {
    for (var i = thread; i < TILE_M * DEPTH / 4u; i += THREADS_M * THREADS_N) {
        let row = i / (DEPTH / 4u);
        let k4 = i % (DEPTH / 4u);
        let k = vec4(first + 4u * k4) + vec4(0u, 1u, 2u, 3u);
        let four = select(vec4<f32>(), t_four(token + row, k.x), k < vec4(depth));
        staged[k4 * ROW_SLAB + row] = four;
    }
}

// slices · shrunk from the slices of its sums in the workspace
//
// needs: SLICES, p.tokens, slices_four, finish_shrunk
// needs: p.padded_rank // where kept
// gives: t_four
// gives: keep_shrunk
//
// Slices are added in their order; four are read at a time, so that a thread waits for memory once
// for all of them.

fn slice_sum(row: u32, rank: u32) -> vec4<f32> {
    if (SLICES < 4u) { return slices_four(row, rank); }
    var sum = vec4<f32>();
    for (var slice = 0u; slice < SLICES; slice += 4u) {
        let first = slices_four(slice * p.tokens + row, rank);
        let second = slices_four((slice + 1u) * p.tokens + row, rank);
        let third = slices_four((slice + 2u) * p.tokens + row, rank);
        let fourth = slices_four((slice + 3u) * p.tokens + row, rank);
        sum = sum + first + second + third + fourth;
    }
    return sum;
}
fn t_four(row: u32, rank: u32) -> vec4<f32> {
    return finish_shrunk(row, rank, slice_sum(row, rank), false);
}
// The caller's copy of `tokens` rows from `token` on, by all threads of a workgroup.
fn keep_shrunk(token: u32, tokens: u32, thread: u32, threads: u32) { // where kept
    for (var i = thread; i < tokens * p.padded_rank / 4u; i += threads) { // where kept
        let row = token + i % tokens; // where kept
        let rank = i / tokens * 4u; // where kept
        _ = finish_shrunk(row, rank, slice_sum(row, rank), true); // where kept
    } // where kept
} // where kept

// read_f32x4 · slices is f32, read four at a time; rows begin at multiples of four and hold a
// multiple of four
//
// needs: workspace, p.slices, index_of
// gives: slices_at, slices_four

fn slices_at(row: u32, col: u32) -> f32 {
    let i = index_of(p.slices, row, col);
    return workspace[i >> 2u][i & 3u];
}
fn slices_four(row: u32, col: u32) -> vec4<f32> { return workspace[index_of(p.slices, row, col) >> 2u]; }

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

// stage_columns · DEPTH steps of b's columns from `col` on, into workgroup memory
//
// needs: THREADS_M, THREADS_N, DEPTH, staged, b_K_MAJOR, b_four
// gives: stage_columns_b, staged_columns_b
//
// `fours` groups of four columns, into `staged` from word `at` on. Where the sum runs along b's
// stored rows a word is four steps of one column, at [four steps][column of its group][group];
// else it is one step of four columns, at [four steps][step of them][group]. Either way a column or
// step is `fours | 4` words from the next, and four steps are one word more than four of these:
// threads that store side by side then meet different banks (`fours` is 4, or a multiple of 8).

fn stage_columns_b(at: u32, fours: u32, col: u32, first: u32, depth: u32, thread: u32) {
    let next = fours | 4u;
    for (var i = thread; i < fours * DEPTH; i += THREADS_M * THREADS_N) {
        if (b_K_MAJOR) {
            let row = i / (DEPTH / 4u);
            let k4 = i % (DEPTH / 4u);
            let k = vec4(first + 4u * k4) + vec4(0u, 1u, 2u, 3u);
            let four = select(vec4<f32>(), b_four(col + row, k.x), k < vec4(depth));
            staged[at + k4 * (4u * next + 1u) + row % 4u * next + row / 4u] = four;
        } else {
            let k = i / fours;
            let four = b_four(first + k, col + 4u * (i % fours));
            let word = at + k / 4u * (4u * next + 1u) + k % 4u * next + i % fours;
            staged[word] = select(vec4<f32>(), four, first + k < depth);
        }
    }
}
// Four steps of four columns as `stage_columns_b` left them: step by step, columns side by
// side.
fn staged_columns_b(at: u32, fours: u32, k4: u32, group: u32) -> mat4x4<f32> {
    let next = fours | 4u;
    let first = at + k4 * (4u * next + 1u) + group;
    let columns = mat4x4(
        staged[first], staged[first + next], staged[first + 2u * next], staged[first + 3u * next],
    );
    if (b_K_MAJOR) { return transpose(columns); }
    return columns;
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

// multiply_staged · DEPTH steps of a sum from workgroup memory
//
// needs: Tile, TILE_TOKENS, TILE_FOURS, FOURS_N, ROW_SLAB, THREADS_M, THREADS_N, DEPTH, staged
// needs: staged_columns_b, add_step
// gives: multiply_staged_b
//
// The rows lie from word `rows` on, b's columns from word `columns` on. Threads side by side
// have the same rows and neighbouring groups of columns.

fn multiply_staged_b(tile: ptr<function, Tile>, rows: u32, columns: u32, id: vec2<u32>) {
    for (var k4 = 0u; k4 < DEPTH / 4u; k4++) {
        var own: array<mat4x4<f32>, TILE_FOURS>;
        for (var n = 0u; n < TILE_FOURS; n++) {
            own[n] = staged_columns_b(columns, FOURS_N, k4, n * THREADS_N + id.x);
        }
        for (var m = 0u; m < TILE_TOKENS; m++) {
            let word = staged[rows + k4 * ROW_SLAB + m * THREADS_M + id.y];
            for (var n = 0u; n < TILE_FOURS; n++) {
                let i = m * TILE_FOURS + n;
                (*tile)[i] = add_step((*tile)[i], word, own[n]);
            }
        }
    }
}
