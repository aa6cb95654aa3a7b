//! The checked-in code of the Greeter is what its proto says. No protoc is
//! needed: protox compiles the proto.
//!
//! `UPDATE_GENERATED=1 cargo test codegen` writes it anew.

use std::path::Path;
use std::{env, fs};

const PROTO_DIR: &str = "examples/proto";
const GENERATED: &str = "examples/support/helloworld.rs";

#[test]
fn generated_code_is_what_the_proto_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let descriptors = protox::compile(
        [root.join(PROTO_DIR).join("helloworld.proto")],
        [root.join(PROTO_DIR)],
    )
    .unwrap();
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("codegen");
    fs::create_dir_all(&out).unwrap();
    tonic_prost_build::configure()
        .out_dir(&out)
        .compile_fds(descriptors)
        .unwrap();
    let expected = fs::read_to_string(out.join("helloworld.rs")).unwrap();
    if env::var_os("UPDATE_GENERATED").is_some() {
        fs::write(root.join(GENERATED), &expected).unwrap();
    }
    let actual = fs::read_to_string(root.join(GENERATED)).unwrap();
    assert!(
        actual == expected,
        "{GENERATED} is stale: run `UPDATE_GENERATED=1 cargo test codegen`"
    );
}
