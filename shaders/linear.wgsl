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
