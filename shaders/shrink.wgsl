// shrink · WGSL
//
// computes   shrunk = s·x·aᵀ, rounded once as it is stored (precise: a high and a low part);
//            t, in the workspace and in f32, is what was stored; kept, the caller's copy
// tile       a thread has TILE_TOKENS tokens × 4 ranks in registers, read straight from memory
// threads    LANES_N along the ranks × LANES_K that share each sum
// workgroup  memory: the sums of ROUND tokens on their way to one thread
// serves     the first launch of TwoPass; backward_shrink, which has no t

alias Tile = array<vec4<f32>, TILE_TOKENS>;
var<workgroup> room: array<vec4<f32>, ROUND * LANES_N * LANES_K>;

@compute @workgroup_size(LANES_N, LANES_K)
fn shrink(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) id: vec3<u32>) {
    let token = group.x * TILE_TOKENS;
    let first_rank = group.y * LANES_N * 4u;

    // ── multiply ─────────────────────────────────────────────────────────
    var tile: Tile;
    add_x_a(&tile, token, first_rank + 4u * id.x, p.size.y, id.y, LANES_K);

    // ── finish ───────────────────────────────────────────────────────────
    for (var round = 0u; round < TILE_TOKENS; round += ROUND) {
        for (var m = 0u; m < ROUND; m++) {
            room[(m * LANES_N + id.x) * LANES_K + id.y] = tile[round + m];
        }
        workgroupBarrier();
        let at = id.y * LANES_N + id.x;
        if (at < ROUND * LANES_N) {
            var sum = room[at * LANES_K];
            for (var i = 1u; i < LANES_K; i++) { sum += room[at * LANES_K + i]; }
            let row = token + round + at / LANES_N;
            let rank = first_rank + 4u * (at % LANES_N);
            t_put(row, rank, finish_shrunk(row, rank, sum, true));
        }
        workgroupBarrier();
    }
}
