// columns · four steps of four columns of RIGHT, from step `k` and column `col` on: step by step,
// columns side by side, however RIGHT is stored
//
// needs: RIGHT_K_MAJOR, RIGHT_four
// gives: RIGHT_columns

fn RIGHT_columns(k: u32, col: u32) -> mat4x4<f32> {
    if (RIGHT_K_MAJOR) {
        return transpose(mat4x4(
            RIGHT_four(col, k), RIGHT_four(col + 1u, k),
            RIGHT_four(col + 2u, k), RIGHT_four(col + 3u, k),
        ));
    }
    return mat4x4(
        RIGHT_four(k, col), RIGHT_four(k + 1u, col),
        RIGHT_four(k + 2u, col), RIGHT_four(k + 3u, col),
    );
}
