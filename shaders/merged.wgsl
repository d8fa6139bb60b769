// merged · WGSL
//
// computes   w' = w + s·b·a or w + s·w1 ⊗ w2, rounded to w's type, and left in f32
// tile       a thread has TILE_TOKENS stored rows × 4 stored columns of w in registers
// threads    LANES_N, along the stored columns
// serves     the first launch of strategy `merged`; left is b and right a, or where w is stored as
//            its transpose, the other way round; w is here `base`, and w' lies in the workspace
//
// needs: TILE_TOKENS, LANES_N, Tile, p.rows, p.groups_y, base_four, rounded, sum_put
// needs: p.rank, p.scale, add_left_right // where left
// needs: summand // where summed
// gives: merged

@compute @workgroup_size(LANES_N)
fn merged(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) id: vec3<u32>) {
    let row = group.x * TILE_TOKENS;
    let col = 4u * ((group.z * p.groups_y + group.y) * LANES_N + id.x);
    var tile: Tile;
    add_left_right(&tile, row, col, p.rank, 0u, 1u); // where left
    for (var m = 0u; m < TILE_TOKENS; m++) {
        if (row + m >= p.rows) { return; }
        var sum = base_four(row + m, col);
        sum = fma(vec4(p.scale), tile[m], sum); // where left
        sum.x += summand(row + m, col); // where summed
        sum.y += summand(row + m, col + 1u); // where summed
        sum.z += summand(row + m, col + 2u); // where summed
        sum.w += summand(row + m, col + 3u); // where summed
        sum_put(row + m, col, rounded(sum));
    }
}
