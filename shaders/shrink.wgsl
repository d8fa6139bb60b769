// shrink · WGSL
//
// computes   shrunk = s·x·aᵀ, rounded once as it is stored (precise: a high and a low part);
//            t, in the workspace and in f32, is what was stored; kept, the caller's copy
// tile       TILE_TOKENS · LANES_M tokens × 4 · LANES_N ranks; of it a thread has TILE_TOKENS × 4
//            in registers, read straight from memory
// threads    LANES_N along the ranks × LANES_K that share each sum × LANES_M along the tokens
// workgroup  memory: the parts of the sums on their way to one thread
// serves     the first launch of TwoPass; backward_shrink, which has no t
//
// needs: TILE_TOKENS, LANES_M, LANES_N, LANES_K, Tile, p.depth
// needs: add_x_a, reduce_lanes, QUADS, finish_shrunk
// needs: t_put // where t
// gives: shrink

@compute @workgroup_size(LANES_N, LANES_K, LANES_M)
fn shrink(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) id: vec3<u32>) {
    let first_token = group.x * TILE_TOKENS * LANES_M;
    let first_rank = group.y * LANES_N * 4u;

    // ── multiply ─────────────────────────────────────────────────────────
    var tile: Tile;
    let token = first_token + id.z * TILE_TOKENS;
    add_x_a(&tile, token, first_rank + 4u * id.x, p.depth, id.y, LANES_K);

    // ── finish: scaled, the pad zero, rounded once ───────────────────────
    let sum = reduce_lanes(&tile, id);
    let quad = (id.z * LANES_K + id.y) * LANES_N + id.x;
    if (quad < QUADS) {
        let row = first_token + quad / LANES_N;
        let rank = first_rank + 4u * (quad % LANES_N);
        let stored = finish_shrunk(row, rank, sum, true);
        t_put(row, rank, stored); // where t
    }
}
