//! The font of plots. It is embedded: a PNG's letters are pixels, and an appliance has no fonts.

use std::sync::OnceLock;

use plotters::style::{FontStyle, register_font};

/// The name under which plotters and a browser know it.
pub(crate) const NAME: &str = "monospace";

/// Makes it known to plotters, under every name that is used here. Without that no text can be laid out.
pub(crate) fn register() {
    static DONE: OnceLock<bool> = OnceLock::new();
    let is_known = *DONE.get_or_init(|| {
        // What plotters itself falls back to is `sans-serif`.
        [NAME, "sans-serif"].into_iter().all(|name| register_font(name, FontStyle::Normal, dejavu::sans_mono::regular()).is_ok())
    });
    debug_assert!(is_known, "the face is part of the program, and a test draws with it");
}
