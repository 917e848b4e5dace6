//! The status page: one document without external parts. It asks `/api/status` and shows the answer.
//!
//! Its parts are files of their own, so that each is read and edited as what it is. Names, keys and errors in the
//! answer are texts of others: `dom.js` puts them into text nodes alone.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::body::Bytes;
use sha2::{Digest, Sha256};

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
/// One script: what a file defines, the next ones use. In a block, so that no name is one of the window's.
const SCRIPT: &str = concat!(
    "'use strict';\n{\n",
    include_str!("dom.js"),
    include_str!("figures.js"),
    include_str!("advice.js"),
    include_str!("jobs.js"),
    include_str!("page.js"),
    "}\n",
);

/// The document, and what it may do.
pub(super) struct Page {
    document: Bytes,
    policy: String,
}

impl Page {
    /// Puts the document together.
    pub fn new() -> Page {
        let document = TEMPLATE
            .replace("/*style*/", STYLE)
            .replace("/*script*/", SCRIPT);
        let source = |text: &str| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)));
        // This style, this script and requests to this server, and nothing else (Content Security Policy Level 3).
        let policy = format!(
            "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; img-src data:; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
            source(SCRIPT),
            source(STYLE),
        );
        Page {
            document: document.into(),
            policy,
        }
    }

    /// The HTML.
    pub fn document(&self) -> Bytes {
        self.document.clone()
    }

    /// The value of the header `Content-Security-Policy`.
    pub fn policy(&self) -> &str {
        &self.policy
    }
}
