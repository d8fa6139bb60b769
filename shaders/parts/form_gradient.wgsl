// form_gradient · OUT of one slab of tokens
//
// needs: GROUPS, LEFT_four, RIGHT_four, put_OUT
// needs: p.padded_rank // where precise
// gives: form_OUT
//
// The sum over tokens first .. end of LEFT[token]ᵀ·RIGHT[token], for GROUPS × 4 ranks from `rank`
// on and four columns from `col` on. Precise: LEFT has a low part behind its high one.

fn form_OUT(first: u32, end: u32, rank: u32, col: u32, slab: u32) {
    var tile: array<mat4x4<f32>, GROUPS>;
    for (var token = first; token < end; token++) {
        let right = RIGHT_four(token, col);
        for (var g = 0u; g < GROUPS; g++) {
            var left = LEFT_four(token, rank + 4u * g);
            left += LEFT_four(token, p.padded_rank + rank + 4u * g); // where precise
            tile[g][0] = fma(vec4(left.x), right, tile[g][0]);
            tile[g][1] = fma(vec4(left.y), right, tile[g][1]);
            tile[g][2] = fma(vec4(left.z), right, tile[g][2]);
            tile[g][3] = fma(vec4(left.w), right, tile[g][3]);
        }
    }
    put_OUT(&tile, rank, col, slab);
}
