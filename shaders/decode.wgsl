// decode · WGSL
//
// computes   y = x·wᵀ + shrunk·bᵀ (+ bias), shrunk from the workspace
// tile       TILE_TOKENS · LANES_M tokens × 4 · TILE_FOURS · LANES_N columns; of it a thread has
//            TILE_TOKENS × 4 · TILE_FOURS in registers, read straight from memory
// threads    LANES_N along the columns × LANES_K that share each sum × LANES_M along the tokens
// workgroup  memory: the parts of the sums on their way to one thread; none where LANES_K = 1
// serves     forward and, with the roles turned, backward_input: few tokens or few columns, where
//            w is read once; and software drivers, where barriers cost more than loads

@compute @workgroup_size(LANES_N, LANES_K, LANES_M)
fn decode(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) id: vec3<u32>) {
    let first_token = group.x * TILE_M;
    let first_col = (group.z * p.size.w + group.y) * LANES_N * 4u * TILE_FOURS;
    let lane = select(id.y, 0u, LANES_K == 1u);
    let token = first_token + select(id.z, 0u, LANES_M == 1u) * TILE_TOKENS;
    let col = first_col + 4u * TILE_FOURS * id.x;

    // ── multiply, then the border: shrunk meets b ────────────────────────
    var tile: Tile;
    add_x_w(&tile, token, col, p.size.y, lane, LANES_K);
    if (HAS_BORDER) { add_border(&tile, token, col, lane, LANES_K); }

    // ── finish: bias, β, rounded once ────────────────────────────────────
    if (LANES_K == 1u) {
        // The tile moves up by four columns each time: a driver need not unroll the stores to index it,
        // and a software one compiles those of one token instead of sixteen.
        for (var i = 0u; i < TILE_TOKENS * TILE_FOURS; i++) {
            finish(token + i / TILE_FOURS, col + 4u * (i % TILE_FOURS), tile[0]);
            for (var next = 1u; next < TILE_TOKENS * TILE_FOURS; next++) { tile[next - 1u] = tile[next]; }
        }
        return;
    }
    let sum = meet(&tile, id);
    let quad = (id.z * LANES_K + id.y) * LANES_N + id.x;
    if (quad < QUADS) { finish(first_token + quad / LANES_N, first_col + 4u * (quad % LANES_N), sum); }
}
