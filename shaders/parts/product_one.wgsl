// tile[m] += LEFT[token + m]·RIGHT[col .. col + 4]ᵀ, a sum of `depth` products, step by step and straight
// from memory: the shortest text, for tiles of many tokens. `lanes` threads share the sum: this
// one takes every lanes-th step.
fn add_LEFT_RIGHT(tile: ptr<function, Tile>, token: u32, col: u32, depth: u32, lane: u32, lanes: u32) {
    for (var k = lane; k < depth; k += lanes) {
        let column = RIGHT_column(k, col);
        for (var m = 0u; m < TILE_TOKENS; m++) {
            var x: f32;
            if (LEFT_ALONG) { x = LEFT_at(token + m, k); } else { x = LEFT_at(k, token + m); }
            (*tile)[m] = fma(vec4(x), column, (*tile)[m]);
        }
    }
}
