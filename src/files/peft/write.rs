//! From an adapter to the bytes of the two files, and from modules to the configuration that describes them. Called
//! by `AdapterFile`'s constructors and writers.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use super::super::suffix::Layout;
use super::super::tensors::{self, Tensor};
use super::super::{Factor, Module, at, factor, shown};
use super::target::Target;
use super::work::Work;
use super::{AdapterConfig, AdapterFile, CONFIG_FILE, MODEL_FILE, PREFIX, in_base, lokr};
use crate::{Error, Result};

fn unwritten(reason: String) -> Error {
    Error::Adapter { path: "(not yet written)".into(), reason }
}

/// What is wrong with a module, in words.
fn reason(error: Error) -> String {
    match error {
        Error::Adapter { reason, .. } => reason,
        other => other.to_string(),
    }
}

/// Modules whose scale the configuration says.
pub(super) fn of_config(
    config: AdapterConfig,
    modules: impl Iterator<Item = (String, Result<Module>)>,
) -> Result<AdapterFile> {
    let mut file = AdapterFile { config, modules: BTreeMap::new(), replaced: BTreeMap::new() };
    for (path, module) in modules {
        check(&path).map_err(unwritten)?;
        let module = module
            .map_err(|error| unwritten(format!("module `{}`: {}", shown(&path), reason(error))))?;
        if file.modules.insert(path.clone(), module).is_some() {
            return Err(unwritten(format!("module `{}` is given twice", shown(&path))));
        }
    }
    let paths: Vec<&str> = file.modules.keys().map(String::as_str).collect();
    file.config.target(&paths).map_err(unwritten)?;
    let ranks = file.modules.iter().filter(|(_, module)| module.rank() > 0);
    let ranks: Vec<_> = ranks.map(|(path, module)| (path.as_str(), module.rank())).collect();
    file.config.patterns_for(&ranks).map_err(unwritten)?;
    let found = file.config.ranks_and_scales(&paths, &mut Work::unlimited()).map_err(unwritten)?;
    for (module, (_, scale)) in file.modules.values_mut().zip(found) {
        module.scale = scale;
    }
    Ok(file)
}

/// Layers of a model, whose scales the configuration must say as they are.
pub(super) fn of_layers(
    config: AdapterConfig,
    layers: impl IntoIterator<Item = (String, Factor, Factor, f32)>,
) -> Result<AdapterFile> {
    let layers =
        layers.into_iter().map(|(path, a, b, scale)| (in_base(&path).to_owned(), a, b, scale));
    let layers: Vec<_> = layers.collect();
    let scales: Vec<(String, f32)> =
        layers.iter().map(|(path, .., scale)| (path.clone(), *scale)).collect();
    let file = of_config(
        config,
        layers.into_iter().map(|(path, a, b, scale)| (path, Module::lora(a, b, scale))),
    )?;
    with_scales(file, scales.iter().map(|(path, scale)| (path.as_str(), *scale)))
}

/// Modules that have their scale.
pub(super) fn of_modules(
    modules: impl IntoIterator<Item = (String, Module)>,
) -> Result<AdapterFile> {
    let modules: Vec<(String, Module)> = modules.into_iter().collect();
    let Some((_, first)) = modules.first() else {
        return Err(unwritten("no module in it: the file would do nothing".into()));
    };
    let (method, dora) = (first.method(), first.magnitude.is_some());
    let mut paths = HashSet::new();
    for (path, module) in &modules {
        let of = |reason| unwritten(format!("module `{}`: {reason}", shown(path)));
        check(path).map_err(unwritten)?;
        module.check().map_err(of)?;
        if !paths.insert(path) {
            return Err(unwritten(format!("module `{}` is given twice", shown(path))));
        }
        if module.method() != method {
            let both = format!("{} beside {method}", module.method());
            return Err(of(format!("{both}: one folder of PEFT has one method; write two")));
        }
        if module.magnitude.is_some() != dora {
            return Err(of(
                "PEFT has DoRA on all modules of a folder, or on none; write two".into()
            ));
        }
        tensors::of(module, Layout::Peft).map_err(of)?;
    }
    let settings = lokr::settings(&modules).map_err(unwritten)?;
    let ranks: Vec<(&str, usize)> = modules
        .iter()
        .zip(&settings.ranks)
        .map(|((path, _), rank)| (path.as_str(), *rank))
        .collect();
    let alpha = |module: &Module, rank: usize| f64::from(module.scale) * rank as f64;
    let alphas: Vec<(&str, f64)> = modules
        .iter()
        .zip(&settings.ranks)
        .map(|((path, module), rank)| (path.as_str(), alpha(module, *rank)))
        .collect();
    let mut config = AdapterConfig::of(method, ranks[0].1, alphas[0].1);
    config.dora = dora;
    for (name, raw) in settings.fields {
        config.set(name, raw);
    }
    config.patterns_for(&ranks).map_err(unwritten)?;
    config.alphas_for(&alphas).map_err(unwritten)?;
    let file =
        of_config(config, modules.iter().map(|(path, module)| (path.clone(), Ok(module.clone()))))?;
    with_scales(file, modules.iter().map(|(path, module)| (path.as_str(), module.scale)))
}

/// `file`, if its configuration gives each module the scale that it has.
fn with_scales<'a>(
    file: AdapterFile,
    scales: impl IntoIterator<Item = (&'a str, f32)>,
) -> Result<AdapterFile> {
    for (path, scale) in scales {
        let given = file.modules.get(path).map(|module| module.scale);
        if given != Some(scale) {
            let given = given.map_or("none".to_owned(), |given| given.to_string());
            let path = shown(path);
            return Err(unwritten(format!(
                "module `{path}`: expected the scale {scale}, the config gives it {given}"
            )));
        }
    }
    Ok(file)
}

/// The contents of the two files.
pub(super) fn bytes(file: &AdapterFile) -> Result<(Vec<u8>, Vec<u8>)> {
    let (model, config) = (Path::new(MODEL_FILE), Path::new(CONFIG_FILE));
    let refuse = |reason| at(config, reason);
    let work = &mut Work::unlimited();
    if file.modules.is_empty() {
        return Err(at(model, "no module in it: the file would do nothing".into()));
    }
    let paths: Vec<&str> = file.modules.keys().map(String::as_str).collect();
    let found = file.config.ranks_and_scales(&paths, work).map_err(refuse)?;
    let mut target = Target::new(&file.config, work).map_err(refuse)?;
    let mut all = Vec::new();
    for ((path, module), (rank, scale)) in file.modules.iter().zip(found) {
        let of = |reason| at(model, format!("module `{}`: {reason}", shown(path)));
        check(path).map_err(|reason| at(model, reason))?;
        module.check().map_err(of)?;
        if let Some(why) = file.config.differs(module) {
            return Err(of(why));
        }
        let got = (module.rank(), module.scale);
        // Two full factors of LoKr have no rank of their own.
        if (got.0 != rank && got.0 != 0) || got.1 != scale {
            let reason = format!(
                "module `{}`: expected rank {rank} and scale {scale} by the config, got rank {} and scale {}",
                shown(path),
                got.0,
                got.1
            );
            return Err(refuse(reason));
        }
        if let Some(why) = target.refuses(path, work).map_err(refuse)? {
            return Err(refuse(format!("{why}: PEFT would pass over its factors")));
        }
        let prefix = format!("{PREFIX}{path}.");
        let parts = tensors::of(module, Layout::Peft).map_err(of)?;
        all.extend(parts.into_iter().map(|tensor| tensor.under(&prefix)));
    }
    all.extend(file.replaced.iter().map(|(name, of)| Tensor {
        name: format!("{PREFIX}{name}"),
        dtype: factor::stored(of.dtype()),
        shape: of.shape().to_vec(),
        bytes: of.bytes().into(),
    }));
    let tensors = tensors::serialize(all).map_err(|reason| at(model, reason))?;
    Ok((tensors, file.config.to_json().map_err(refuse)?))
}

/// Whether a path is one that a module can have.
fn check(path: &str) -> Result<(), String> {
    match path {
        "" => Err("a module's path is empty".into()),
        path if path.contains('\n') => {
            Err(format!("module `{}`: a line break in its path", shown(path)))
        }
        _ => Ok(()),
    }
}
