// kronecker_w1 · WGSL
//
// computes   parts of dw1[i,j] = Σ u[m,i,e]·x[m,(j,e)] over TOKENS tokens and THREADS columns e of
//            w2, with u[m,i,e] = Σ dy[m,(i,q)]·w2[q,e]; `contract` adds them in their order
// tile       a thread has TOKENS tokens of u in one column, in registers
// threads    THREADS along e
// workgroup  memory: STEPS steps of dy of all tokens, then a part of four sums from each thread
// serves     backward_adapter of a LoKr whose w2 is whole
//
// needs: THREADS, TOKENS, STEPS, p.tokens, p.w1_rows, p.w1_cols, p.w2_rows, p.w2_cols, p.of_tap
// needs: p.chunks
// needs: p.w2_row, p.w2_col, w2_at, dy_at, x_at, parts_put
// gives: kronecker_w1, staged_dy, sums

var<workgroup> staged_dy: array<vec4<f32>, STEPS * TOKENS / 4u>;
var<workgroup> sums: array<vec4<f32>, THREADS>;

@compute @workgroup_size(THREADS)
fn kronecker_w1(
    @builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) id: vec3<u32>,
) {
    let token = group.x * TOKENS;
    let e = group.y * THREADS + id.x;
    let own = group.z;
    let inside = vec4(0u, 1u, 2u, 3u);

    // ── w2 meets dy ──────────────────────────────────────────────────────
    var u: array<vec4<f32>, TOKENS / 4u>;
    for (var first = 0u; first < p.w2_rows; first += STEPS) {
        for (var i = id.x; i < STEPS * TOKENS / 4u; i += THREADS) {
            let q = first + i / (TOKENS / 4u);
            let m = token + 4u * (i % (TOKENS / 4u));
            let k = own * p.w2_rows + q;
            let four = vec4(dy_at(m, k), dy_at(m + 1u, k), dy_at(m + 2u, k), dy_at(m + 3u, k));
            let there = (vec4(m) + inside < vec4(p.tokens)) & vec4(q < p.w2_rows);
            staged_dy[i] = select(vec4<f32>(), four, there);
        }
        workgroupBarrier();
        for (var k = 0u; k < STEPS; k++) {
            let w2 = w2_at(0u, (first + k) * p.w2_row + e * p.w2_col);
            let w2_inside = select(0.0, w2, first + k < p.w2_rows && e < p.w2_cols);
            for (var m = 0u; m < TOKENS / 4u; m++) {
                u[m] = fma(vec4(w2_inside), staged_dy[k * TOKENS / 4u + m], u[m]);
            }
        }
        workgroupBarrier();
    }

    // ── and x: four columns of w1 at a time; e is (tap, one of of_tap) ───
    let place = e / p.of_tap * p.w1_cols * p.of_tap + e % p.of_tap;
    for (var j = 0u; j < p.w1_cols; j += 4u) {
        var four = vec4<f32>();
        for (var n = 0u; n < 4u; n++) {
            let k = (j + n) * p.of_tap + place;
            for (var m = 0u; m < TOKENS / 4u; m++) {
                let at = token + 4u * m;
                let x = vec4(x_at(at, k), x_at(at + 1u, k), x_at(at + 2u, k), x_at(at + 3u, k));
                let there = (vec4(at) + inside < vec4(p.tokens)) & vec4(e < p.w2_cols);
                let products = u[m] * select(vec4<f32>(), x, there);
                four[n] += (products.x + products.y) + (products.z + products.w);
            }
        }
        sums[id.x] = four;
        workgroupBarrier();
        for (var others = THREADS / 2u; others > 0u; others /= 2u) {
            if (id.x < others) { sums[id.x] += sums[id.x + others]; }
            workgroupBarrier();
        }
        if (id.x == 0u) {
            parts_put((group.x * p.chunks + group.y) * p.w1_rows + own, j, sums[0]);
        }
        workgroupBarrier();
    }
}
