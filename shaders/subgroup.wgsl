// subgroup · WGSL
//
// computes   y = gain∘(x·wᵀ + shrunk·bᵀ) (+ bias), shrunk from the workspace
// tile       TILE_TOKENS tokens × 4 · TILE_FOURS · LANES_N columns; of it a thread has
//            TILE_TOKENS × 4 · TILE_FOURS in registers; w is read straight from memory, x and
//            shrunk once a subgroup
// threads    LANES_N along the columns, whole subgroups
// serves     forward and, with the roles turned, backward_input: software drivers with subgroup
//            operations, where a load costs a branch a thread, and a shuffle one instruction
//
// needs: TILE_TOKENS, TILE_FOURS, LANES_N, Tile, p.depth, p.groups_y, add_x_w, finish_tile
// needs: add_t_b, p.rank // where border
// needs: p.first_col // where part
// gives: subgroup

@compute @workgroup_size(LANES_N)
fn subgroup(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_id) id: vec3<u32>,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let token = group.x * TILE_TOKENS;
    let col = ((group.z * p.groups_y + group.y) * LANES_N + id.x) * 4u * TILE_FOURS;

    // ── the border: shrunk meets b; then multiply ────────────────────────
    // Border first: otherwise lavapipe compiles the main loop worse.
    var tile: Tile;
    // Of w a part is bound: its first column is one of all.
    var own_col = col;
    own_col += p.first_col; // where part
    add_t_b(&tile, token, own_col, p.rank, lane); // where border
    add_x_w(&tile, token, col, p.depth, lane);

    // ── finish: gain, bias, β, rounded once ──────────────────────────────
    finish_tile(&tile, token, own_col);
}
