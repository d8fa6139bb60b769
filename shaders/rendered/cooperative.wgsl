enable f16;

enable wgpu_cooperative_matrix;

const SIZE: u32 = 16u;
const SUBGROUPS_M: u32 = 2u;
const SUBGROUPS_N: u32 = 2u;
const SUBGROUP: u32 = 32u;
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

@group(0) @binding(0) var<storage, read> x: array<vec4<f16>>;
@group(0) @binding(1) var<storage, read> bias: array<vec4<f16>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> workspace: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> b: array<vec4<f16>>;
@group(0) @binding(5) var<storage, read_write> kept: array<vec2<u32>>;
@group(0) @binding(6) var<storage, read> w: array<vec4<f16>>;
@group(0) @binding(7) var<uniform> p: Params;

// cooperative · WGSL
//
// computes   y = gain∘(x·wᵀ + shrunk·bᵀ) (+ bias), shrunk from the workspace, in slices of its sums
// tile       TILE_M tokens × TILE_N columns, of which a subgroup has 2 × 2 matrices of SIZE × SIZE
//            sums in f32; factors are f16
// threads    SUBGROUPS_M × SUBGROUPS_N subgroups of SUBGROUP threads
// workgroup  memory: staged = [ DEPTH steps of x | as many of w ], or [ of shrunk | of b ];
//            leaving = half of the tile on its way to threads that finish it
// serves     forward and, with the roles turned, backward_input, in f16: devices with cooperative
//            matrices whose host asked for them
//
// needs: SIZE, SUBGROUPS_M, SUBGROUPS_N, SUBGROUP, DEPTH, Matrices
// needs: p.depth, p.groups_y, add_x_w, finish
// needs: add_t_b, p.rank // where border
// needs: keep_shrunk // where kept
// gives: cooperative, staged, TILE_M, TILE_N, THREADS, STEP_FOURS, COLUMN_FOURS, AT_COLUMNS

const TILE_M = 2u * SIZE * SUBGROUPS_M;
const TILE_N = 2u * SIZE * SUBGROUPS_N;
const THREADS = SUBGROUPS_M * SUBGROUPS_N * SUBGROUP;
// Groups of four from one staged row to the next: of steps, and of columns. Two more than there
// are, so that neighbouring rows begin in different banks.
const STEP_FOURS = DEPTH / 4u + 2u;
const COLUMN_FOURS = TILE_N / 4u + 2u;
const AT_COLUMNS = TILE_M * STEP_FOURS;
const HALVES = AT_COLUMNS + max(TILE_N * STEP_FOURS, DEPTH * COLUMN_FOURS);
var<workgroup> staged: array<vec4<f16>, HALVES>;
// From one row of sums to the next.
const SUM_FOURS = TILE_N / 4u + 1u;
var<workgroup> leaving: array<vec4<f32>, SIZE * SUBGROUPS_M * SUM_FOURS>;

@compute @workgroup_size(THREADS)
fn cooperative(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_id) id: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
) {
    let token = group.x * TILE_M;
    let col = (group.z * p.groups_y + group.y) * TILE_N;
    let own = vec2(subgroup / SUBGROUPS_N, subgroup % SUBGROUPS_N);

    // ── the border: shrunk meets b; then multiply ────────────────────────
    var matrices: Matrices;
    // Of w a part is bound: its first column is one of all.
    var first_col = col;
    add_t_b(&matrices, token, first_col, p.rank, id.x, own); // where border
    add_x_w(&matrices, token, col, p.depth, id.x, own);

    // ── finish: gain, bias, β, rounded once ──────────────────────────────
    let at = own.x * SIZE * SUM_FOURS + own.y * 2u * (SIZE / 4u);
    let beside = at + SIZE / 4u;
    for (var half = 0u; half < 2u; half++) {
        if (half == 0u) {
            coopStoreT(matrices[0], &leaving[at], SUM_FOURS);
            coopStoreT(matrices[1], &leaving[beside], SUM_FOURS);
        } else {
            coopStoreT(matrices[2], &leaving[at], SUM_FOURS);
            coopStoreT(matrices[3], &leaving[beside], SUM_FOURS);
        }
        workgroupBarrier();
        for (var i = id.x; i < SIZE * SUBGROUPS_M * TILE_N / 4u; i += THREADS) {
            let row = i / (TILE_N / 4u);
            let four = i % (TILE_N / 4u);
            let own_row = (row / SIZE * 2u + half) * SIZE + row % SIZE;
            finish(token + own_row, first_col + 4u * four, leaving[row * SUM_FOURS + four]);
        }
        workgroupBarrier();
    }
    if (group.y == 0u && group.z == 0u) { // where kept
        keep_shrunk(token, TILE_M, id.x, THREADS); // where kept
    } // where kept
}

// matrices_16 · a subgroup's cooperative matrices, 16 × 16: factors of f16, 2 × 2 of sums in f32
//
// gives: LeftMatrix, RightMatrix, Matrices

alias LeftMatrix = coop_mat16x16<f16, A>;
alias RightMatrix = coop_mat16x16<f16, B>;
alias Matrices = array<coop_mat16x16<f32, C>, 4>;

// staged_matrices · x·wᵀ by cooperative matrices, DEPTH steps at a time
//
// needs: SIZE, DEPTH, TILE_M, TILE_N, STEP_FOURS, COLUMN_FOURS, AT_COLUMNS, staged, Matrices
// needs: LeftMatrix, RightMatrix, stage_halves_x, stage_halves_w, w_K_MAJOR
// gives: add_x_w
//
// matrices += x·wᵀ for the workgroup's tile, a sum of `depth` products; `token` and `col`
// are the tile's first, `own` says which subgroup of the tile this is. All threads of a workgroup
// call this. Matrices are those of 2 × 2 places side by side, row by row.

fn add_x_w(
    matrices: ptr<function, Matrices>, token: u32, col: u32, depth: u32, thread: u32,
    own: vec2<u32>,
) {
    for (var first = 0u; first < depth; first += DEPTH) {
        stage_halves_x(0u, token, TILE_M, first, depth, true, thread);
        stage_halves_w(AT_COLUMNS, col, TILE_N, first, depth, w_K_MAJOR, thread);
        workgroupBarrier();
        for (var k = 0u; k < DEPTH; k += SIZE) {
            let row = own.x * 2u * SIZE * STEP_FOURS + k / 4u;
            let next_row = row + SIZE * STEP_FOURS;
            let left = coopLoadT<LeftMatrix>(&staged[row], STEP_FOURS);
            let next_left = coopLoadT<LeftMatrix>(&staged[next_row], STEP_FOURS);
            // Indices and strides are named: naga 30 panics over a stride that is a sum.
            var right: RightMatrix;
            var next_right: RightMatrix;
            if (w_K_MAJOR) {
                let column = AT_COLUMNS + own.y * 2u * SIZE * STEP_FOURS + k / 4u;
                let next_column = column + SIZE * STEP_FOURS;
                right = coopLoad<RightMatrix>(&staged[column], STEP_FOURS);
                next_right = coopLoad<RightMatrix>(&staged[next_column], STEP_FOURS);
            } else {
                let column = AT_COLUMNS + k * COLUMN_FOURS + own.y * 2u * (SIZE / 4u);
                let next_column = column + SIZE / 4u;
                right = coopLoadT<RightMatrix>(&staged[column], COLUMN_FOURS);
                next_right = coopLoadT<RightMatrix>(&staged[next_column], COLUMN_FOURS);
            }
            (*matrices)[0] = coopMultiplyAdd(left, right, (*matrices)[0]);
            (*matrices)[1] = coopMultiplyAdd(left, next_right, (*matrices)[1]);
            (*matrices)[2] = coopMultiplyAdd(next_left, right, (*matrices)[2]);
            (*matrices)[3] = coopMultiplyAdd(next_left, next_right, (*matrices)[3]);
        }
        workgroupBarrier();
    }
}

// stage_halves · DEPTH steps of `count` rows or columns of x from `begin` on, as f16 into
// workgroup memory
//
// needs: DEPTH, THREADS, staged, x_four
// gives: stage_halves_x
//
// From group `at` of `staged` on. Where the sum runs along stored rows, a staged row is DEPTH steps
// of one; else it is one step of all `count` columns. Threads side by side take two groups each of
// neighbouring rows, which lie in different banks. All that is staged is f16, widened: nothing is
// rounded here.

fn stage_halves_x(
    at: u32, begin: u32, count: u32, first: u32, depth: u32, k_major: bool, thread: u32,
) {
    let rows = select(DEPTH, count, k_major);
    let fours = select(count, DEPTH, k_major) / 4u;
    for (var i = thread; i < count * DEPTH / 4u; i += THREADS) {
        let row = i / 2u % rows;
        let four = i / 2u / rows * 2u + i % 2u;
        let to = at + row * (fours + 2u) + four;
        if (k_major) {
            let k = vec4(first + 4u * four) + vec4(0u, 1u, 2u, 3u);
            let values = x_four(begin + row, k.x);
            staged[to] = vec4<f16>(select(vec4<f32>(), values, k < vec4(depth)));
        } else {
            let values = x_four(first + row, begin + 4u * four);
            staged[to] = vec4<f16>(select(vec4<f32>(), values, first + row < depth));
        }
    }
}

// read_f16x4_native · x is f16, read four at a time; rows begin at multiples of four and hold a
// multiple of four
//
// needs: x, p.x, index_of
// gives: x_at, x_four

fn x_at(row: u32, col: u32) -> f32 {
    let i = index_of(p.x, row, col);
    return f32(x[i >> 2u][i & 3u]);
}
fn x_four(row: u32, col: u32) -> vec4<f32> {
    return vec4<f32>(x[index_of(p.x, row, col) >> 2u]);
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

// stage_halves · DEPTH steps of `count` rows or columns of w from `begin` on, as f16 into
// workgroup memory
//
// needs: DEPTH, THREADS, staged, w_four
// gives: stage_halves_w
//
// From group `at` of `staged` on. Where the sum runs along stored rows, a staged row is DEPTH steps
// of one; else it is one step of all `count` columns. Threads side by side take two groups each of
// neighbouring rows, which lie in different banks. All that is staged is f16, widened: nothing is
// rounded here.

fn stage_halves_w(
    at: u32, begin: u32, count: u32, first: u32, depth: u32, k_major: bool, thread: u32,
) {
    let rows = select(DEPTH, count, k_major);
    let fours = select(count, DEPTH, k_major) / 4u;
    for (var i = thread; i < count * DEPTH / 4u; i += THREADS) {
        let row = i / 2u % rows;
        let four = i / 2u / rows * 2u + i % 2u;
        let to = at + row * (fours + 2u) + four;
        if (k_major) {
            let k = vec4(first + 4u * four) + vec4(0u, 1u, 2u, 3u);
            let values = w_four(begin + row, k.x);
            staged[to] = vec4<f16>(select(vec4<f32>(), values, k < vec4(depth)));
        } else {
            let values = w_four(first + row, begin + 4u * four);
            staged[to] = vec4<f16>(select(vec4<f32>(), values, first + row < depth));
        }
    }
}

// read_f16x4_native · w is f16, read four at a time; rows begin at multiples of four and hold a
// multiple of four
//
// needs: w, p.w, index_of
// gives: w_at, w_four

fn w_at(row: u32, col: u32) -> f32 {
    let i = index_of(p.w, row, col);
    return f32(w[i >> 2u][i & 3u]);
}
fn w_four(row: u32, col: u32) -> vec4<f32> {
    return vec4<f32>(w[index_of(p.w, row, col) >> 2u]);
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

// write_16x4 · y is f16, written four at a time; rows begin at multiples of four and hold a
// multiple of four
//
// needs: y, p.y, index_inside, index_of, widen_f16, narrow_f16
// gives: y_old, y_put

fn y_old(row: u32, col: u32) -> vec4<f32> {
    let words = y[index_of(p.y, row, col) >> 2u];
    return vec4(widen_f16(words.x), widen_f16(words.y));
}
fn y_put(row: u32, col: u32, value: vec4<f32>) {
    let bits = narrow_f16(value);
    if (row > p.y.last_row || col > p.y.last_col) { return; }
    let words = vec2(bits.x | (bits.y << 16u), bits.z | (bits.w << 16u));
    y[index_inside(p.y, row, col) >> 2u] = words;
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

// read_f16x4_native · bias is f16, read four at a time; rows begin at multiples of four and hold a
// multiple of four
//
// needs: bias, p.bias, index_of
// gives: bias_at, bias_four

fn bias_at(row: u32, col: u32) -> f32 {
    let i = index_of(p.bias, row, col);
    return f32(bias[i >> 2u][i & 3u]);
}
fn bias_four(row: u32, col: u32) -> vec4<f32> {
    return vec4<f32>(bias[index_of(p.bias, row, col) >> 2u]);
}

// staged_matrices · t·bᵀ by cooperative matrices, DEPTH steps at a time
//
// needs: SIZE, DEPTH, TILE_M, TILE_N, STEP_FOURS, COLUMN_FOURS, AT_COLUMNS, staged, Matrices
// needs: LeftMatrix, RightMatrix, stage_halves_t, stage_halves_b, b_K_MAJOR
// gives: add_t_b
//
// matrices += t·bᵀ for the workgroup's tile, a sum of `depth` products; `token` and `col`
// are the tile's first, `own` says which subgroup of the tile this is. All threads of a workgroup
// call this. Matrices are those of 2 × 2 places side by side, row by row.

fn add_t_b(
    matrices: ptr<function, Matrices>, token: u32, col: u32, depth: u32, thread: u32,
    own: vec2<u32>,
) {
    for (var first = 0u; first < depth; first += DEPTH) {
        stage_halves_t(0u, token, TILE_M, first, depth, true, thread);
        stage_halves_b(AT_COLUMNS, col, TILE_N, first, depth, b_K_MAJOR, thread);
        workgroupBarrier();
        for (var k = 0u; k < DEPTH; k += SIZE) {
            let row = own.x * 2u * SIZE * STEP_FOURS + k / 4u;
            let next_row = row + SIZE * STEP_FOURS;
            let left = coopLoadT<LeftMatrix>(&staged[row], STEP_FOURS);
            let next_left = coopLoadT<LeftMatrix>(&staged[next_row], STEP_FOURS);
            // Indices and strides are named: naga 30 panics over a stride that is a sum.
            var right: RightMatrix;
            var next_right: RightMatrix;
            if (b_K_MAJOR) {
                let column = AT_COLUMNS + own.y * 2u * SIZE * STEP_FOURS + k / 4u;
                let next_column = column + SIZE * STEP_FOURS;
                right = coopLoad<RightMatrix>(&staged[column], STEP_FOURS);
                next_right = coopLoad<RightMatrix>(&staged[next_column], STEP_FOURS);
            } else {
                let column = AT_COLUMNS + k * COLUMN_FOURS + own.y * 2u * (SIZE / 4u);
                let next_column = column + SIZE / 4u;
                right = coopLoadT<RightMatrix>(&staged[column], COLUMN_FOURS);
                next_right = coopLoadT<RightMatrix>(&staged[next_column], COLUMN_FOURS);
            }
            (*matrices)[0] = coopMultiplyAdd(left, right, (*matrices)[0]);
            (*matrices)[1] = coopMultiplyAdd(left, next_right, (*matrices)[1]);
            (*matrices)[2] = coopMultiplyAdd(next_left, right, (*matrices)[2]);
            (*matrices)[3] = coopMultiplyAdd(next_left, next_right, (*matrices)[3]);
        }
        workgroupBarrier();
    }
}

// stage_halves · DEPTH steps of `count` rows or columns of t from `begin` on, as f16 into
// workgroup memory
//
// needs: DEPTH, THREADS, staged, t_four
// gives: stage_halves_t
//
// From group `at` of `staged` on. Where the sum runs along stored rows, a staged row is DEPTH steps
// of one; else it is one step of all `count` columns. Threads side by side take two groups each of
// neighbouring rows, which lie in different banks. All that is staged is f16, widened: nothing is
// rounded here.

fn stage_halves_t(
    at: u32, begin: u32, count: u32, first: u32, depth: u32, k_major: bool, thread: u32,
) {
    let rows = select(DEPTH, count, k_major);
    let fours = select(count, DEPTH, k_major) / 4u;
    for (var i = thread; i < count * DEPTH / 4u; i += THREADS) {
        let row = i / 2u % rows;
        let four = i / 2u / rows * 2u + i % 2u;
        let to = at + row * (fours + 2u) + four;
        if (k_major) {
            let k = vec4(first + 4u * four) + vec4(0u, 1u, 2u, 3u);
            let values = t_four(begin + row, k.x);
            staged[to] = vec4<f16>(select(vec4<f32>(), values, k < vec4(depth)));
        } else {
            let values = t_four(first + row, begin + 4u * four);
            staged[to] = vec4<f16>(select(vec4<f32>(), values, first + row < depth));
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
// needs: p.scale, p.rank, round_f16
// needs: p.padded_rank, kept_put // where kept
// gives: finish_shrunk
//
// Scaled, the pad behind the rank zero, rounded once as it is stored. Precise: a high part, and a
// low one of what that left. Returns what was stored; with `keeps` it goes to the caller's copy.

fn finish_shrunk(token: u32, rank: u32, sum: vec4<f32>, keeps: bool) -> vec4<f32> {
    let ranks = vec4(rank) + vec4(0u, 1u, 2u, 3u);
    let value = select(vec4<f32>(), p.scale * sum, ranks < vec4(p.rank));
    let high = round_f16(value);
    var low = vec4<f32>();
    // The rank with its pad: behind it begins the low part, or what is not shrunk's.
    if (keeps && rank < p.padded_rank) { // where kept
        kept_put(token, rank, high); // where kept
    } // where kept
    return high + low;
}

// write_16x4 · kept is f16, written four at a time; rows begin at multiples of four and hold a
// multiple of four
//
// needs: kept, p.kept, index_inside, index_of, widen_f16, narrow_f16
// gives: kept_old, kept_put

fn kept_old(row: u32, col: u32) -> vec4<f32> {
    let words = kept[index_of(p.kept, row, col) >> 2u];
    return vec4(widen_f16(words.x), widen_f16(words.y));
}
fn kept_put(row: u32, col: u32, value: vec4<f32>) {
    let bits = narrow_f16(value);
    if (row > p.kept.last_row || col > p.kept.last_col) { return; }
    let words = vec2(bits.x | (bits.y << 16u), bits.z | (bits.w << 16u));
    kept[index_inside(p.kept, row, col) >> 2u] = words;
}

// stage_halves · DEPTH steps of `count` rows or columns of b from `begin` on, as f16 into
// workgroup memory
//
// needs: DEPTH, THREADS, staged, b_four
// gives: stage_halves_b
//
// From group `at` of `staged` on. Where the sum runs along stored rows, a staged row is DEPTH steps
// of one; else it is one step of all `count` columns. Threads side by side take two groups each of
// neighbouring rows, which lie in different banks. All that is staged is f16, widened: nothing is
// rounded here.

fn stage_halves_b(
    at: u32, begin: u32, count: u32, first: u32, depth: u32, k_major: bool, thread: u32,
) {
    let rows = select(DEPTH, count, k_major);
    let fours = select(count, DEPTH, k_major) / 4u;
    for (var i = thread; i < count * DEPTH / 4u; i += THREADS) {
        let row = i / 2u % rows;
        let four = i / 2u / rows * 2u + i % 2u;
        let to = at + row * (fours + 2u) + four;
        if (k_major) {
            let k = vec4(first + 4u * four) + vec4(0u, 1u, 2u, 3u);
            let values = b_four(begin + row, k.x);
            staged[to] = vec4<f16>(select(vec4<f32>(), values, k < vec4(depth)));
        } else {
            let values = b_four(first + row, begin + 4u * four);
            staged[to] = vec4<f16>(select(vec4<f32>(), values, first + row < depth));
        }
    }
}

// read_f16x4_native · b is f16, read four at a time; rows begin at multiples of four and hold a
// multiple of four
//
// needs: b, p.b, index_of
// gives: b_at, b_four

fn b_at(row: u32, col: u32) -> f32 {
    let i = index_of(p.b, row, col);
    return f32(b[i >> 2u][i & 3u]);
}
fn b_four(row: u32, col: u32) -> vec4<f32> {
    return vec4<f32>(b[index_of(p.b, row, col) >> 2u]);
}
