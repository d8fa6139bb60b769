//! Adapter files put together in memory, for the other files of `tests/files`.

use fused_lora::Error;
use fused_lora::peft::AdapterFile;
use serde_json::{Value, json};

/// Name, storage type, shape.
pub(crate) type TensorOf<'a> = (&'a str, &'a str, &'a [usize]);

/// A safetensors file with these tensors, all zero.
pub(crate) fn model(tensors: &[TensorOf<'_>]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, dtype, shape) in tensors {
        let size = if ["F16", "BF16"].contains(dtype) { 2 } else { 4 };
        let begin = end;
        end += size * shape.iter().product::<usize>();
        header.insert(
            (*name).into(),
            json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}),
        );
    }
    with_header(&Value::Object(header).to_string(), end)
}

pub(crate) fn with_header(header: &str, data: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.resize(file.len() + data, 0);
    file
}

/// A file with the two factors of each module, of rank 1.
pub(crate) fn modules<'a>(paths: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    let mut header = String::from("{");
    let mut end = 0;
    for path in paths {
        for letter in ["A", "B"] {
            let name = json!(format!("base_model.model.{path}.lora_{letter}.weight"));
            let comma = if end == 0 { "" } else { "," };
            let next = end + 2;
            header += &format!(
                r#"{comma}{name}:{{"dtype":"BF16","shape":[1,1],"data_offsets":[{end},{next}]}}"#
            );
            end = next;
        }
    }
    with_header(&(header + "}"), end)
}

/// A configuration of rank 1 and alpha 8, with these fields beside.
pub(crate) fn config(fields: &Value) -> Vec<u8> {
    let mut config = json!({"peft_type": "LORA", "r": 1, "lora_alpha": 8});
    for (name, value) in fields.as_object().unwrap() {
        config[name] = value.clone();
    }
    serde_json::to_vec(&config).unwrap()
}

/// The file and the reason of a refusal.
#[track_caller]
pub(crate) fn reason(model: &[u8], config: &[u8]) -> (String, String) {
    match AdapterFile::from_bytes(model, config) {
        Err(Error::Adapter { path, reason }) => (path, reason),
        Err(other) => panic!("{other}"),
        Ok(file) => panic!("read: {:?}", file.modules.keys().take(9).collect::<Vec<_>>()),
    }
}

/// Refused for this file, with these words in the reason.
#[track_caller]
pub(crate) fn refused(model: &[u8], config: &[u8], file: &str, words: &str) {
    let (path, got) = reason(model, config);
    assert_eq!(path, file, "{got}");
    assert!(got.contains(words), "expected `{words}` in `{got}`");
}
