//! `snap.h` against the Rust that implements it: the C compiler takes both, so that it finds what differs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::mem::offset_of;
use std::process::Command;

use snap::{Image, Info, Options, Progress, Request, Status};
use support::{here, start, text};

const NAMES: [(&str, &str); 16] = [
    ("c_char", "char"),
    ("c_int", "int"),
    ("c_void", "void"),
    ("f32", "float"),
    ("Image", "snap_image"),
    ("Info", "snap_info"),
    ("Model", "snap_model"),
    ("Option<ProgressFn>", "snap_progress_fn"),
    ("Options", "snap_options"),
    ("Progress", "snap_progress"),
    ("Request", "snap_request"),
    ("Status", "snap_status"),
    ("u32", "uint32_t"),
    ("u64", "uint64_t"),
    ("u8", "uint8_t"),
    ("usize", "size_t"),
];

fn c_type(rust: &str) -> String {
    if let Some(to) = rust.strip_prefix("*const ") {
        return format!("const {} *", c_type(to));
    }
    if let Some(to) = rust.strip_prefix("*mut ") {
        return format!("{} *", c_type(to));
    }
    let known = NAMES.iter().find(|(name, _)| *name == rust);
    known
        .unwrap_or_else(|| panic!("no C type for {rust}"))
        .1
        .to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(here(path)).unwrap()
}

/// Types of `name: type, …`.
fn types(list: &str) -> Vec<&str> {
    let items = list.split(',').map(str::trim).filter(|i| !i.is_empty());
    items.map(|i| i.split_once(": ").unwrap().1).collect()
}

/// Name and C declaration of every function of the library.
fn functions() -> Vec<(String, String)> {
    let source = read("src/abi.rs") + &read("src/parts.rs");
    let found = source.split("extern \"C\" fn ").skip(1).map(|rest| {
        let (head, _) = rest.split_once(" {\n").unwrap();
        let (name, rest) = head.split_once('(').unwrap();
        let (parameters, result) = rest.rsplit_once(')').unwrap();
        let result = result
            .strip_prefix(" -> ")
            .map_or("void".to_owned(), c_type);
        let parameters: Vec<String> = types(parameters).into_iter().map(c_type).collect();
        let parameters = match parameters.is_empty() {
            true => "void".to_owned(),
            false => parameters.join(", "),
        };
        (name.to_owned(), format!("{result} {name}({parameters});"))
    });
    found.collect()
}

/// A C function for each field that takes its address as the type that Rust has, with offsets and size.
struct Layouts {
    source: String,
    c: String,
}

impl Layouts {
    fn add(&mut self, rust: &str, size: usize, offsets: &[(&str, usize)]) {
        let start = format!("pub struct {rust} {{\n");
        let (_, body) = self.source.split_once(&start).unwrap();
        let (body, _) = body.split_once("\n}").unwrap();
        let fields = body.lines().filter_map(|l| l.trim().strip_prefix("pub "));
        let fields: Vec<(&str, &str)> = fields
            .map(|f| f.trim_end_matches(',').split_once(": ").unwrap())
            .collect();
        let names: Vec<&str> = fields.iter().map(|f| f.0).collect();
        let given: Vec<&str> = offsets.iter().map(|o| o.0).collect();
        assert_eq!(names, given, "fields of {rust}");
        let c = c_type(rust);
        writeln!(self.c, "CHECK(size_{c}, sizeof({c}) == {size});").unwrap();
        for ((field, ty), (_, offset)) in fields.into_iter().zip(offsets) {
            let ty = c_type(ty);
            let check = format!("CHECK({c}_{field}, offsetof({c}, {field}) == {offset});");
            let address = format!("{ty} *type_{c}_{field}({c} *s) {{ return &s->{field}; }}");
            writeln!(self.c, "{check}\n{address}").unwrap();
        }
    }
}

macro_rules! layout {
    ($layouts:ident, $rust:ident { $($field:ident),* }) => {
        let offsets = [$((stringify!($field), offset_of!($rust, $field))),*];
        $layouts.add(stringify!($rust), size_of::<$rust>(), &offsets);
    };
}

fn layouts() -> String {
    let (source, c) = (read("src/types.rs"), String::new());
    let mut layouts = Layouts { source, c };
    layout!(
        layouts,
        Options {
            struct_size,
            threads
        }
    );
    layout!(
        layouts,
        Info {
            struct_size,
            text_length,
            text_width,
            latent_channels,
            latent_height,
            latent_width,
            image_width,
            image_height,
            embeddings_count,
            latents_count,
            threads,
            steps,
            guidance
        }
    );
    layout!(
        layouts,
        Request {
            struct_size,
            prompt,
            negative_prompt,
            latents,
            latents_count,
            seed,
            steps,
            guidance
        }
    );
    layout!(
        layouts,
        Image {
            width,
            height,
            pixels,
            owner
        }
    );
    layout!(
        layouts,
        Progress {
            struct_size,
            steps_done,
            steps,
            latents,
            latents_count,
            run
        }
    );
    layouts.c
}

/// The header without its comments.
fn header() -> String {
    let text = read("include/snap.h");
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
    let mut c =
        "#include \"snap.h\"\n#define CHECK(name, holds) typedef char name[(holds) ? 1 : -1]\n"
            .to_owned();
    for (_, declaration) in &functions {
        writeln!(c, "{declaration}").unwrap();
    }
    let progress = "int function(const snap_progress *progress, void *user)";
    writeln!(
        c,
        "{progress};\nsnap_progress_fn pointer(void) {{ return function; }}"
    )
    .unwrap();
    c += &layouts();
    writeln!(
        c,
        "CHECK(size_snap_status, sizeof(snap_status) == {});",
        size_of::<Status>()
    )
    .unwrap();
    let statuses = [
        ("SNAP_OK", Status::Ok),
        ("SNAP_CANCELLED", Status::Cancelled),
        ("SNAP_ERROR_ARGUMENT", Status::Argument),
        ("SNAP_ERROR_FILE", Status::File),
        ("SNAP_ERROR_MEMORY", Status::Memory),
        ("SNAP_ERROR_RUN", Status::Run),
        ("SNAP_ERROR_BUSY", Status::Busy),
        ("SNAP_ERROR_INTERNAL", Status::Internal),
    ];
    for (name, status) in statuses {
        writeln!(c, "CHECK(value_{name}, {name} == {});", status as i32).unwrap();
    }
    assert_eq!(header().matches(" = ").count(), statuses.len());

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("header.c");
    std::fs::write(&file, &c).unwrap();
    let mut command = Command::new("cc");
    command.args([
        "-std=c99",
        "-Wall",
        "-Wextra",
        "-Wpedantic",
        "-Werror",
        "-fsyntax-only",
        "-I",
    ]);
    let output = start(command.arg(here("include")).arg(&file));
    assert!(output.status.success(), "{c}\n{}", text(&output.stderr));

    let declared = header();
    let words = declared.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '(');
    let declared: BTreeSet<&str> = words
        .filter_map(|w| w.split_once('(').map(|(name, _)| name))
        .filter(|name| name.starts_with("snap_"))
        .collect();
    let implemented: BTreeSet<&str> = functions.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(declared, implemented);
}
