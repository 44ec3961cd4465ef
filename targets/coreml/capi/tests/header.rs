//! `snap_coreml.h` against the Rust that implements it: the C compiler takes both, so that it finds what differs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::mem::offset_of;
use std::process::Command;

use snap_coreml::{Input, Output, Status};
use support::{here, include, start, text};

const NAMES: [(&str, &str); 7] = [
    ("c_char", "char"),
    ("c_void", "void"),
    ("Input", "snap_coreml_input"),
    ("Model", "snap_coreml_model"),
    ("Output", "snap_coreml_output"),
    ("Status", "snap_coreml_status"),
    ("usize", "size_t"),
];

fn c_type(rust: &str) -> String {
    if let Some(to) = rust.strip_prefix("*const ") {
        return match to.starts_with('*') {
            true => format!("{} *", c_type(to)),
            false => format!("const {} *", c_type(to)),
        };
    }
    if let Some(to) = rust.strip_prefix("*mut ") {
        return format!("{} *", c_type(to));
    }
    let known = NAMES.iter().find(|(name, _)| *name == rust);
    let (_, c) = known.unwrap_or_else(|| panic!("no C type for {rust}"));
    (*c).to_owned()
}

/// Name and C declaration of every function of the library.
fn functions() -> Vec<(String, String)> {
    let source = std::fs::read_to_string(here("src/abi.rs")).unwrap();
    let found = source.split("extern \"C\" fn ").skip(1).map(|rest| {
        let (head, _) = rest.split_once(" {\n").unwrap();
        let (name, rest) = head.split_once('(').unwrap();
        let (parameters, result) = rest.rsplit_once(')').unwrap();
        let result = result.strip_prefix(" -> ");
        let result = result.map_or("void".to_owned(), c_type);
        let parameters = parameters.split(',').map(str::trim);
        let parameters = parameters.filter(|p| !p.is_empty());
        let parameters = parameters.map(|p| c_type(p.split_once(": ").unwrap().1));
        let parameters: Vec<String> = parameters.collect();
        let parameters = match parameters.is_empty() {
            true => "void".to_owned(),
            false => parameters.join(", "),
        };
        (name.to_owned(), format!("{result} {name}({parameters});"))
    });
    found.collect()
}

/// Checks of the layout of the structs, whose fields a C compiler also compares in type.
fn layouts() -> String {
    let input = [
        ("const char *", "name", offset_of!(Input, name)),
        ("const void *", "data", offset_of!(Input, data)),
        ("size_t ", "bytes", offset_of!(Input, bytes)),
    ];
    let output = [
        ("const char *", "name", offset_of!(Output, name)),
        ("void *", "data", offset_of!(Output, data)),
        ("size_t ", "bytes", offset_of!(Output, bytes)),
    ];
    let structs = [
        ("snap_coreml_input", size_of::<Input>(), input),
        ("snap_coreml_output", size_of::<Output>(), output),
    ];
    let mut c = String::new();
    for (name, size, fields) in structs {
        writeln!(c, "CHECK(size_{name}, sizeof({name}) == {size});").unwrap();
        for (ty, field, offset) in fields {
            let check = format!("offsetof({name}, {field}) == {offset}");
            writeln!(c, "CHECK(offset_{name}_{field}, {check});").unwrap();
            let address = format!("{ty}*type_{name}_{field}({name} *s)");
            writeln!(c, "{address};\n{address} {{ return &s->{field}; }}").unwrap();
        }
    }
    c
}

/// The header without its comments.
fn header() -> String {
    let text = std::fs::read_to_string(include().join("snap_coreml.h")).unwrap();
    let parts = text.split("/*").enumerate();
    let code = parts.map(|(i, part)| match i {
        0 => part,
        _ => part.split_once("*/").expect("a comment ends").1,
    });
    code.collect()
}

#[test]
fn the_header_declares_what_the_library_has() {
    let functions = functions();
    assert_eq!(functions.len(), 6, "{functions:?}");
    let mut c = "#include \"snap_coreml.h\"\n".to_owned();
    c += "#define CHECK(name, holds) typedef char name[(holds) ? 1 : -1]\n";
    for (_, declaration) in &functions {
        writeln!(c, "{declaration}").unwrap();
    }
    c += &layouts();
    let statuses = [
        ("OK", Status::Ok),
        ("ERROR_ARGUMENT", Status::Argument),
        ("ERROR_PACKAGE", Status::Package),
        ("ERROR_RUN", Status::Run),
        ("ERROR_INTERNAL", Status::Internal),
    ];
    let size = size_of::<Status>();
    writeln!(c, "CHECK(size, sizeof(snap_coreml_status) == {size});").unwrap();
    for (name, status) in statuses {
        let value = status as i32;
        writeln!(c, "CHECK(value_{name}, SNAP_COREML_{name} == {value});").unwrap();
    }
    assert_eq!(header().matches(" = ").count(), statuses.len());

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("header.c");
    std::fs::write(&file, &c).unwrap();
    let mut command = Command::new("cc");
    command.args(["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]);
    command.arg("-fsyntax-only").arg("-I").arg(include());
    let output = start(command.arg(&file));
    assert!(output.status.success(), "{c}\n{}", text(&output.stderr));

    let declared = header();
    let words = declared.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '(');
    let declared: BTreeSet<&str> = words
        .filter_map(|word| Some(word.split_once('(')?.0))
        .filter(|name| name.starts_with("snap_coreml_"))
        .collect();
    let implemented: BTreeSet<&str> = functions.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(declared, implemented);
}
