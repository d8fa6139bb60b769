// backward_gain · WGSL
//
// computes   scaled = gain∘dy, rounded once, and gradient = Σ dy∘(y − bias) / magnitude (+ β·old)
// tile       a thread has four columns of every LANES_K-th token
// threads    LANES_N along the columns × LANES_K along the tokens
// workgroup  memory: the parts of the sums on their way to one thread
// serves     backward_gain; without tokens it leaves β·old
//
// needs: LANES_N, LANES_K, Tile, reduce_lanes, p.groups_x, p.beta
// needs: magnitude_four, gradient_old, gradient_put
// needs: p.tokens, dy_four, y_four, gain_four, scaled_put // where dy
// needs: bias_four // where bias and dy
// gives: backward_gain

@compute @workgroup_size(LANES_N, LANES_K)
fn backward_gain(
    @builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) id: vec3<u32>,
) {
    let col = 4u * ((group.y * p.groups_x + group.x) * LANES_N + id.x);
    var tile: Tile;
    tile[0] = vec4<f32>();

    // ── scale, and add up: token by token ────────────────────────────────
    for (var token = id.y; token < p.tokens; token += LANES_K) { // where dy
        let of_dy = dy_four(token, col); // where dy
        var of_y = y_four(token, col); // where dy
        of_y -= bias_four(0u, col); // where bias and dy
        scaled_put(token, col, gain_four(0u, col) * of_dy); // where dy
        tile[0] = fma(of_dy, of_y, tile[0]); // where dy
    } // where dy

    // ── finish: β·old, rounded once ──────────────────────────────────────
    var value = reduce_lanes(&tile, id) / magnitude_four(0u, col);
    if (id.y == 0u) {
        if (p.beta != 0.0) { value = fma(vec4(p.beta), gradient_old(0u, col), value); }
        gradient_put(0u, col, value);
    }
}
