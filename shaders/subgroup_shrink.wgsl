// subgroup_shrink · WGSL
//
// computes   shrunk = s·x·aᵀ, rounded once as it is stored (precise: a high and a low part);
//            t, in the workspace and in f32, is what was stored; kept, the caller's copy
// tile       TILE_TOKENS tokens × 4 · ACROSS ranks; of it a thread has a part of the sums of
//            TILE_TOKENS × 4 in registers; a is read straight from memory, x once a subgroup
// threads    one subgroup: ACROSS along the ranks × SLICES that share each sum
// serves     the first launch of TwoPass where `subgroup` is the second
//
// needs: TILE_TOKENS, SUBGROUP, SLICES, ACROSS, Tile, p.depth, add_x_a, finish_shrunk, t_put
// gives: subgroup_shrink

@compute @workgroup_size(SUBGROUP)
fn subgroup_shrink(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let token = group.x * TILE_TOKENS;
    let rank = (group.y * ACROSS + lane % ACROSS) * 4u;

    // ── multiply ─────────────────────────────────────────────────────────
    var tile: Tile;
    add_x_a(&tile, token, rank, p.depth, lane);

    // ── finish: slices in their order; scaled, the pad zero, rounded once ─
    for (var m = 0u; m < TILE_TOKENS; m++) {
        var sum = subgroupShuffle(tile[0], lane % ACROSS);
        for (var slice = 1u; slice < SLICES; slice++) {
            sum += subgroupShuffle(tile[0], slice * ACROSS + lane % ACROSS);
        }
        let row = token + m;
        if (lane < ACROSS) { t_put(row, rank, finish_shrunk(row, rank, sum, true)); }
        for (var next = 1u; next < TILE_TOKENS; next++) { tile[next - 1u] = tile[next]; }
    }
}
