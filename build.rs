//! Links libkqueue, if that is asked for (`--features libkqueue`): pkg-config knows where it is.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_LIBKQUEUE").is_none() {
        return;
    }
    let found = Command::new("pkg-config").args(["--libs", "libkqueue"]).output();
    let flags = match found {
        Ok(out) if out.status.success() => String::from_utf8_lossy(&out.stdout).into_owned(),
        _ => {
            println!("cargo::error=the feature libkqueue needs libkqueue with its pkg-config file");
            return;
        }
    };
    for flag in flags.split_whitespace() {
        if let Some(folder) = flag.strip_prefix("-L") {
            println!("cargo::rustc-link-search=native={folder}");
        } else if let Some(library) = flag.strip_prefix("-l") {
            println!("cargo::rustc-link-lib={library}");
        }
    }
}
