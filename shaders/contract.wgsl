// contract · WGSL
//
// computes   out[x, y] = Σ left·right over s and t (times the scale, + β·old), rounded once;
//            x = (x1, x2) and y = (y1, y2, y3), each counting in whole lengths of those behind
//            it, and what each index adds to the place of an element of left and of right is a
//            parameter
// tile       a thread has four stored columns of one stored row of out, and of their sums every
//            LANES_K-th term
// threads    LANES_N along the stored columns × LANES_K that share each sum
// workgroup  memory: the parts of the sums on their way to one thread; none where LANES_K = 1
// serves     compose, where nothing is summed over, and chain; merge of a LoKr whose w2 is whole
//
// needs: LANES_N, LANES_K, Tile, out_ROW_MAJOR
// needs: p.x2, p.y2, p.y3, p.terms, p.inner, p.groups_x, p.beta, out_old, out_put
// needs: p.left_x1, p.left_x2, p.left_y1, p.left_y2, p.left_y3 // where left
// needs: p.left_s, p.left_t, left_at // where left
// needs: p.right_x1, p.right_x2, p.right_y1, p.right_y2, p.right_y3 // where right
// needs: p.right_s, p.right_t, right_at // where right
// needs: reduce_lanes // where sharing
// needs: p.scale // where scaled
// gives: contract, Place, place_of, sum_of

// Where the sum of one element begins in left and in right.
struct Place {
    left: u32,
    right: u32,
    factor: f32,
}

fn place_of(row: u32, col: u32) -> Place {
    let x = select(col, row, out_ROW_MAJOR);
    let y = select(row, col, out_ROW_MAJOR);
    let x1 = x / p.x2;
    let x2 = x % p.x2;
    let y1 = y / p.y3 / p.y2;
    let y2 = y / p.y3 % p.y2;
    let y3 = y % p.y3;
    var place = Place(0u, 0u, 1.0);
    place.left = x1 * p.left_x1 + x2 * p.left_x2; // where left
    place.left += y1 * p.left_y1 + y2 * p.left_y2 + y3 * p.left_y3; // where left
    place.right = x1 * p.right_x1 + x2 * p.right_x2; // where right
    place.right += y1 * p.right_y1 + y2 * p.right_y2 + y3 * p.right_y3; // where right
    place.factor = select(0.0, 1.0, x1 == y2); // where diagonal
    return place;
}

// Every LANES_K-th term of one element.
fn sum_of(row: u32, col: u32, first: u32) -> f32 {
    let place = place_of(row, col);
    var sum = 0.0;
    for (var k = first; k < p.terms; k += LANES_K) {
        let s = k / p.inner;
        let t = k % p.inner;
        var term = 1.0;
        term *= left_at(0u, place.left + s * p.left_s + t * p.left_t); // where left
        term *= right_at(0u, place.right + s * p.right_s + t * p.right_t); // where right
        sum += term;
    }
    return select(0.0, sum, place.factor == 1.0);
}

@compute @workgroup_size(LANES_N, LANES_K)
fn contract(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) id: vec3<u32>) {
    let row = group.y * p.groups_x + group.x;
    let col = 4u * (group.z * LANES_N + id.x);

    // ── multiply: one column after another ───────────────────────────────
    var tile: Tile;
    tile[0] = vec4(
        sum_of(row, col, id.y),
        sum_of(row, col + 1u, id.y),
        sum_of(row, col + 2u, id.y),
        sum_of(row, col + 3u, id.y),
    );

    // ── finish: β·old, rounded once ──────────────────────────────────────
    var value = tile[0];
    value = reduce_lanes(&tile, id); // where sharing
    value *= p.scale; // where scaled
    if (id.y == 0u) {
        if (p.beta != 0.0) { value = fma(vec4(p.beta), out_old(row, col), value); }
        out_put(row, col, value);
    }
}
