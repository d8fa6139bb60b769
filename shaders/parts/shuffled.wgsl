// shuffled · LEFT·RIGHTᵀ straight from memory, with LEFT read once a subgroup
//
// needs: Tile, TILE_TOKENS, TILE_FOURS, ACROSS, SLICES, SHARES, SPREAD
// needs: LEFT_four, RIGHT_columns, LEFT_RIGHT_WHOLE, add_step
// gives: add_LEFT_RIGHT, multiply_LEFT_RIGHT
//
// tile[m] += LEFT[token + m]·RIGHT[col .. col + 4 · TILE_FOURS]ᵀ, a sum of `depth` products, SLICES
// groups of four steps at a time, one for each slice of the subgroup. Its threads have the same
// tokens: each reads its share of LEFT's words (a word is four steps of one token), and every word
// goes to all that need it by a shuffle. Every thread of the subgroup calls this. Where the depth
// is no multiple of what is taken at a time, what lies behind the end is zero on both sides.

fn add_LEFT_RIGHT(tile: ptr<function, Tile>, token: u32, col: u32, depth: u32, lane: u32) {
    let slice = lane / ACROSS;
    for (var k = 0u; k < depth; k += 4u * SLICES) {
        let own = k + 4u * slice;
        var columns: array<mat4x4<f32>, TILE_FOURS>;
        for (var n = 0u; n < TILE_FOURS; n++) {
            columns[n] = RIGHT_columns(own, col + 4u * n);
            if (!LEFT_RIGHT_WHOLE) {
                let inside = vec4(own) + vec4(0u, 1u, 2u, 3u) < vec4(depth);
                columns[n][0] = select(vec4<f32>(), columns[n][0], inside.x);
                columns[n][1] = select(vec4<f32>(), columns[n][1], inside.y);
                columns[n][2] = select(vec4<f32>(), columns[n][2], inside.z);
                columns[n][3] = select(vec4<f32>(), columns[n][3], inside.w);
            }
        }
        var own_words: array<vec4<f32>, SHARES>;
        for (var i = 0u; i < SHARES; i++) {
            let word = i * SPREAD + lane % SPREAD;
            let at = k + 4u * (word % SLICES);
            own_words[i] = LEFT_four(token + word / SLICES, at);
            if (!LEFT_RIGHT_WHOLE) {
                let inside = vec4(at) + vec4(0u, 1u, 2u, 3u) < vec4(depth);
                own_words[i] = select(vec4<f32>(), own_words[i], inside);
            }
        }
        multiply_LEFT_RIGHT(tile, &own_words, &columns, slice, 0u);
        multiply_LEFT_RIGHT(tile, &own_words, &columns, slice, TILE_TOKENS / 2u);
    }
}
// Half of the tokens, from `first` on. Of all of them in one loop Mesa unrolls no more than twenty,
// and what is not unrolled lies in memory.
fn multiply_LEFT_RIGHT(
    tile: ptr<function, Tile>,
    own_words: ptr<function, array<vec4<f32>, SHARES>>,
    columns: ptr<function, array<mat4x4<f32>, TILE_FOURS>>,
    slice: u32,
    first: u32,
) {
    for (var m = first; m < first + TILE_TOKENS / 2u; m++) {
        let word = m * SLICES;
        let x = subgroupShuffle((*own_words)[word / SPREAD], word % SPREAD + slice);
        for (var n = 0u; n < TILE_FOURS; n++) {
            let i = m * TILE_FOURS + n;
            (*tile)[i] = add_step((*tile)[i], x, (*columns)[n]);
        }
    }
}
