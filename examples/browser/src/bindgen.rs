//! Makes the JavaScript module of the compiled library:
//!
//!     cargo run --bin bindgen -- fused_lora_browser.wasm FOLDER

use std::io::{Error, ErrorKind};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [wasm, folder] = &arguments[..] else {
        return Err(Error::new(ErrorKind::InvalidInput, "bindgen WASM FOLDER").into());
    };
    let mut bindgen = wasm_bindgen_cli_support::Bindgen::new();
    let bindgen = bindgen.input_path(wasm).web(true)?.typescript(false);
    bindgen.omit_default_module_path(false).generate(folder)?;
    Ok(())
}
