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
// needs: finish_tile // where apart
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
    finish_tile(&tile, token, col); // where apart
    let sum = reduce_lanes(&tile, id); // where sharing
    let quad = (id.z * LANES_K + id.y) * LANES_N + id.x; // where sharing
    let sum_token = first_token + quad / LANES_N; // where sharing
    let sum_col = first_col + 4u * (quad % LANES_N); // where sharing
    if (quad < QUADS) { finish(sum_token, sum_col, sum); } // where sharing
}
