//! The checked-in code of the examples' services is what their protos say. No protoc is
//! needed: protox compiles them.
//!
//! `UPDATE_GENERATED=1 cargo test codegen` writes it anew.

use std::path::Path;
use std::{env, fs};

const PROTO_DIR: &str = "examples/proto";

/// What is generated of a proto, by its package.
const GENERATED: [(&str, &str); 2] = [
    ("helloworld", "examples/support/helloworld.rs"),
    ("shop", "examples/support/shop/generated.rs"),
];

#[test]
fn generated_code_is_what_the_protos_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("codegen");
    fs::create_dir_all(&out).unwrap();
    for (package, generated) in GENERATED {
        let proto = root.join(PROTO_DIR).join(format!("{package}.proto"));
        let descriptors = protox::compile([proto], [root.join(PROTO_DIR)]).unwrap();
        tonic_prost_build::configure()
            .out_dir(&out)
            .compile_fds(descriptors)
            .unwrap();
        let expected = fs::read_to_string(out.join(format!("{package}.rs"))).unwrap();
        if env::var_os("UPDATE_GENERATED").is_some() {
            fs::write(root.join(generated), &expected).unwrap();
        }
        let actual = fs::read_to_string(root.join(generated)).unwrap();
        assert!(
            actual == expected,
            "{generated} is stale: run `UPDATE_GENERATED=1 cargo test codegen`"
        );
    }
}
