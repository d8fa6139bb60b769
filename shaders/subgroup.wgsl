// subgroup · WGSL
//
// computes   y = x·wᵀ + shrunk·bᵀ (+ bias), shrunk from the workspace
// tile       TILE_TOKENS tokens × 4 · TILE_FOURS · LANES_N columns; of it a thread has
//            TILE_TOKENS × 4 · TILE_FOURS in registers; w is read straight from memory, x and shrunk
//            once a subgroup
// threads    LANES_N along the columns, whole subgroups
// serves     forward and, with the roles turned, backward_input: software drivers with subgroup
//            operations, where a load costs a branch a thread, and a shuffle one instruction

@compute @workgroup_size(LANES_N)
fn subgroup(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_id) id: vec3<u32>,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let token = group.x * TILE_TOKENS;
    let col = ((group.z * p.size.w + group.y) * LANES_N + id.x) * 4u * TILE_FOURS;

    // ── the border: shrunk meets b; then multiply ────────────────────────
    // In this order the driver makes of the long loop what it makes of it without a border.
    var tile: Tile;
    if (HAS_BORDER) { add_t_b(&tile, token, col, p.size.z, lane); }
    add_x_w(&tile, token, col, p.size.y, lane);

    // ── finish: bias, β, rounded once ────────────────────────────────────
    // The tile moves up by four columns each time, as in `decode`.
    for (var i = 0u; i < TILE_TOKENS * TILE_FOURS; i++) {
        finish(token + i / TILE_FOURS, col + 4u * (i % TILE_FOURS), tile[0]);
        for (var next = 1u; next < TILE_TOKENS * TILE_FOURS; next++) { tile[next - 1u] = tile[next]; }
    }
}
