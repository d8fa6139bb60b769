// merge · WGSL
//
// computes   w ± s·b·a, in place, rounded once
// tile       a thread has TILE_TOKENS stored rows × 4 stored columns of w in registers
// threads    64, along the stored columns
// serves     merge and unmerge; left is b and right a, or where w is stored as its
//            transpose, the other way round

alias Tile = array<vec4<f32>, TILE_TOKENS * TILE_FOURS>;

@compute @workgroup_size(LANES_N)
fn merge(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) id: vec3<u32>) {
    let row = group.x * TILE_TOKENS;
    let col = 4u * ((group.z * p.size.w + group.y) * LANES_N + id.x);
    var tile: Tile;
    // The window begins at row size.x of w.
    add_left_right(&tile, p.size.x + row, col, p.size.z, 0u, 1u);
    for (var m = 0u; m < TILE_TOKENS; m++) {
        w_put(row + m, col, fma(vec4(p.factor.x), tile[m], w_old(row + m, col)));
    }
}
