// column · one step of four columns of RIGHT, from column `col` on, however RIGHT is stored
//
// needs: RIGHT_K_MAJOR, RIGHT_at, RIGHT_four
// gives: RIGHT_column

fn RIGHT_column(k: u32, col: u32) -> vec4<f32> {
    if (RIGHT_K_MAJOR) {
        return vec4(
            RIGHT_at(col, k), RIGHT_at(col + 1u, k), RIGHT_at(col + 2u, k), RIGHT_at(col + 3u, k),
        );
    }
    return RIGHT_four(k, col);
}
