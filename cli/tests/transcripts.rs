//! What the commands say. One command, one situation: a file in `tests/cli`. What takes several steps stands here.
//!
//! After a wanted change of a message, `TRYCMD=overwrite cargo test --test transcripts` rewrites the files. Read the
//! difference, and put `[..]` back where a changed line holds a time, a port or a digest.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

const PPONNX: &str = env!("CARGO_BIN_EXE_pponnx");
const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/cli/models");
const DIGITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../onnx-models/digits");

#[test]
fn transcripts() {
    // Lines and boxes of diagnostics, and colours, depend on these.
    trycmd::TestCases::new()
        .default_bin_path(PPONNX)
        .env("LC_ALL", "C.UTF-8")
        .env("NO_COLOR", "1")
        .env("PPONNX_LOG", "error")
        .case("../tests/cli/*.toml");
}

/// A temporary folder to work in, and what is said there.
struct Desk {
    dir: tempfile::TempDir,
}

/// What a command left: exit code, stdout, stderr.
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    fn new(output: Output) -> Said {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let said = Said { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) };
        assert!(!said.err.contains("panicked") && !said.err.contains("pponnx::internal"), "{}", said.err);
        said
    }

    fn fine(self) -> Said {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self
    }

    /// A diagnostic with this exit code, this dotted code and all these words; always with a remedy, never a result.
    fn refused(self, code: i32, dotted: &str, words: &[&str]) {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        assert!(self.err.contains(dotted), "no {dotted}: {}", self.err);
        assert!(self.err.contains("help: "), "no remedy: {}", self.err);
        for word in words {
            assert!(self.err.contains(word), "no {word:?}: {}", self.err);
        }
        assert!(self.out.is_empty(), "{}", self.out);
    }
}

impl Desk {
    fn new() -> Desk {
        Desk { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, program: &str, args: &str) -> Command {
        let mut command = Command::new(program);
        let args = args.split_whitespace().map(|a| a.replace("MODELS", MODELS).replace("DIGITS", DIGITS));
        command.args(args).current_dir(self.dir.path()).env_remove("PPONNX_ISA").env("PPONNX_LOG", "error");
        command
    }

    fn run(&self, args: &str) -> Said {
        Said::new(self.command(PPONNX, args).output().unwrap())
    }

    fn serve(&self, args: &str) -> Edge {
        let mut command = self.command(PPONNX, &format!("serve {args}"));
        let mut process = command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address =
            line.split_whitespace().find(|w| w.contains("127.0.0.1:")).map(|w| w.trim_end_matches(':').into());
        Edge { process, address: address.unwrap_or_else(|| panic!("the edge does not listen: {line}")) }
    }

    /// A copy of a folder under another name.
    fn copy(&self, from: &str, to: &str) {
        copy(&self.path(from), &self.path(to));
    }

    fn names(&self) -> Vec<String> {
        names(self.dir.path())
    }
}

/// An edge at work; ended when dropped.
struct Edge {
    process: Child,
    address: String,
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => fs::copy(entry.path(), target).map(|_| ()).unwrap(),
        }
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn edit(path: &Path, change: impl FnOnce(&[u8]) -> Vec<u8>) {
    fs::write(path, change(&fs::read(path).unwrap())).unwrap();
}

fn edit_text(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{from} not in\n{text}");
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

fn cut(bytes: &[u8]) -> Vec<u8> {
    bytes[..bytes.len() - 9].to_vec()
}

fn empty(_: &[u8]) -> Vec<u8> {
    Vec::new()
}

fn flip(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    bytes
}

fn other_version(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[8] ^= 0x40;
    bytes
}

/// Two ports outside the range that systems hand out by themselves, so that nothing else takes them meanwhile.
fn free_ports() -> (u16, u16) {
    let start = 20_000 + u16::try_from(std::process::id() % 5_000).unwrap();
    let mut free = (start..32_000).filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    (free.next().unwrap(), free.next().unwrap())
}

#[test]
fn the_three_machines_of_the_readme() {
    let readme = include_str!("../../README.md");
    let (_, section) = readme.split_once("## Three machines").unwrap();
    let (section, _) = section.split_once("## ").unwrap();
    let commands: Vec<&str> = section.lines().filter_map(|l| l.trim_start().strip_prefix("pponnx ")).collect();
    let [compile, edge_a, edge_b, run] = commands.as_slice() else { panic!("{commands:?}") };

    let desk = Desk::new();
    let (a, b) = free_ports();
    fs::copy(format!("{DIGITS}/model.onnx"), desk.path("model.onnx")).unwrap();
    fs::copy(format!("{DIGITS}/input.png"), desk.path("photo.png")).unwrap();
    let compile = compile.replace("a.example:7101", &format!("127.0.0.1:{a}"));
    let compile = compile.replace("b.example:7102", &format!("127.0.0.1:{b}"));
    assert!(compile.contains(&a.to_string()) && compile.contains(&b.to_string()), "{compile}");
    desk.run(&compile).fine();

    // Each folder goes to its machine whole; the owner's are gone.
    for name in ["edge-a", "edge-b", "device"] {
        desk.copy(&format!("out/{name}"), name);
    }
    fs::remove_dir_all(desk.path("out")).unwrap();
    let serve = |command: &str| desk.serve(command.strip_prefix("serve ").unwrap());
    let _a = serve(edge_a);
    let _b = serve(edge_b);
    let said = desk.run(&run.replace("photo.jpg", "photo.png")).fine();
    let top = said.out.lines().nth(1).unwrap();
    assert!(top.trim_end().ends_with(" 4"), "{}", said.out);
    assert!(said.out.contains("5 rounds"), "{}", said.out);
}

/// The files shown in the documentation are accepted: the first complaint is about a file that they name.
#[test]
fn the_examples_of_the_configuration_page() {
    let desk = Desk::new();
    let page = include_str!("../../docs/configuration.md");
    let examples: Vec<&str> = page.split("```toml\n").skip(1).map(|rest| rest.split_once("```").unwrap().0).collect();
    let [device, edge] = examples.as_slice() else { panic!("{}", examples.len()) };
    fs::write(desk.path("device.toml"), device).unwrap();
    fs::write(desk.path("edge.toml"), edge).unwrap();
    desk.run("run -c device.toml --input MODELS/x.npy").refused(4, "pponnx::file", &["device.plan"]);
    desk.run("serve -c edge.toml").refused(4, "pponnx::file", &["edge.plan"]);
}

/// Two compilations whose edges nobody runs.
fn two_bundles() -> Desk {
    let desk = Desk::new();
    desk.run("compile MODELS/small.onnx -o one --edge-a 127.0.0.1:1 --edge-b 127.0.0.1:2").fine();
    desk.run("compile MODELS/other.onnx -o two --edge-a 127.0.0.1:1 --edge-b 127.0.0.1:2").fine();
    desk
}

type Damage = fn(&[u8]) -> Vec<u8>;

#[test]
fn damaged_files_of_the_device() {
    let desk = two_bundles();
    let run = || desk.run("run -c d/device.toml --input MODELS/x.npy --output y.npz");
    let fresh = || {
        let _ = fs::remove_dir_all(desk.path("d"));
        desk.copy("one/device", "d");
    };
    let plan = (3, "pponnx::plan::format");
    let keys = (4, "pponnx::keys::file");
    let cases: [(&str, Damage, (i32, &str), &str); 12] = [
        ("device.plan", cut, plan, "the plan ends early"),
        ("device.plan", flip, plan, "checksum"),
        ("device.plan", other_version, plan, "format version"),
        ("device.plan", empty, plan, "the plan"),
        ("device.key", cut, keys, "damaged key file"),
        ("device.key", flip, keys, "damaged key file"),
        ("device.key", other_version, keys, "format version"),
        ("device.key", empty, keys, "key file"),
        ("check.bin", cut, keys, "damaged check file"),
        ("check.bin", flip, keys, "damaged check file"),
        ("check.bin", other_version, keys, "format version"),
        ("identity", cut, (4, "pponnx::identity"), "private key"),
    ];
    for (file, damage, (code, dotted), word) in cases {
        fresh();
        edit(&desk.path("d").join(file), damage);
        run().refused(code, dotted, &[word, file]);
    }
    for (file, dotted, word) in [
        ("device.plan", "pponnx::keys::file", "files of two compilations are mixed"),
        ("device.key", "pponnx::keys::file", "files of two compilations are mixed"),
        ("check.bin", "pponnx::keys::file", "copy check.bin again"),
    ] {
        fresh();
        fs::copy(desk.path("two/device").join(file), desk.path("d").join(file)).unwrap();
        run().refused(4, dotted, &[word]);
    }
    for (file, dotted) in [
        ("device.plan", "pponnx::file"),
        ("device.key", "pponnx::keys::file"),
        ("check.bin", "pponnx::keys::file"),
        ("identity", "pponnx::file"),
    ] {
        fresh();
        fs::remove_file(desk.path("d").join(file)).unwrap();
        run().refused(4, dotted, &[file]);
    }
    assert_eq!(desk.names(), ["d", "one", "two"], "no output");
}

#[test]
fn damaged_files_of_the_edges() {
    let desk = two_bundles();
    let key = names(&desk.path("one/edge-b/keys")).remove(0);
    let foreign = format!("two/edge-b/keys/{}", names(&desk.path("two/edge-b/keys"))[0]);
    let (key, plan, keys) = (format!("keys/{key}"), (3, "pponnx::plan::format"), (4, "pponnx::keys::file"));
    let cases: [(&str, &str, Damage, (i32, &str)); 6] = [
        ("edge-a", "edge.plan", cut, plan),
        ("edge-a", "edge.plan", flip, plan),
        ("edge-b", "edge.plan", other_version, plan),
        ("edge-b", &key, cut, keys),
        ("edge-b", &key, flip, keys),
        ("edge-a", "identity", cut, (4, "pponnx::identity")),
    ];
    for (edge, file, damage, (code, dotted)) in cases {
        let _ = fs::remove_dir_all(desk.path("e"));
        desk.copy(&format!("one/{edge}"), "e");
        edit(&desk.path("e").join(file), damage);
        desk.run("serve -c e/edge.toml --listen 127.0.0.1:0 --ready-file r").refused(code, dotted, &[file]);
    }
    let _ = fs::remove_dir_all(desk.path("e"));
    desk.copy("one/edge-b", "e");
    fs::copy(desk.path(&foreign), desk.path("e").join(&key)).unwrap();
    desk.run("serve -c e/edge.toml --listen 127.0.0.1:0").refused(4, "pponnx::keys::file", &["key file of device"]);
    fs::copy(desk.path("two/edge-a/edge.plan"), desk.path("e/edge.plan")).unwrap();
    desk.run("serve -c e/edge.toml --listen 127.0.0.1:0").refused(4, "pponnx::plan::role", &["edge-a", "edge-b"]);
    assert_eq!(desk.names(), ["e", "one", "two"], "no ready file");
}

#[test]
fn a_device_that_finds_no_edge() {
    let desk = two_bundles();
    desk.run("run -c one/device/device.toml --input MODELS/x.npy --output y.npz").refused(
        5,
        "pponnx::net::unreachable",
        &["edge-", "127.0.0.1:", "pponnx serve"],
    );
    // A port that takes calls and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    edit_text(&desk.path("one/device/device.toml"), "connect_timeout_s = 10.0", "connect_timeout_s = 0.2");
    let at = silent.local_addr().unwrap();
    desk.run(&format!("run -c one/device/device.toml --input MODELS/x.npy --edge-a {at} --edge-b {at}")).refused(
        5,
        "pponnx::net::timeout",
        &["edge-", "0.2 s"],
    );
    assert_eq!(desk.names(), ["one", "two"], "no output");
}

#[test]
fn an_input_that_does_not_fit_is_refused_before_anything_is_sent() {
    // Nobody listens, so whatever was sent first would end in a network error.
    let desk = two_bundles();
    for (input, code, dotted, word) in [
        ("wide.npy", 3, "pponnx::input::shape", "[1,5]"),
        ("nan.npy", 3, "pponnx::input::not-finite", "NaN"),
        ("infinity.npy", 3, "pponnx::input::not-finite", "inf"),
        ("large-integers.npy", 3, "pponnx::input::type", "i32"),
        ("truncated.npy", 3, "pponnx::input::file", "truncated.npy"),
        ("none.npy", 4, "pponnx::file", "none.npy"),
    ] {
        let key = fs::read(desk.path("one/device/device.key")).unwrap();
        desk.run(&format!("run -c one/device/device.toml --input MODELS/{input} --output y.npz")).refused(
            code,
            dotted,
            &[word],
        );
        assert_eq!(fs::read(desk.path("one/device/device.key")).unwrap(), key, "{input} used up a key");
    }
    assert_eq!(desk.names(), ["one", "two"], "no output");
}

#[test]
fn strangers_are_refused_by_both_ends() {
    let desk = two_bundles();
    let edge_a = desk.serve("-c one/edge-a/edge.toml --listen 127.0.0.1:0");
    let edge_b = desk.serve(&format!("-c one/edge-b/edge.toml --listen 127.0.0.1:0 --edge-a {}", edge_a.address));
    let run = |device: &str| {
        let (a, b) = (&edge_a.address, &edge_b.address);
        desk.run(&format!("run -c {device}/device.toml --input MODELS/x.npy --edge-a {a} --edge-b {b}"))
    };
    run("one/device").fine();

    // Another pin in the configuration: the device does not talk to that edge.
    desk.copy("one/device", "d");
    let text = fs::read_to_string(desk.path("one/device/device.toml")).unwrap();
    let place = text.find("pponnx-pin:").unwrap() + "pponnx-pin:".len();
    let digit = if &text[place..=place] == "0" { "1" } else { "0" };
    fs::write(desk.path("d/device.toml"), format!("{}{digit}{}", &text[..place], &text[place + 1..])).unwrap();
    run("d").refused(4, "pponnx::net::pin", &["edge-a", "the peer's identity is", "expected"]);

    // Another identity on the device: the edge does not talk to it.
    fs::write(desk.path("d/device.toml"), text).unwrap();
    fs::copy(desk.path("two/device/identity"), desk.path("d/identity")).unwrap();
    run("d").refused(4, "pponnx::net::pin", &["rejects this end's identity", "add this pin"]);

    // The folder of another compilation.
    run("two/device").refused(4, "pponnx::net::pin", &["the peer's identity is"]);
}

#[test]
fn an_edge_with_the_plan_of_another_model() {
    let desk = two_bundles();
    fs::copy(desk.path("two/edge-a/edge.plan"), desk.path("one/edge-a/edge.plan")).unwrap();
    let edge_a = desk.serve("-c one/edge-a/edge.toml --listen 127.0.0.1:0");
    let edge_b = desk.serve(&format!("-c one/edge-b/edge.toml --listen 127.0.0.1:0 --edge-a {}", edge_a.address));
    let (a, b) = (&edge_a.address, &edge_b.address);
    desk.run(&format!("run -c one/device/device.toml --input MODELS/x.npy --edge-a {a} --edge-b {b}")).refused(
        5,
        "pponnx::net::refused",
        &["edge-b", "edge A turned the session down"],
    );
}

#[test]
fn spent_key_pairs() {
    for scheme in ["one-time", "stockpile"] {
        let desk = Desk::new();
        desk.run(&format!("compile MODELS/small.onnx -o out --scheme {scheme} --requests 1")).fine();
        let run = |edge: &Edge| {
            let address = &edge.address;
            desk.run(&format!("run -c out/device/device.toml --input MODELS/x.npy --edge-a {address} --output y.npz"))
        };
        let edge = desk.serve("-c out/edge-a/edge.toml --listen 127.0.0.1:0");
        run(&edge).fine();
        fs::remove_file(desk.path("y.npz")).unwrap();
        run(&edge).refused(7, "pponnx::run::spent", &["keygen DIR --requests N"]);
        assert_eq!(desk.names(), ["out"], "no output");
        drop(edge);
        let said = desk.run("keygen out --requests 2").fine();
        assert!(said.out.contains("key pairs 1 to 2 dealt"), "{}", said.out);
        let edge = desk.serve("-c out/edge-a/edge.toml --listen 127.0.0.1:0");
        run(&edge).fine();
        let text = desk.path("out/device/ledger");
        edit(&text, cut);
        run(&edge).refused(4, "pponnx::keys::file", &["ledger", "backup"]);
    }
}

#[test]
fn new_keys_keep_plans_and_edits() {
    let desk = Desk::new();
    desk.run("compile MODELS/small.onnx -o out").fine();
    edit_text(&desk.path("out/device/device.toml"), "reply_timeout_s = 60.0", "reply_timeout_s = 7.5");
    let read = |name: &str| fs::read(desk.path(name)).unwrap();
    let before = ["device.plan", "device.key", "identity"].map(|f| read(&format!("out/device/{f}")));
    let said = desk.run("keygen out").fine();
    assert_eq!(said.out, "new keys for 1 device\n");
    assert!(said.err.contains("copy every folder again"), "{}", said.err);
    let after = ["device.plan", "device.key", "identity"].map(|f| read(&format!("out/device/{f}")));
    assert_eq!(before[0], after[0]);
    assert!(before[1] != after[1] && before[2] != after[2]);
    let kept = String::from_utf8(read("out/device/device.toml")).unwrap();
    assert!(kept.contains("reply_timeout_s = 7.5"), "{kept}");
    desk.run("keygen out --requests 5").refused(2, "pponnx::usage::requests", &["relay"]);
}

#[test]
fn plans_are_shown() {
    let desk = Desk::new();
    desk.run("compile MODELS/small.onnx -o out").fine();
    let said = desk.run("inspect out/edge-a/edge.plan").fine();
    for line in ["plan of edge-a for small\n", "input `x`: f32[1,4]", "  offline: 1 step\n", "1 segment, ", "1 round; "]
    {
        assert!(said.out.contains(line), "no {line:?}: {}", said.out);
    }
    let text = desk.run("inspect out/device/device.plan --text").fine().out;
    for word in ["mask", "unpad", "check", "send edge-a"] {
        assert!(text.contains(word), "no {word}: {text}");
    }
    edit(&desk.path("out/edge-a/edge.plan"), cut);
    desk.run("inspect out/edge-a/edge.plan").refused(3, "pponnx::plan::format", &["edge.plan", "ends early"]);
}

#[test]
fn nothing_is_left_of_a_compilation_that_fails() {
    let desk = Desk::new();
    for model in ["empty", "text", "truncated", "huge-length", "refused", "open"] {
        let said = desk.run(&format!("compile MODELS/{model}.onnx -o out"));
        assert_eq!(said.code, 3, "{}", said.err);
        assert!(desk.names().is_empty(), "{model}: {:?}", desk.names());
    }
    fs::write(desk.path("file"), "").unwrap();
    desk.run("compile MODELS/small.onnx -o file/out").refused(4, "pponnx::file", &["file"]);
    assert!(fs::read(desk.path("file")).unwrap().is_empty());
}

/// A file system that takes no more: a limit on the size of files, with its signal ignored, fails writes the same way.
#[cfg(unix)]
#[test]
fn nothing_is_lost_when_writing_fails() {
    let desk = Desk::new();
    let limited = |args: &str| {
        let script = "trap '' XFSZ; ulimit -f 4; exec \"$0\" \"$@\"";
        let mut shell = Command::new("sh");
        let args = args.split_whitespace().map(|a| a.replace("DIGITS", DIGITS));
        Said::new(shell.arg("-c").arg(script).arg(PPONNX).args(args).current_dir(desk.dir.path()).output().unwrap())
    };
    limited("compile DIGITS/model.onnx -o out").refused(4, "pponnx::file", &["free some space"]);
    assert!(desk.names().is_empty(), "{:?}", desk.names());

    desk.run("compile DIGITS/model.onnx -o out").fine();
    let key = fs::read(desk.path("out/device/device.key")).unwrap();
    for command in ["compile DIGITS/model.onnx -o out --force", "keygen out"] {
        limited(command).refused(4, "pponnx::file", &["free some space"]);
        assert_eq!(desk.names(), ["out"], "{command}");
        assert_eq!(fs::read(desk.path("out/device/device.key")).unwrap(), key, "{command}");
    }
}

#[cfg(unix)]
#[test]
fn an_edge_ends_cleanly_when_told_to() {
    let desk = two_bundles();
    let mut edge = desk.serve("-c one/edge-a/edge.toml --listen 127.0.0.1:0 --ready-file ready --json");
    assert!(edge.address.contains("127.0.0.1"));
    assert!(desk.path("ready").is_file());
    let told = Command::new("kill").arg("-TERM").arg(edge.process.id().to_string()).status().unwrap();
    assert!(told.success());
    assert!(edge.process.wait().unwrap().success());
}
