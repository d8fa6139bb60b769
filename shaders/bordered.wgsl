// bordered · WGSL
//
// computes   y = gain∘(x·wᵀ + shrunk·bᵀ) (+ bias) and shrunk = s·x·aᵀ in one dispatch: a is r more
//            columns of the tile, whose results then meet b; kept, the caller's copy, is written
//            by the first tile of each row of tiles
// tile       TILE_M tokens × 4·FOURS_N columns; of it a thread has TILE_TOKENS × 4·TILE_FOURS in
//            registers, and of shrunk SHARE tokens' × 4 ranks
// threads    THREADS_N along the columns × THREADS_M along the tokens
// workgroup  memory: staged = [ DEPTH steps of x | of w | of a ]; after the sums
//            [ shrunk | DEPTH ranks of b ], shrunk as if it were staged rows
// serves     forward and, with the roles turned, backward_input: few tokens, ranks up to 4·FOURS
//
// needs: TILE_TOKENS, TILE_FOURS, THREADS_M, THREADS_N, DEPTH, FOURS, ROW_SLAB, Tile
// needs: p.depth, p.rank, p.groups_y, multiply_staged_w, multiply_staged_b
// needs: stage_rows_x, stage_columns_w, stage_columns_a, stage_columns_b, staged_columns_a
// needs: add_step, finish_shrunk, finish
// needs: p.first_col // where part
// gives: bordered, staged, TILE_M, FOURS_N

const TILE_M = TILE_TOKENS * THREADS_M;
const FOURS_N = TILE_FOURS * THREADS_N;
const COLUMNS = (4u * (FOURS_N | 4u) + 1u) * DEPTH / 4u;
const AT_W = ROW_SLAB * DEPTH / 4u;
const AT_A = AT_W + COLUMNS;
const AT_B = FOURS * ROW_SLAB;
// Words of shrunk, of which every thread makes as many.
const SHRUNK = FOURS * TILE_M;
const SHARE = SHRUNK / (THREADS_M * THREADS_N);
const WORDS = max(AT_A + (4u * (FOURS | 4u) + 1u) * DEPTH / 4u, AT_B + COLUMNS);
var<workgroup> staged: array<vec4<f32>, WORDS>;

@compute @workgroup_size(THREADS_N, THREADS_M)
fn bordered(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) id: vec3<u32>) {
    let token = group.x * TILE_M;
    let col = (group.z * p.groups_y + group.y) * FOURS_N * 4u;
    let thread = id.y * THREADS_N + id.x;

    // ── multiply: the tile and its border rows ───────────────────────────
    var tile: Tile;
    var shrunk: array<vec4<f32>, SHARE>;
    for (var first = 0u; first < p.depth; first += DEPTH) {
        stage_rows_x(token, first, p.depth, thread);
        stage_columns_w(AT_W, FOURS_N, col, first, p.depth, thread);
        stage_columns_a(AT_A, FOURS, 0u, first, p.depth, thread);
        workgroupBarrier();
        multiply_staged_w(&tile, 0u, AT_W, id.xy);
        for (var k4 = 0u; k4 < DEPTH / 4u; k4++) {
            for (var i = 0u; i < SHARE; i++) {
                let word = thread + i * THREADS_M * THREADS_N;
                let ranks = staged_columns_a(AT_A, FOURS, k4, word / TILE_M);
                shrunk[i] = add_step(shrunk[i], staged[k4 * ROW_SLAB + word % TILE_M], ranks);
            }
        }
        workgroupBarrier();
    }

    // ── shrunk: scaled, rounded once, shared ─────────────────────────────
    let keeps = group.y == 0u && group.z == 0u;
    for (var i = 0u; i < SHARE; i++) {
        let word = thread + i * THREADS_M * THREADS_N;
        let row = word % TILE_M;
        let rank = word / TILE_M;
        staged[rank * ROW_SLAB + row] = finish_shrunk(token + row, 4u * rank, shrunk[i], keeps);
    }

    // ── border: shrunk meets b ───────────────────────────────────────────
    // Of w a part is bound: its first column is one of all.
    var first_col = col;
    first_col += p.first_col; // where part
    for (var first = 0u; first < p.rank; first += DEPTH) {
        stage_columns_b(AT_B, FOURS_N, first_col, first, p.rank, thread);
        workgroupBarrier();
        multiply_staged_b(&tile, first / 4u * ROW_SLAB, AT_B, id.xy);
        workgroupBarrier();
    }

    // ── finish: gain, bias, β, rounded once ──────────────────────────────
    for (var m = 0u; m < TILE_TOKENS; m++) {
        for (var n = 0u; n < TILE_FOURS; n++) {
            let own_col = first_col + 4u * (n * THREADS_N + id.x);
            finish(token + m * THREADS_M + id.y, own_col, tile[m * TILE_FOURS + n]);
        }
    }
}
