// merge · WGSL
//
// computes   w ± s·b·a, in place, rounded once
// tile       a thread has TILE_TOKENS stored rows × 4 stored columns of w in registers
// threads    LANES_N, along the stored columns
// serves     merge and unmerge; left is b and right a, or where w is stored as its
//            transpose, the other way round
//
// needs: TILE_TOKENS, LANES_N, Tile, p.first_row, p.rank, p.scale, p.groups_y
// needs: add_left_right, w_old, w_put
// gives: merge

@compute @workgroup_size(LANES_N)
fn merge(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) id: vec3<u32>) {
    let row = group.x * TILE_TOKENS;
    let col = 4u * ((group.z * p.groups_y + group.y) * LANES_N + id.x);
    var tile: Tile;
    // What is bound of w begins at its row first_row.
    add_left_right(&tile, p.first_row + row, col, p.rank, 0u, 1u);
    for (var m = 0u; m < TILE_TOKENS; m++) {
        w_put(row + m, col, fma(vec4(p.scale), tile[m], w_old(row + m, col)));
    }
}
