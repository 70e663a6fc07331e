//! `weft:files`: modes, owners and kinds of file systems, which WASI has no word for. For components only; elsewhere it is empty, and the system has all of
//! that.

#![cfg(target_os = "wasi")]

mod bindings {
    wit_bindgen::generate!({
        path: "../../wit/files",
        world: "weft:files/imports",
    });
}

pub use bindings::weft::files::attributes::{
    Attributes, Error, Identity, Kind, Mount, create, mounts, set_mask, set_mode, set_owner, stat,
    who,
};

/// As the standard library tells it, by the number that WASI's own library has for it.
pub fn said(error: Error) -> std::io::Error {
    std::io::Error::from_raw_os_error(match error {
        Error::Access => 2,
        Error::Exist => 20,
        Error::Invalid => 28,
        Error::Io => 29,
        Error::Loop => 32,
        Error::NameTooLong => 37,
        Error::NoEntry => 44,
        Error::NotDirectory => 54,
        Error::NotPermitted => 63,
        Error::Quota => 19,
        Error::ReadOnly => 69,
        Error::Unsupported => 58,
    })
}
