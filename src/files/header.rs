//! The header of a safetensors file: which tensors there are and where. Called by `state_dict` and by
//! PEFT's `read`.
//!
//! By hand, because the crate `safetensors` adds sizes unchecked when it reads, and buffers the JSON as
//! values, thirty times its length at worst. Here no number that the file merely claims becomes an
//! allocation: names are kept, everything else has a fixed size.

use core::fmt;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use safetensors::tensor::Dtype;
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::shown;

/// No layer's weight has more dimensions.
const MAX_DIMENSIONS: usize = 8;

/// One tensor.
pub(super) struct Tensor<'a> {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Shape,
    pub(super) bytes: &'a [u8],
}

/// What else the header may hold that bears on the mathematics: diffusers' settings, a text of JSON.
pub(super) const SETTINGS: &str = "lora_adapter_metadata";

/// Every tensor of the file in the order of its data. Errors are reasons.
pub(super) fn tensors(file: &[u8]) -> Result<impl Iterator<Item = Tensor<'_>>, String> {
    Ok(tensors_and_settings(file)?.0)
}

/// The same, and the metadata called [`SETTINGS`].
pub(super) fn tensors_and_settings(
    file: &[u8],
) -> Result<(impl Iterator<Item = Tensor<'_>>, Option<String>), String> {
    let damaged = |what: &str| format!("not a safetensors file, or cut off: {what}");
    let (len, rest) =
        file.split_first_chunk::<8>().ok_or_else(|| damaged("shorter than its first 8 bytes"))?;
    let len = usize::try_from(u64::from_le_bytes(*len)).unwrap_or(usize::MAX);
    let (header, data) = rest
        .split_at_checked(len)
        .ok_or_else(|| damaged(&format!("a header of {len} bytes in a file of {}", file.len())))?;
    let Header(infos, settings) = serde_json::from_slice(header).map_err(|error| {
        let text = error.to_string();
        match text.rsplit_once(EMPTY) {
            // A reason of its own, without serde's place in the header.
            Some((tensor, _)) => format!("{tensor}{EMPTY}"),
            None => damaged(&format!("header: {text}")),
        }
    })?;
    let mut at = 0;
    for (begin, (name, info)) in &infos {
        let wrong = |what: &str| damaged(&format!("header: tensor `{}`: {what}", shown(name)));
        if *begin != at {
            return Err(wrong(&format!("expected its data at {at}, got {begin}")));
        }
        let bits = info.shape.len().and_then(|len| len.checked_mul(info.dtype.bitsize()));
        at = info.data_offsets.1;
        if bits.is_none() || at.checked_sub(*begin).and_then(|len| len.checked_mul(8)) != bits {
            let shape = info.shape.dimensions();
            return Err(wrong(&format!("its data are not those of {:?} {shape:?}", info.dtype)));
        }
    }
    if at != data.len() {
        return Err(damaged(&format!("expected {at} bytes of data, got {}", data.len())));
    }
    let tensor = |(name, Info { dtype, shape, data_offsets: (begin, end) })| {
        // Found above to lie within the data.
        Tensor { name, dtype, shape, bytes: data.get(begin..end).unwrap_or_default() }
    };
    Ok((infos.into_values().map(tensor), settings))
}

/// How the message about a tensor without elements ends.
const EMPTY: &str = "as where ZeRO-3's or FSDP's parts were not gathered before the save; gather them \
                     (deepspeed.zero.GatheredParameters, summon_full_params) and save again";

/// By the offset of their data, which no two have in common; and the settings.
struct Header(BTreeMap<usize, (String, Info)>, Option<String>);

#[derive(Deserialize)]
struct Info {
    dtype: Dtype,
    shape: Shape,
    data_offsets: (usize, usize),
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Header, D::Error> {
        struct Tensors;
        impl<'de> Visitor<'de> for Tensors {
            type Value = Header;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let (mut tensors, mut settings) = (BTreeMap::new(), None);
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        Metadata(settings) = map.next_value()?;
                        continue;
                    }
                    let of = |what: &dyn fmt::Display| {
                        A::Error::custom(format!("tensor `{}`: {what}", shown(&name)))
                    };
                    let info: Info = map.next_value().map_err(|error| of(&error))?;
                    if info.shape.len() == Some(0) {
                        let shape = info.shape.dimensions();
                        let what = format!("expected sizes of at least 1, got {shape:?}, {EMPTY}");
                        return Err(of(&what));
                    }
                    match tensors.entry(info.data_offsets.0) {
                        Entry::Vacant(place) => place.insert((name, info)),
                        Entry::Occupied(_) => return Err(of(&"its data are another tensor's too")),
                    };
                }
                Ok(Header(tensors, settings))
            }
        }
        from.deserialize_map(Tensors)
    }
}

/// The one entry that is wanted; of the others nothing is kept.
struct Metadata(Option<String>);

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Metadata, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = Metadata;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of texts")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metadata, A::Error> {
                let mut settings = None;
                while let Some(name) = map.next_key::<String>()? {
                    match name == SETTINGS {
                        true => settings = Some(map.next_value()?),
                        false => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(Metadata(settings))
            }
        }
        from.deserialize_map(Texts)
    }
}

/// The sizes of a tensor.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    dimensions: [usize; MAX_DIMENSIONS],
    count: usize,
}

impl Shape {
    pub(super) fn dimensions(&self) -> &[usize] {
        &self.dimensions[..self.count]
    }

    /// Elements, where that is a number.
    fn len(&self) -> Option<usize> {
        self.dimensions().iter().try_fold(1usize, |len, &size| len.checked_mul(size))
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Shape, D::Error> {
        struct Sizes;
        impl<'de> Visitor<'de> for Sizes {
            type Value = Shape;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MAX_DIMENSIONS} sizes")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
                let mut shape = Shape { dimensions: [0; MAX_DIMENSIONS], count: 0 };
                while let Some(size) = seq.next_element()? {
                    let place = shape.dimensions.get_mut(shape.count);
                    *place.ok_or_else(|| A::Error::invalid_length(shape.count + 1, &self))? = size;
                    shape.count += 1;
                }
                Ok(shape)
            }
        }
        from.deserialize_seq(Sizes)
    }
}
