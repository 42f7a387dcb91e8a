//! The files of the page, which are part of the program.

/// A file of the page.
pub(super) struct File {
    /// Below the prefix of the page.
    pub(super) path: &'static str,
    pub(super) media_type: &'static str,
    pub(super) content: &'static [u8],
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";
const TEXT: &str = "text/plain; charset=utf-8";

macro_rules! files {
    ($($media_type:ident $path:literal)*) => {
        &[$(File {
            path: $path,
            media_type: $media_type,
            content: include_bytes!(concat!("../../../page/", $path)),
        }),*]
    };
}

/// All of them: a test compares them with the folder `page`.
pub(super) static FILES: &[File] = files! {
    SCRIPT "app.js"
    SCRIPT "charts/compare.js"
    SCRIPT "charts/flow.js"
    SCRIPT "charts/heat.js"
    SCRIPT "charts/lanes.js"
    SCRIPT "charts/line.js"
    SCRIPT "forms/fields.js"
    SCRIPT "forms/form.js"
    SVG "icon.svg"
    HTML "index.html"
    SCRIPT "lib/actions.js"
    SCRIPT "lib/api.js"
    SCRIPT "lib/dialog.js"
    SCRIPT "lib/dom.js"
    SCRIPT "lib/format.js"
    SCRIPT "lib/history.js"
    SCRIPT "parts/canary.js"
    SCRIPT "parts/kinds.js"
    SCRIPT "parts/settings.js"
    SCRIPT "parts/shadow.js"
    SCRIPT "parts/upload.js"
    TEXT "robots.txt"
    SCRIPT "screens/balancer.js"
    SCRIPT "screens/balancers.js"
    SCRIPT "screens/entities.js"
    SCRIPT "screens/entity.js"
    SCRIPT "screens/explain.js"
    SCRIPT "screens/overview.js"
    SCRIPT "screens/simulate.js"
    SCRIPT "screens/upstream.js"
    SCRIPT "screens/upstreams.js"
    CSS "style/base.css"
    CSS "style/parts.css"
    CSS "style/screens.css"
};
