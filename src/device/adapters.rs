//! Which adapters of wgpu there are: natively all of them, by name; in a browser the one that it gives, when it is
//! awaited. Called by `wgpu`, and for the names of devices.

use crate::wgpu::wgpu;

/// Every adapter, hardware first; looked for once.
#[cfg(not(target_family = "wasm"))]
fn all() -> &'static [wgpu::Adapter] {
    use std::sync::OnceLock;

    static ADAPTERS: OnceLock<Vec<wgpu::Adapter>> = OnceLock::new();
    ADAPTERS.get_or_init(|| {
        // Without a backend there is nothing to ask, and wgpu panics if one does.
        if wgpu::Instance::enabled_backend_features().is_empty() {
            return Vec::new();
        }
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        let mut all = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
        all.sort_by_key(rank);
        all
    })
}

/// What a page knows without asking the browser.
#[cfg(target_family = "wasm")]
fn all() -> &'static [wgpu::Adapter] {
    &[]
}

#[cfg(not(target_family = "wasm"))]
fn rank(adapter: &wgpu::Adapter) -> u8 {
    match adapter.get_info().device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    }
}

pub(super) fn is_hardware(adapter: &wgpu::Adapter) -> bool {
    adapter.get_info().device_type != wgpu::DeviceType::Cpu
}

/// The names of what there is: `wgpu` where an adapter is hardware, and each by its own.
pub(super) fn names() -> Vec<String> {
    let any = all().iter().any(is_hardware).then(|| "wgpu".to_owned());
    let each = all().iter().map(|adapter| format!("wgpu:{}", adapter.get_info().name));
    let mut names: Vec<String> = any.into_iter().chain(each).collect();
    // Two cards of one kind have one name, and the first is taken.
    names.dedup();
    names
}

/// `wgpu`, or `wgpu:` and a part of an adapter's name; else says why there is none.
pub(super) fn named(name: &str) -> Result<&'static wgpu::Adapter, String> {
    let adapter = match name.strip_prefix("wgpu:") {
        None => all().iter().find(|adapter| is_hardware(adapter)),
        Some("") => None,
        Some(part) => {
            let part = part.to_lowercase();
            let is_named =
                |adapter: &&wgpu::Adapter| adapter.get_info().name.to_lowercase().contains(&part);
            all().iter().find(is_named)
        }
    };
    adapter.ok_or_else(|| match (name.strip_prefix("wgpu:"), all().is_empty()) {
        (_, true) if cfg!(target_family = "wasm") => {
            "a browser's adapters are awaited: Device::open_async".to_owned()
        }
        (_, true) if wgpu::Instance::enabled_backend_features().is_empty() => {
            "no backend of wgpu is enabled in this build".to_owned()
        }
        (_, true) => "wgpu finds no adapter".to_owned(),
        (None, false) => "wgpu finds software adapters alone".to_owned(),
        (Some(part), false) => format!("no adapter has `{part}` in its name"),
    })
}

/// [`names`] in a browser.
#[cfg(target_family = "wasm")]
pub(super) async fn names_of_browser() -> Vec<String> {
    of_browser().await.map(|_| "wgpu".to_owned()).into_iter().collect()
}

/// The adapter that the browser gives; else says why there is none. Asked for each time: it makes one device only.
#[cfg(target_family = "wasm")]
pub(super) async fn of_browser() -> Result<wgpu::Adapter, String> {
    let enabled = wgpu::Instance::enabled_backend_features();
    if !enabled.contains(wgpu::Backends::BROWSER_WEBGPU) {
        return Err(
            "no backend of wgpu for browsers, `webgpu`, is enabled in this build".to_owned()
        );
    }
    // wgpu panics where there is no page.
    if !wgpu::util::is_browser_webgpu_supported().await {
        return Err("the browser gives no WebGPU adapter".to_owned());
    }
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let power_preference = wgpu::PowerPreference::HighPerformance;
    let options = wgpu::RequestAdapterOptions { power_preference, ..Default::default() };
    instance.request_adapter(&options).await.map_err(|error| error.to_string())
}
