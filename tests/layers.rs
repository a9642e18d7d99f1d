//! The floors of the house hold: who may import whom is read from the sources.
//!
//! Calls go down, and what comes up are returned values: so an import upwards is always a mistake. Also kept here: bincode is named in one file,
//! `unsafe` stands on the two floors that talk to the system, and only they ask which system that is; the README's program is an example. This test reads text and knows just enough of Rust for that: comments and literals are
//! blanked, `use` trees are taken apart, and paths in code that start at a crate are looked at like imports.

#![allow(clippy::unwrap_used, reason = "a test's helpers")]

use std::fs;
use std::path::Path;

/// Where a file stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// `proto/src/sys`.
    Sys,
    /// The rest of `proto/src`.
    Proto,
    /// `src/backend`.
    Backend,
    /// `src/base`.
    Base,
    /// `src/session`.
    Session,
    /// `src/server`.
    Server,
    /// `src/evctl`.
    Evctl,
    /// `src/bin`.
    Bin,
    /// `src/lib.rs`: names the others.
    Root,
    /// `client/src`.
    Client,
}

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Sys,
    Proto,
    /// A folder of `src`, or what is under it: `evd::server::args` is `Evd(["server", "args"])`.
    Evd(Vec<String>),
    Client,
    /// The own crate's other parts, and crates that are none of ours.
    Other,
}

/// The folders of `src` that are floors.
const FLOORS: [&str; 5] = ["backend", "base", "session", "server", "evctl"];

fn place(path: &str) -> Option<Place> {
    let folder = |name: &str| path.starts_with(&format!("src/{name}/")) || path == format!("src/{name}.rs");
    Some(match path {
        "proto/src/sys.rs" => Place::Sys,
        _ if path.starts_with("proto/src/sys/") => Place::Sys,
        _ if path.starts_with("proto/src/") => Place::Proto,
        _ if path.starts_with("client/src/") => Place::Client,
        _ if path.starts_with("src/bin/") => Place::Bin,
        "src/lib.rs" => Place::Root,
        _ if folder("backend") => Place::Backend,
        _ if folder("base") => Place::Base,
        _ if folder("session") => Place::Session,
        _ if folder("server") => Place::Server,
        _ if folder("evctl") => Place::Evctl,
        _ => return None,
    })
}

/// Whether a file at `from` may name `to`.
fn allowed(from: Place, to: &Target) -> bool {
    let floors: &[&str] = match from {
        Place::Sys => return matches!(to, Target::Sys | Target::Other),
        Place::Proto => return matches!(to, Target::Sys | Target::Proto | Target::Other),
        Place::Backend => &["backend"],
        Place::Base => &["backend", "base"],
        Place::Session => &["backend", "base", "session"],
        Place::Server => &["backend", "base", "session", "server"],
        Place::Evctl => &["evctl"],
        Place::Bin | Place::Root => return *to != Target::Client,
        Place::Client => &["backend", "base"],
    };
    match to {
        Target::Evd(path) => {
            // The man page and the completions of both programs come from one place.
            let args = path.iter().take(2).map(String::as_str).eq(["server", "args"]);
            path.first().is_some_and(|f| floors.contains(&f.as_str())) || (from == Place::Evctl && args)
        }
        Target::Client => from == Place::Client,
        Target::Sys | Target::Proto | Target::Other => true,
    }
}

/// `source` without comments, and with strings and character literals blanked. Lines stay.
fn code(source: &str) -> String {
    let s: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut i = 0;
    // Blanks up to `end`, but keeps the lines.
    let blank = |out: &mut String, from: usize, end: usize| {
        out.extend(s[from..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
    };
    while i < s.len() {
        let start = i;
        let rest = &s[i..];
        if rest.starts_with(&['/', '/']) {
            while i < s.len() && s[i] != '\n' {
                i += 1;
            }
        } else if rest.starts_with(&['/', '*']) {
            let mut depth = 0;
            loop {
                match (s.get(i), s.get(i + 1)) {
                    (Some('/'), Some('*')) => (depth, i) = (depth + 1, i + 2),
                    (Some('*'), Some('/')) => (depth, i) = (depth - 1, i + 2),
                    (Some(_), _) => i += 1,
                    (None, _) => break,
                }
                if depth == 0 {
                    break;
                }
            }
        } else if let Some(hashes) = raw_string(rest, start.checked_sub(1).map(|b| s[b])) {
            i += rest.iter().position(|&c| c == '"').unwrap() + 1;
            let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
            while i < s.len() && !s[i..].starts_with(&end) {
                i += 1;
            }
            i = (i + end.len()).min(s.len());
        } else if s[i] == '"' || (s[i] == '\'' && is_char_literal(rest)) {
            let quote = s[i];
            i += 1;
            while i < s.len() && s[i] != quote {
                i += if s[i] == '\\' { 2 } else { 1 };
            }
            i = (i + 1).min(s.len());
        } else {
            out.push(s[i]);
            i += 1;
            continue;
        }
        blank(&mut out, start, i);
    }
    out
}

/// Whether `rest` starts a raw string, and with how many `#`.
fn raw_string(rest: &[char], before: Option<char>) -> Option<usize> {
    if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
        return None;
    }
    let skip = match rest {
        ['b' | 'c', 'r', ..] => 2,
        ['r', ..] => 1,
        _ => return None,
    };
    let hashes = rest[skip..].iter().take_while(|&&c| c == '#').count();
    (rest.get(skip + hashes) == Some(&'"')).then_some(hashes)
}

/// Tells `'a'` and `'\n'` from a lifetime.
fn is_char_literal(rest: &[char]) -> bool {
    rest.get(1) == Some(&'\\') || rest.get(2) == Some(&'\'')
}

/// The words and signs of `code`; `::` is one sign.
fn tokens(code: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    for (n, line) in code.lines().enumerate() {
        let mut chars = line.chars().peekable();
        while let Some(c) = chars.next() {
            let mut token = String::from(c);
            if c.is_alphanumeric() || c == '_' {
                while let Some(c) = chars.next_if(|c| c.is_alphanumeric() || *c == '_') {
                    token.push(c);
                }
            } else if c == ':' && chars.next_if_eq(&':').is_some() {
                token.push(':');
            } else if c.is_whitespace() {
                continue;
            }
            found.push((n + 1, token));
        }
    }
    found
}

/// All paths of a source: each leaf of each `use` tree, and each path of at least two parts in code. With its line.
fn paths(code: &str) -> Vec<(usize, Vec<String>)> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        let word = is_word(&tokens[i].1);
        let continues = i > 0 && tokens[i - 1].1 == "::" && i > 1 && is_word(&tokens[i - 2].1);
        if tokens[i].1 == "use" {
            i = tree(&tokens, i + 1, &[], &mut found);
        } else if word && !continues && tokens.get(i + 1).is_some_and(|t| t.1 == "::") {
            let (line, mut path) = (tokens[i].0, vec![tokens[i].1.clone()]);
            i += 1;
            while tokens.get(i).is_some_and(|t| t.1 == "::")
                && tokens.get(i + 1).is_some_and(|t| is_word(&t.1))
            {
                path.push(tokens[i + 1].1.clone());
                i += 2;
            }
            found.push((line, path));
        } else {
            i += 1;
        }
    }
    found
}

fn is_word(token: &str) -> bool {
    token.chars().next().is_some_and(|c| c.is_alphanumeric() || c == '_')
}

/// Reads one `use` tree from `i` on; returns where it ends.
fn tree(
    tokens: &[(usize, String)],
    mut i: usize,
    prefix: &[String],
    found: &mut Vec<(usize, Vec<String>)>,
) -> usize {
    let mut path = prefix.to_vec();
    while let Some((line, token)) = tokens.get(i) {
        match token.as_str() {
            "::" => i += 1,
            "{" => {
                i += 1;
                while tokens.get(i).is_some_and(|t| t.1 != "}") {
                    i = tree(tokens, i, &path, found);
                    if tokens.get(i).is_some_and(|t| t.1 == ",") {
                        i += 1;
                    }
                }
                return i + 1;
            }
            "as" => i += 2,
            word if is_word(word) || word == "*" => {
                path.push(word.to_owned());
                i += 1;
                if tokens.get(i).is_none_or(|t| t.1 != "::") {
                    found.push((*line, path.clone()));
                    if tokens.get(i).is_some_and(|t| t.1 == "as") {
                        i += 2;
                    }
                    return i;
                }
            }
            _ => return i,
        }
    }
    i
}

/// Where a path in the file at `file` leads.
fn target(file: &str, from: Place, path: &[String]) -> Target {
    let rest = |n: usize| path[n.min(path.len())..].to_vec();
    let in_proto = |path: &[String]| {
        if path.first().is_some_and(|p| p == "sys") { Target::Sys } else { Target::Proto }
    };
    match path[0].as_str() {
        "evd_proto" => in_proto(&rest(1)),
        "evd_client" => Target::Client,
        "evd" => Target::Evd(rest(1)),
        "crate" => match from {
            Place::Sys | Place::Proto => in_proto(&rest(1)),
            Place::Client => Target::Client,
            Place::Bin => Target::Other,
            _ => Target::Evd(rest(1)),
        },
        "super" => {
            let up = path.iter().take_while(|p| *p == "super").count();
            let root =
                if file.starts_with("src/") { "src/" } else { file.split_inclusive("src/").next().unwrap() };
            let inside = file[root.len()..].trim_end_matches(".rs");
            let mut module: Vec<String> = inside.split('/').map(str::to_owned).collect();
            if module.last().is_some_and(|m| m == "mod" || m == "lib") {
                module.pop();
            }
            let left = module.len().saturating_sub(up);
            module.truncate(left);
            module.extend(rest(up));
            match from {
                Place::Sys | Place::Proto => in_proto(&module),
                Place::Client => Target::Client,
                Place::Bin => Target::Other,
                // A module within the file is one level more than is counted here; then what comes out is no floor, and it stays on its own.
                _ if !module.first().is_some_and(|m| FLOORS.contains(&m.as_str())) => Target::Other,
                _ => Target::Evd(module),
            }
        }
        _ => Target::Other,
    }
}

/// `code` without its `mod tests { .. }`, so that `super` means what it says and tests may use what they like of their own floor.
fn without_tests(code: &str) -> String {
    let mut out = code.to_owned();
    while let Some(at) = out.find("#[cfg(test)]") {
        let Some(open) = out[at..].find(['{', ';']).map(|n| at + n) else { break };
        let mut depth = 0usize;
        let end = out[open..].char_indices().find_map(|(n, c)| {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            (depth == 0).then_some(open + n + 1)
        });
        let end = end.unwrap_or(out.len());
        let blank: String = out[at..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        out.replace_range(at..end, &blank);
    }
    out
}

/// What is wrong with one source.
fn complaints(file: &str, source: &str) -> Vec<String> {
    let Some(from) = place(file) else { return vec![format!("{file}: stands on no floor")] };
    let code = code(source);
    let mut wrong = Vec::new();
    for (line, path) in paths(&without_tests(&code)) {
        if !allowed(from, &target(file, from, &path)) {
            wrong.push(format!("{file}:{line}: {from:?} may not use {}", path.join("::")));
        }
    }
    for (line, token) in tokens(&code) {
        let system = matches!(from, Place::Sys | Place::Backend);
        if token == "unsafe" && !system {
            wrong.push(format!("{file}:{line}: unsafe outside of proto::sys and backend"));
        }
        // Each system's own way has its place. What only a build with certain features has, and tests, are another matter.
        let asks =
            ["target_os", "target_vendor", "target_family", "target_endian", "target_arch", "target_env"];
        if asks.contains(&token.as_str()) && from != Place::Sys && file != "src/backend/mod.rs" {
            wrong.push(format!(
                "{file}:{line}: only proto::sys and src/backend/mod.rs ask what they are built for"
            ));
        }
        if token == "bincode" && file != "proto/src/codec.rs" {
            wrong.push(format!("{file}:{line}: bincode is named in proto/src/codec.rs only"));
        }
    }
    wrong
}

/// All Rust sources under `folder` of the project, with their paths from its root.
fn sources(folder: &str) -> Vec<(String, String)> {
    fn walk(folder: &Path, root: &Path, found: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, root, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    walk(&root.join(folder), root, &mut found);
    found.sort();
    found
}

fn all_sources() -> Vec<(String, String)> {
    ["src", "proto/src", "client/src"].into_iter().flat_map(sources).collect()
}

#[test]
fn the_program_of_the_readme_is_the_example_web() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let example = fs::read_to_string(root.join("examples/web.rs")).unwrap();
    let (_, program) = example.split_once("\n\n").unwrap();
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    assert!(readme.contains(&format!("```rust\n{program}```\n")), "they differ");
}

#[test]
fn no_file_imports_from_a_higher_floor() {
    let all = all_sources();
    assert!(all.len() > 20, "only {} sources were found", all.len());
    let wrong: Vec<String> = all.iter().flat_map(|(file, source)| complaints(file, source)).collect();
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
    let names: Vec<_> = all.iter().filter(|(_, s)| code(s).contains("bincode")).map(|(f, _)| f).collect();
    assert_eq!(names, ["proto/src/codec.rs"]);
    for (file, source) in &all {
        let lines = source.lines().count();
        if lines > 500 {
            println!("warning: {file} has {lines} lines: is it one thing?");
        }
    }
}

#[cfg(test)]
mod detector {
    use super::*;

    #[track_caller]
    fn bad(file: &str, source: &str) {
        assert_eq!(complaints(file, source).len(), 1, "{file}: {source}: {:?}", complaints(file, source));
    }

    #[track_caller]
    fn good(file: &str, source: &str) {
        assert_eq!(complaints(file, source), Vec::<String>::new(), "{file}: {source}");
    }

    #[test]
    fn imports_upwards_are_found_however_they_are_written() {
        bad("src/backend/epoll.rs", "use crate::base::Base;");
        bad("src/base/mod.rs", "use crate::{backend::Backend, session::Session};");
        bad("src/base/mod.rs", "use {crate::backend::Backend, crate::{session::{self}}};");
        bad("src/base/mod.rs", "pub(crate) use crate::server as s;");
        bad("src/session/mod.rs", "fn f() { crate::server::run(); }");
        bad("src/session/mod.rs", "fn f(x: &crate::server::Names) {}");
        bad("src/session/requests/arm.rs", "use super::super::super::server::Names;");
        bad("src/session/mod.rs", "use super::server;");
        bad("src/base/timers.rs", "use super::super::session;");
        bad("src/base.rs", "use\n    crate\n    ::session;");
        bad("proto/src/sys/unix/socket.rs", "use crate::frame::HEADER;");
        bad("proto/src/sys/mod.rs", "use super::What;");
        bad("proto/src/frame.rs", "use evd::base::Base;");
        bad("proto/src/frame.rs", "use evd_client::EventBase;");
        bad("src/server/mod.rs", "use evd_client::EventBase;");
        bad("src/server/mod.rs", "use crate::evctl::run;");
        bad("src/evctl/status.rs", "use crate::server::names;");
        bad("src/evctl/status.rs", "use crate::base::Base;");
        bad("src/evctl/status.rs", "fn f() { evd::base::Base::new() }");
        bad("client/src/lib.rs", "use evd::server::Daemon;");
        bad("client/src/park.rs", "use evd::Daemon;");
        bad("src/base/mod.rs", "macro_rules! m { () => { $crate::session::f() } }");
        bad("src/misc.rs", "");
    }

    #[test]
    fn imports_downwards_and_words_that_are_none_are_fine() {
        good("src/server/mod.rs", "use crate::{backend, base::Base, session::Session};\nuse evd_proto::sys;");
        good("src/base/timers.rs", "use super::Base;\nuse crate::backend::{Backend, Ready};");
        good("src/session/requests/arm.rs", "use super::super::Session; use crate::session::x;");
        good("proto/src/frame.rs", "use crate::codec::{self, CodecError}; use crate::sys::send;");
        good("proto/src/sys/unix/file.rs", "use super::cvt; use crate::sys::send;");
        good("src/evctl/man.rs", "use crate::server::args::Args; use evd_proto::reply::Holds;");
        good("client/src/park.rs", "use evd::{backend::METHODS, base::Base}; use crate::Event;");
        good("src/bin/evd.rs", "fn main() { evd::server::main() }");
        good("src/base/mod.rs", "// use crate::session;\n/* crate::session::f() /* nested */ */ fn f() {}");
        good("src/base/mod.rs", "/// See [`crate::session`].\nconst A: &str = \"crate::session::f\";");
        good(
            "src/base/mod.rs",
            "const A: &str = r#\"\"crate::session::f\"#; const B: char = '\"'; fn f<'a>() {}",
        );
        good("src/base/mod.rs", "fn f() { session::f(); std::base::session(); x.server() }");
        good(
            "src/base/mod.rs",
            "#[cfg(test)]\nmod tests { use super::*; fn f() { { } } }\nuse super::backend;",
        );
    }

    #[test]
    fn unsafe_and_bincode_are_found_in_code_only() {
        bad("src/base/mod.rs", "fn f() { unsafe { g() } }");
        bad("client/src/lib.rs", "unsafe impl Send for X {}");
        bad("proto/src/frame.rs", "unsafe fn f() {}");
        bad("src/backend/poll.rs", "#[cfg(target_os = \"linux\")] fn f() {}");
        bad("src/server/harden.rs", "#[cfg(target_arch = \"x86_64\")] mod filter;");
        bad("src/backend/epoll.rs", "#[cfg(target_arch = \"x86_64\")] const X32: u32 = 0;");
        bad("client/src/lib.rs", "fn f() -> bool { cfg!(target_os = \"linux\") }");
        good("src/backend/mod.rs", "#[cfg(target_os = \"linux\")] mod epoll;");
        good("proto/src/sys/unix/mod.rs", "#[cfg_attr(target_os = \"linux\", path = \"a.rs\")] mod a;");
        bad("src/server/mod.rs", "#[cfg(test)] mod tests { fn f() { unsafe { g() } } }");
        bad("proto/src/frame.rs", "use bincode::Encode;");
        good("src/base/mod.rs", "#![forbid(unsafe_code)]\n//! unsafe, bincode\nconst A: &str = \"unsafe\";");
        good("src/backend/epoll.rs", "fn f() { unsafe { g() } }");
        good("proto/src/sys/unix/file.rs", "fn f() { unsafe { g() } }");
        good("proto/src/codec.rs", "use bincode::config;");
    }
}
