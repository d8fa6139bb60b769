// product · LEFT·RIGHTᵀ straight from memory, four steps at a time
//
// needs: Tile, TILE_TOKENS, LEFT_four, RIGHT_columns, LEFT_RIGHT_WHOLE, add_step
// gives: add_LEFT_RIGHT
//
// tile[m] += LEFT[token + m]·RIGHT[col .. col + 4]ᵀ, a sum of `depth` products along LEFT's rows.
// `lanes` threads share it: this one takes every lanes-th group of four steps. Where the depth is
// no multiple of four, what lies behind the end is zero on both sides.

fn add_LEFT_RIGHT(
    tile: ptr<function, Tile>, token: u32, col: u32, depth: u32, lane: u32, lanes: u32,
) {
    for (var k = 4u * lane; k < depth; k += 4u * lanes) {
        let inside = vec4(k) + vec4(0u, 1u, 2u, 3u) < vec4(depth);
        var columns = RIGHT_columns(k, col);
        if (!LEFT_RIGHT_WHOLE) {
            columns[1] = select(vec4<f32>(), columns[1], inside.y);
            columns[2] = select(vec4<f32>(), columns[2], inside.z);
            columns[3] = select(vec4<f32>(), columns[3], inside.w);
        }
        for (var m = 0u; m < TILE_TOKENS; m++) {
            var x = LEFT_four(token + m, k);
            if (!LEFT_RIGHT_WHOLE) { x = select(vec4<f32>(), x, inside); }
            (*tile)[m] = add_step((*tile)[m], x, columns);
        }
    }
}
