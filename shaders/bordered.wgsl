// bordered · WGSL
//
// computes   y = x·wᵀ + shrunk·bᵀ (+ bias) and shrunk = s·x·aᵀ in one dispatch: a is r more columns
//            of the tile, whose results then meet b; kept, the caller's copy, is written by
//            the first tile of each row of tiles
// tile       TILE_M tokens × 4·THREADS_N columns; of it a thread has TILE_TOKENS × 4 in registers,
//            and of shrunk SHARE tokens' × 4 ranks
// threads    THREADS_N along the columns × THREADS_M along the tokens
// workgroup  memory: staged = [ DEPTH steps of x | of w | of a ]; after the sums [ shrunk ]
// serves     forward and, with the roles turned, backward_input: few tokens, ranks up to 4·FOURS
//
// needs: TILE_TOKENS, THREADS_M, THREADS_N, DEPTH, FOURS, Tile, p.depth, p.rank, p.groups_y
// needs: stage_rows_x, stage_columns_w, stage_columns_a, staged_columns_w, staged_columns_a
// needs: add_step, finish_shrunk, b_column, finish
// gives: bordered, staged, TILE_M, AT_W

const TILE_M = TILE_TOKENS * THREADS_M;
const AT_W = TILE_M * DEPTH / 4u;
const AT_A = AT_W + THREADS_N * DEPTH;
// Words of shrunk, [four ranks][row of the tile], rows as `stage_rows_x` deals them out.
const SHRUNK = FOURS * TILE_M;
const SHARE = SHRUNK / (THREADS_M * THREADS_N);
var<workgroup> staged: array<vec4<f32>, max(AT_A + FOURS * DEPTH, SHRUNK)>;

@compute @workgroup_size(THREADS_N, THREADS_M)
fn bordered(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) id: vec3<u32>) {
    let token = group.x * TILE_M;
    let col = (group.z * p.groups_y + group.y) * THREADS_N * 4u;
    let thread = id.y * THREADS_N + id.x;

    // ── multiply: the tile and its border rows ───────────────────────────
    var tile: Tile;
    var shrunk: array<vec4<f32>, SHARE>;
    for (var first = 0u; first < p.depth; first += DEPTH) {
        stage_rows_x(token, first, p.depth, thread);
        stage_columns_w(AT_W, THREADS_N, col, first, p.depth, thread);
        stage_columns_a(AT_A, FOURS, 0u, first, p.depth, thread);
        workgroupBarrier();
        for (var k4 = 0u; k4 < DEPTH / 4u; k4++) {
            let columns = staged_columns_w(AT_W, THREADS_N, k4, id.x);
            for (var m = 0u; m < TILE_TOKENS; m++) {
                tile[m] = add_step(tile[m], staged[k4 * TILE_M + m * THREADS_M + id.y], columns);
            }
            for (var i = 0u; i < SHARE; i++) {
                let word = thread + i * THREADS_M * THREADS_N;
                let ranks = staged_columns_a(AT_A, FOURS, k4, word / TILE_M);
                shrunk[i] = add_step(shrunk[i], staged[k4 * TILE_M + word % TILE_M], ranks);
            }
        }
        workgroupBarrier();
    }

    // ── shrunk: scaled, rounded once, shared ─────────────────────────────
    for (var i = 0u; i < SHARE; i++) {
        let word = thread + i * THREADS_M * THREADS_N;
        let row = (word % TILE_M) % THREADS_M * TILE_TOKENS + (word % TILE_M) / THREADS_M;
        let keeps = group.y == 0u && group.z == 0u;
        staged[word] = finish_shrunk(token + row, 4u * (word / TILE_M), shrunk[i], keeps);
    }
    workgroupBarrier();

    // ── border: shrunk meets b ───────────────────────────────────────────
    for (var rank = 0u; rank < p.rank; rank++) {
        let column = b_column(rank, col + 4u * id.x);
        for (var m = 0u; m < TILE_TOKENS; m++) {
            let four = staged[rank / 4u * TILE_M + m * THREADS_M + id.y];
            tile[m] = fma(vec4(four[rank % 4u]), column, tile[m]);
        }
    }

    // ── finish: bias, β, rounded once ────────────────────────────────────
    for (var m = 0u; m < TILE_TOKENS; m++) {
        finish(token + id.y * TILE_TOKENS + m, col + 4u * id.x, tile[m]);
    }
}
