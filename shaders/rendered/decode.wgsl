const TILE_TOKENS: u32 = 4u;
const TILE_FOURS: u32 = 1u;
const LANES_M: u32 = 4u;
const LANES_N: u32 = 4u;
const LANES_K: u32 = 16u;
const b_K_MAJOR: bool = true;
const w_K_MAJOR: bool = true;
const x_w_WHOLE: bool = true;
const SLICES: u32 = 1u;
const t_b_WHOLE: bool = true;

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

// decode · WGSL
//
// computes   y = gain∘(x·wᵀ + shrunk·bᵀ) (+ bias), shrunk from the workspace: as it was stored, or
//            where sums are shared in slices of its sums
// tile       TILE_TOKENS · LANES_M tokens × 4 · TILE_FOURS · LANES_N columns; of it a thread has
//            TILE_TOKENS × 4 · TILE_FOURS in registers, read straight from memory
// threads    LANES_N along the columns × LANES_K that share each sum × LANES_M along the tokens
// workgroup  memory: the parts of the sums on their way to one thread; none where LANES_K = 1
// serves     forward and, with the roles turned, backward_input: few tokens or few columns, where
//            w is read once; and software drivers, where barriers cost more than loads
//
// needs: TILE_TOKENS, TILE_FOURS, LANES_M, LANES_N, LANES_K, Tile, p.depth, p.groups_y, add_x_w
// needs: finish_tile
// needs: add_t_b, p.rank // where border and sharing
// needs: reduce_tree // where sharing
// needs: keep_shrunk // where kept
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
    // Of w a part is bound: its first column is one of all.
    var own_col = col;
    add_t_b(&tile, token, own_col, p.rank, lane, LANES_K); // where border and sharing

    // ── finish: gain, bias, β, rounded once ──────────────────────────────
    reduce_tree(&tile, id); // where sharing
    if (id.y == 0u) { finish_tile(&tile, token, own_col); } // where sharing
    if (group.y == 0u && group.z == 0u) { // where kept
        let thread = (id.z * LANES_K + id.y) * LANES_N + id.x; // where kept
        let threads = LANES_N * LANES_K * LANES_M; // where kept
        keep_shrunk(first_token, TILE_TOKENS * LANES_M, thread, threads); // where kept
    } // where kept
}

// tile · a thread's sums: four columns of one token each, tokens one below the other
//
// needs: TILE_TOKENS, TILE_FOURS
// gives: Tile

alias Tile = array<vec4<f32>, TILE_TOKENS * TILE_FOURS>;

// product · x·wᵀ straight from memory, four steps at a time
//
// needs: Tile, TILE_TOKENS, x_four, w_columns, x_w_WHOLE, add_step
// gives: add_x_w
//
// tile[m] += x[token + m]·w[col .. col + 4]ᵀ, a sum of `depth` products along x's rows.
// `lanes` threads share it: this one takes every lanes-th group of four steps. Where the depth is
// no multiple of four, what lies behind the end is zero on both sides.

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
            var x = x_four(token + m, k);
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

// finish_tile · a thread finishes its own tile, whose first token and column are given
//
// needs: Tile, TILE_TOKENS, TILE_FOURS, finish
// gives: finish_tile
//
// The tile moves up by four columns each time: a driver need not unroll the stores to index it,
// and a software one compiles those of one token instead of sixteen.

fn finish_tile(tile: ptr<function, Tile>, token: u32, col: u32) {
    for (var i = 0u; i < TILE_TOKENS * TILE_FOURS; i++) {
        finish(token + i / TILE_FOURS, col + 4u * (i % TILE_FOURS), (*tile)[0]);
        for (var next = 1u; next < TILE_TOKENS * TILE_FOURS; next++) {
            (*tile)[next - 1u] = (*tile)[next];
        }
    }
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

// product · t·bᵀ straight from memory, four steps at a time
//
// needs: Tile, TILE_TOKENS, t_four, b_columns, t_b_WHOLE, add_step
// gives: add_t_b
//
// tile[m] += t[token + m]·b[col .. col + 4]ᵀ, a sum of `depth` products along t's rows.
// `lanes` threads share it: this one takes every lanes-th group of four steps. Where the depth is
// no multiple of four, what lies behind the end is zero on both sides.

fn add_t_b(
    tile: ptr<function, Tile>, token: u32, col: u32, depth: u32, lane: u32, lanes: u32,
) {
    for (var k = 4u * lane; k < depth; k += 4u * lanes) {
        let inside = vec4(k) + vec4(0u, 1u, 2u, 3u) < vec4(depth);
        var columns = b_columns(k, col);
        if (!t_b_WHOLE) {
            columns[1] = select(vec4<f32>(), columns[1], inside.y);
            columns[2] = select(vec4<f32>(), columns[2], inside.z);
            columns[3] = select(vec4<f32>(), columns[3], inside.w);
        }
        for (var m = 0u; m < TILE_TOKENS; m++) {
            var x = t_four(token + m, k);
            if (!t_b_WHOLE) { x = select(vec4<f32>(), x, inside); }
            (*tile)[m] = add_step((*tile)[m], x, columns);
        }
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

// columns · four steps of four columns of b, from step `k` and column `col` on: step by step,
// columns side by side, however b is stored
//
// needs: b_K_MAJOR, b_four
// gives: b_columns

fn b_columns(k: u32, col: u32) -> mat4x4<f32> {
    if (b_K_MAJOR) {
        return transpose(mat4x4(
            b_four(col, k), b_four(col + 1u, k),
            b_four(col + 2u, k), b_four(col + 3u, k),
        ));
    }
    return mat4x4(
        b_four(k, col), b_four(k + 1u, col),
        b_four(k + 2u, col), b_four(k + 3u, col),
    );
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
