// shuffled_gradient · OUT of one slab of tokens, with LEFT read once a subgroup
//
// needs: SUBGROUP, GROUPS, LEFT_four, RIGHT_four, put_OUT
// needs: p.padded_rank // where precise
// gives: form_OUT, TOGETHER_OUT
//
// As `form_gradient`. A subgroup's threads have the same ranks: a thread reads one word of LEFT
// (four ranks of one token) of some tokens together, and each word goes to all by a shuffle. Every
// thread of the subgroup calls this. Behind the last token both sides are zero.

const TOGETHER_OUT = min(8u, SUBGROUP / GROUPS);
fn form_OUT(first: u32, end: u32, rank: u32, col: u32, slab: u32, lane: u32) {
    var tile: array<mat4x4<f32>, GROUPS>;
    let own = lane / GROUPS % TOGETHER_OUT;
    let own_rank = rank + 4u * (lane % GROUPS);
    for (var token = first; token < end; token += TOGETHER_OUT) {
        var word = LEFT_four(token + own, own_rank);
        word += LEFT_four(token + own, p.padded_rank + own_rank); // where precise
        word = select(vec4<f32>(), word, token + own < end);
        for (var i = 0u; i < TOGETHER_OUT; i++) {
            let right = select(vec4<f32>(), RIGHT_four(token + i, col), token + i < end);
            for (var g = 0u; g < GROUPS; g++) {
                let left = subgroupShuffle(word, i * GROUPS + g);
                tile[g][0] = fma(vec4(left.x), right, tile[g][0]);
                tile[g][1] = fma(vec4(left.y), right, tile[g][1]);
                tile[g][2] = fma(vec4(left.z), right, tile[g][2]);
                tile[g][3] = fma(vec4(left.w), right, tile[g][3]);
            }
        }
    }
    put_OUT(&tile, rank, col, slab);
}
