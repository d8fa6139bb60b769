// partial_shrink · WGSL
//
// computes   SLICES slices of the sums of x·aᵀ, in f32, as they are: the layer behind it adds the
//            slices in their order, scales and rounds
// tile       TILE_TOKENS · LANES_M tokens × 4 · LANES_N ranks of one slice; of it a thread has
//            TILE_TOKENS × 4 in registers, read straight from memory
// threads    LANES_N along the ranks × LANES_K that share each sum × LANES_M along the tokens
// workgroup  memory: the parts of the sums on their way to one thread
// serves     the first launch of TwoPass on a GPU: few tokens alone would leave most of it idle
//
// needs: TILE_TOKENS, LANES_M, LANES_N, LANES_K, SLICES, Tile, p.depth, p.tokens
// needs: add_x_a, reduce_tree, slices_put
// gives: partial_shrink

@compute @workgroup_size(LANES_N, LANES_K, LANES_M)
fn partial_shrink(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_id) id: vec3<u32>,
) {
    let token = (group.x * LANES_M + id.z) * TILE_TOKENS;
    let rank = (group.y * LANES_N + id.x) * 4u;

    // ── multiply: every SLICES-th of what all threads take ───────────────
    var tile: Tile;
    add_x_a(&tile, token, rank, p.depth, group.z * LANES_K + id.y, SLICES * LANES_K);

    // ── finish: slice by slice, tokens one below the other ───────────────
    reduce_tree(&tile, id);
    if (id.y == 0u) {
        for (var m = 0u; m < TILE_TOKENS; m++) {
            // Behind the last token begins the next slice.
            if (token + m < p.tokens) { slices_put(group.z * p.tokens + token + m, rank, tile[m]); }
        }
    }
}
