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
// needs: p.first_col // where part
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
    first_col += p.first_col; // where part
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
