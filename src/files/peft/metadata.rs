//! diffusers' settings in a file's header: PEFT's configuration of each component of the pipeline, its fields behind
//! `unet.`, `transformer.`, `text_encoder.`. Read by `state_dict` for modules that have no tensor `alpha`.

use std::collections::BTreeMap;

use super::super::header::SETTINGS;
use super::super::{Method, Module, shown};
use super::AdapterConfig;
use super::json::{self, Fields};
use super::work::Work;

/// Gives the modules called `names`, which are sorted, the scale that the settings have for them.
pub(in super::super) fn scales(
    settings: &str,
    names: &[String],
    modules: &mut BTreeMap<String, Module>,
    len: usize,
) -> Result<(), String> {
    let of = |reason: String| format!("metadata `{SETTINGS}`: {reason}");
    let mut components: BTreeMap<String, Fields> = BTreeMap::new();
    for (name, raw) in json::fields(settings.as_bytes()).map_err(of)? {
        // diffusers writes this name behind each component's.
        let Some((component, field)) = name.split_once('.') else {
            return Err(of(format!("`{}`: expected a component's name before it", shown(&name))));
        };
        components.entry(component.to_owned()).or_default().insert(field.to_owned(), raw);
    }
    let work = &mut Work::for_bytes(len);
    for (component, fields) in components {
        let of = |reason: String| of(format!("{}: {reason}", shown(&component)));
        let config = AdapterConfig::from_fields(fields).map_err(of)?;
        let prefix = format!("{component}.");
        // One stretch of the sorted names, so that many components do not meet many names.
        let begin = names.partition_point(|name| **name < *prefix);
        let inner = names[begin..].iter().map_while(|name| name.strip_prefix(&*prefix));
        let paths: Vec<&str> = inner.collect();
        let found = config.ranks_and_scales(&paths, work).map_err(of)?;
        for (path, (rank, scale)) in paths.into_iter().zip(found) {
            let Some(module) = modules.get_mut(&format!("{prefix}{path}")) else { continue };
            if module.rank() != rank
                || module.method() != config.method
                || config.method != Method::Lora
            {
                let got = format!("{} of rank {}", module.method(), module.rank());
                let name = shown(path);
                return Err(of(format!(
                    "expected {} of rank {rank} at `{name}`, got {got}",
                    config.method
                )));
            }
            module.scale = scale;
        }
    }
    Ok(())
}
