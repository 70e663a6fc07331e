//! The tools beside the shell, one file for each or for a small family.
//!
//! A tool takes its arguments and streams by [`call::Call`] and its options by [`flags::Usage`]. What it prints, its errors and its codes
//! are busybox', and coreutils' where busybox has no such option. Shared nouns: `pattern` (expressions), `filesystem` (what is known
//! of a file), `calendar` (dates), `printf` (formats), `http` and `resolver` (the network).
//!
//! Bounds: streams are read and written in pieces; what must see all of its input holds at most [`call::HELD_BYTES_MAX`]; trees are
//! walked to a depth. Long work gives way to other tasks of the instance.

mod awk;
mod backtrack;
mod base64;
mod calendar;
mod call;
mod cat;
mod chmod;
mod cmp;
mod copy;
mod curl;
mod cut;
mod date;
mod diff;
mod dig;
mod digest;
mod disk;
mod dump;
mod env;
mod expr;
mod filesystem;
mod find;
mod flags;
mod glob;
mod grep;
mod gzip;
mod head;
mod http;
mod identity;
mod lines;
mod ls;
mod make;
mod nc;
mod paste;
mod path;
mod pattern;
mod printf;
mod remove;
mod resolver;
mod sed;
mod seq;
mod sleep;
mod socket;
mod sort;
mod split;
mod stat;
mod system;
mod tail;
mod tar;
mod tee;
mod tr;
mod uniq;
mod wc;
mod wget;
mod which;
mod xargs;

pub use filesystem::set_mask;

use crate::applet::Applet;

use call::entry;

/// Every tool by its name.
pub const TABLE: &[(&str, Applet)] = &[
    ("awk", entry!(awk::awk)),
    ("base64", entry!(base64::base64)),
    ("basename", entry!(path::basename)),
    ("cat", entry!(cat::cat)),
    ("chgrp", entry!(chmod::chown)),
    ("chmod", entry!(chmod::chmod)),
    ("chown", entry!(chmod::chown)),
    ("clear", entry!(which::clear)),
    ("cmp", entry!(cmp::cmp)),
    ("cp", entry!(copy::cp)),
    ("curl", entry!(curl::curl)),
    ("cut", entry!(cut::cut)),
    ("date", entry!(date::date)),
    ("df", entry!(disk::df)),
    ("diff", entry!(diff::diff)),
    ("dig", entry!(dig::dig)),
    ("dirname", entry!(path::dirname)),
    ("dmesg", entry!(system::dmesg)),
    ("du", entry!(disk::du)),
    ("egrep", entry!(grep::grep)),
    ("env", entry!(env::env)),
    ("expr", entry!(expr::expr)),
    ("fgrep", entry!(grep::grep)),
    ("find", entry!(find::find)),
    ("free", entry!(identity::free)),
    ("getent", entry!(dig::getent)),
    ("grep", entry!(grep::grep)),
    ("groups", entry!(identity::whoami)),
    ("gunzip", entry!(gzip::gzip)),
    ("gzip", entry!(gzip::gzip)),
    ("hd", entry!(dump::hexdump)),
    ("head", entry!(head::head)),
    ("hexdump", entry!(dump::hexdump)),
    ("hostname", entry!(identity::hostname)),
    ("id", entry!(identity::id)),
    ("ifconfig", entry!(system::ip)),
    ("ip", entry!(system::ip)),
    ("less", entry!(cat::page)),
    ("ln", entry!(copy::ln)),
    ("ls", entry!(ls::ls)),
    ("md5sum", entry!(digest::sum)),
    ("mkdir", entry!(make::mkdir)),
    ("mktemp", entry!(make::mktemp)),
    ("more", entry!(cat::page)),
    ("mount", entry!(system::mount)),
    ("mv", entry!(copy::mv)),
    ("nc", entry!(nc::nc)),
    ("nl", entry!(lines::nl)),
    ("nproc", entry!(identity::nproc)),
    ("nslookup", entry!(dig::nslookup)),
    ("od", entry!(dump::od)),
    ("paste", entry!(paste::paste)),
    ("ping", entry!(system::ping)),
    ("ping6", entry!(system::ping)),
    ("printenv", entry!(env::printenv)),
    ("ps", entry!(system::ps)),
    ("readlink", entry!(path::readlink)),
    ("realpath", entry!(path::realpath)),
    ("rev", entry!(lines::rev)),
    ("rm", entry!(remove::rm)),
    ("rmdir", entry!(remove::rmdir)),
    ("route", entry!(system::ip)),
    ("sed", entry!(sed::sed)),
    ("seq", entry!(seq::seq)),
    ("sha1sum", entry!(digest::sum)),
    ("sha224sum", entry!(digest::sum)),
    ("sha256sum", entry!(digest::sum)),
    ("sha384sum", entry!(digest::sum)),
    ("sha512sum", entry!(digest::sum)),
    ("sleep", entry!(sleep::sleep)),
    ("sort", entry!(sort::sort)),
    ("split", entry!(split::split)),
    ("stat", entry!(stat::stat)),
    ("sync", entry!(which::sync)),
    ("sysctl", entry!(system::sysctl)),
    ("tac", entry!(lines::tac)),
    ("tail", entry!(tail::tail)),
    ("tar", entry!(tar::tar)),
    ("tee", entry!(tee::tee)),
    ("timeout", entry!(sleep::timeout)),
    ("top", entry!(system::top)),
    ("touch", entry!(make::touch)),
    ("tr", entry!(tr::tr)),
    ("traceroute", entry!(system::ping)),
    ("truncate", entry!(make::truncate)),
    ("umount", entry!(system::umount)),
    ("uname", entry!(identity::uname)),
    ("uniq", entry!(uniq::uniq)),
    ("unlink", entry!(remove::unlink)),
    ("uptime", entry!(identity::uptime)),
    ("wc", entry!(wc::wc)),
    ("wget", entry!(wget::wget)),
    ("which", entry!(which::which)),
    ("whoami", entry!(identity::whoami)),
    ("xargs", entry!(xargs::xargs)),
    ("xxd", entry!(dump::xxd)),
    ("yes", entry!(seq::yes)),
    ("zcat", entry!(gzip::gzip)),
];
