pub(crate) fn wrong() -> Vec<String> {
    Vec::new()
}
pub(crate) fn not_refused() -> Vec<String> {
    Vec::new()
}
pub(crate) fn texts() -> Vec<(String, String)> {
    Vec::new()
}
