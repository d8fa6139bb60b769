// linear · WGSL
//
// computes   y = x·wᵀ + shrunk·bᵀ (+ bias), shrunk from the workspace: r more steps of the sum
// tile       TILE_M tokens × 4·THREADS_N columns; of it a thread has TILE_TOKENS × 4 in registers
// threads    THREADS_N along the columns × THREADS_M along the tokens
// workgroup  memory: room = [ DEPTH steps of x or shrunk | as many of w or b ]
// serves     forward and, with the roles turned, backward_input: many tokens on a GPU

alias Tile = array<vec4<f32>, TILE_TOKENS>;
const TILE_M = TILE_TOKENS * THREADS_M;
const AT_W = TILE_M * DEPTH / 4u;
var<workgroup> room: array<vec4<f32>, AT_W + THREADS_N * DEPTH>;

@compute @workgroup_size(THREADS_N, THREADS_M)
fn linear(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) id: vec3<u32>) {
    let token = group.x * TILE_M;
    let col = (group.z * p.size.w + group.y) * THREADS_N * 4u;

    // ── multiply, then the border: shrunk meets b ────────────────────────
    var tile: Tile;
    add_x_w(&tile, token, col, p.size.y, id.xy);
    if (HAS_BORDER) { add_t_b(&tile, token, col, p.size.z, id.xy); }

    // ── finish: bias, β, rounded once ────────────────────────────────────
    for (var m = 0u; m < TILE_TOKENS; m++) {
        finish(token + id.y * TILE_TOKENS + m, col + 4u * id.x, tile[m]);
    }
}
