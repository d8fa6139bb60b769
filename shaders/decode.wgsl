// decode · WGSL
//
// computes   y = gain∘(x·wᵀ + shrunk·bᵀ) (+ bias), shrunk from the workspace: as it was stored, or
//            where sums are shared in slices of its sums
// tile       TILE_TOKENS · LANES_M tokens × 4 · TILE_FOURS · LANES_N columns; of it a thread has
//            TILE_TOKENS × 4 · TILE_FOURS in registers, read straight from memory
// threads    LANES_N along the columns × LANES_K that share each sum × LANES_M along the tokens
// workgroup  memory: the parts of the sums on their way to one thread; none where LANES_K = 1
// serves     forward and, with the roles turned, backward_input: few tokens or few columns, where
//            w is read once; and software drivers, where barriers cost more than loads
//
// needs: TILE_TOKENS, TILE_FOURS, LANES_M, LANES_N, LANES_K, Tile, p.depth, p.groups_y, add_x_w
// needs: finish_tile
// needs: add_border // where border and apart
// needs: add_t_b, p.rank // where border and sharing
// needs: reduce_tree // where sharing
// needs: keep_shrunk // where kept
// needs: p.first_col // where part
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
    // Of w a part is bound: its first column is one of all.
    var own_col = col;
    own_col += p.first_col; // where part
    add_border(&tile, token, own_col, lane, LANES_K); // where border and apart
    add_t_b(&tile, token, own_col, p.rank, lane, LANES_K); // where border and sharing

    // ── finish: gain, bias, β, rounded once ──────────────────────────────
    finish_tile(&tile, token, own_col); // where apart
    reduce_tree(&tile, id); // where sharing
    if (id.y == 0u) { finish_tile(&tile, token, own_col); } // where sharing
    if (group.y == 0u && group.z == 0u) { // where kept
        let thread = (id.z * LANES_K + id.y) * LANES_N + id.x; // where kept
        let threads = LANES_N * LANES_K * LANES_M; // where kept
        keep_shrunk(first_token, TILE_TOKENS * LANES_M, thread, threads); // where kept
    } // where kept
}
