// decode · WGSL
//
// computes   y = x·wᵀ + shrunk·bᵀ (+ bias), shrunk from the workspace
// tile       a thread has TILE_TOKENS tokens × 4 columns in registers, read straight from memory
// threads    LANES_N along the columns × LANES_K that share each sum
// workgroup  memory: the sums of ROUND tokens on their way to one thread; none where LANES_K = 1
// serves     forward and, with the roles turned, backward_input: few tokens or few columns, where
//            w is read once; and software drivers, where barriers cost more than loads

alias Tile = array<vec4<f32>, TILE_TOKENS>;
var<workgroup> room: array<vec4<f32>, ROUND * LANES_N * LANES_K>;

@compute @workgroup_size(LANES_N, LANES_K)
fn decode(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) id: vec3<u32>) {
    let token = group.x * TILE_TOKENS;
    let first_col = (group.z * p.size.w + group.y) * LANES_N * 4u;
    let lane = select(id.y, 0u, LANES_K == 1u);

    // ── multiply, then the border: shrunk meets b ────────────────────────
    var tile: Tile;
    add_x_w(&tile, token, first_col + 4u * id.x, p.size.y, lane, LANES_K);
    if (HAS_BORDER) { add_t_b(&tile, token, first_col + 4u * id.x, p.size.z, lane, LANES_K); }

    // ── finish: bias, β, rounded once ────────────────────────────────────
    if (LANES_K == 1u) {
        for (var m = 0u; m < TILE_TOKENS; m++) {
            finish(token + m, first_col + 4u * id.x, tile[m]);
        }
        return;
    }
    for (var round = 0u; round < TILE_TOKENS; round += ROUND) {
        for (var m = 0u; m < ROUND; m++) {
            room[(m * LANES_N + id.x) * LANES_K + id.y] = tile[round + m];
        }
        workgroupBarrier();
        let at = id.y * LANES_N + id.x;
        if (at < ROUND * LANES_N) {
            var sum = room[at * LANES_K];
            for (var i = 1u; i < LANES_K; i++) { sum += room[at * LANES_K + i]; }
            finish(token + round + at / LANES_N, first_col + 4u * (at % LANES_N), sum);
        }
        workgroupBarrier();
    }
}
