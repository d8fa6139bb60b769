// product_one · LEFT·RIGHTᵀ straight from memory, step by step
//
// needs: Tile, TILE_TOKENS, TILE_FOURS, LEFT_K_MAJOR, LEFT_at, RIGHT_column
// gives: add_LEFT_RIGHT
//
// tile[m] += LEFT[token + m]·RIGHT[col .. col + 4 · TILE_FOURS]ᵀ, a sum of `depth` products: the
// shortest text, for tiles of many tokens or columns. `lanes` threads share the sum: this one takes
// every lanes-th step.

fn add_LEFT_RIGHT(
    tile: ptr<function, Tile>, token: u32, col: u32, depth: u32, lane: u32, lanes: u32,
) {
    for (var k = lane; k < depth; k += lanes) {
        var columns: array<vec4<f32>, TILE_FOURS>;
        for (var n = 0u; n < TILE_FOURS; n++) { columns[n] = RIGHT_column(k, col + 4u * n); }
        for (var m = 0u; m < TILE_TOKENS; m++) {
            var x: f32;
            if (LEFT_K_MAJOR) { x = LEFT_at(token + m, k); } else { x = LEFT_at(k, token + m); }
            for (var n = 0u; n < TILE_FOURS; n++) {
                let i = m * TILE_FOURS + n;
                (*tile)[i] = fma(vec4(x), columns[n], (*tile)[i]);
            }
        }
    }
}
