//! The tools beside the shell, one file each.

use crate::applet::Applet;

/// Every tool by its name.
pub const TABLE: &[(&str, Applet)] = &[];
