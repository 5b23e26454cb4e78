//! Configuration files: `device.toml` and `edge.toml`.
//!
//! Unknown keys are errors, relative paths start at the file's own folder, and secrets stand only in files that the
//! configuration names. Every complaint points at file and line.

pub mod device;
pub mod edge;

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::args::{Colour, Layout};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, file_failure};

/// A configuration file as read: its path and text, for messages, and the folder that relative paths start at.
pub struct Source {
    /// The file.
    pub path: PathBuf,
    text: String,
    folder: PathBuf,
}

impl Source {
    /// Reads and parses a configuration file.
    pub fn read<T: DeserializeOwned>(path: &Path) -> Outcome<(Source, T)> {
        let bytes = std::fs::read(path).map_err(|e| Box::new(file_failure("read", path, &e)))?;
        let text = String::from_utf8(bytes).map_err(|_| {
            Failure::new(
                Exit::Configuration,
                "pponnx::config::syntax",
                format!("`{}` is not text in UTF-8", path.display()),
            )
            .help("give the .toml file that `pponnx compile` wrote")
        })?;
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
        let source = Source { path: path.to_owned(), text, folder };
        let value = source.parse()?;
        Ok((source, value))
    }

    fn parse<T: DeserializeOwned>(&self) -> Outcome<T> {
        toml::from_str(&self.text).map_err(|e| {
            let message = e.message().trim().to_owned();
            let unknown = message.starts_with("unknown field") || message.starts_with("unknown variant");
            let (code, help) = if unknown {
                (
                    "pponnx::config::unknown-key",
                    "check the spelling; unknown keys are refused so that a typo cannot pass",
                )
            } else if message.starts_with("missing field") {
                ("pponnx::config::missing-key", "add the key; `pponnx compile` writes complete files to compare with")
            } else {
                ("pponnx::config::syntax", "`pponnx compile` writes complete files to compare with")
            };
            let span = e.span().unwrap_or(0..0);
            let failure = Failure::new(
                Exit::Configuration,
                code,
                format!("{}, line {}: {message}", self.path.display(), self.line(&span)),
            );
            Box::new(failure.help(help).at(&self.path, &self.text, span, "here"))
        })
    }

    /// A complaint about a value.
    pub fn complain<T>(
        &self,
        value: &Spanned<T>,
        code: &'static str,
        message: impl fmt::Display,
        help: impl Into<String>,
    ) -> Box<Failure> {
        let span = value.span();
        let message = format!("{}, line {}: {message}", self.path.display(), self.line(&span));
        Box::new(Failure::new(Exit::Configuration, code, message).help(help).at(&self.path, &self.text, span, "here"))
    }

    /// A complaint about the file as a whole.
    pub fn complain_whole(
        &self,
        code: &'static str,
        message: impl fmt::Display,
        help: impl Into<String>,
    ) -> Box<Failure> {
        let message = format!("{}: {message}", self.path.display());
        Box::new(Failure::new(Exit::Configuration, code, message).help(help))
    }

    /// A path of the file, relative ones from its folder.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.folder.join(path)
    }

    fn line(&self, span: &Range<usize>) -> usize {
        1 + self.text.as_bytes().iter().take(span.start).filter(|b| **b == b'\n').count()
    }
}

/// Fingerprint of a public key, in files as [`pponnx_net::Pin`] writes it: `pponnx-pin:` and 64 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pin(pub [u8; 32]);

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&pponnx_net::Pin(self.0), f)
    }
}

impl Serialize for Pin {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Pin {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Pin, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse::<pponnx_net::Pin>().map(|pin| Pin(pin.0)).map_err(serde::de::Error::custom)
    }
}

/// Lower-case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Bytes from hex digits; `None` if they are not.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect();
    Some(digits?.as_chunks::<2>().0.iter().map(|[a, b]| a << 4 | b).collect())
}

/// A file path of the configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Path, relative to the configuration's folder.
    pub file: PathBuf,
}

/// Which edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EdgeRole {
    /// Sees masked activations.
    EdgeA,
    /// Computes corrections.
    EdgeB,
}

impl EdgeRole {
    /// The name used in files and messages.
    pub fn name(self) -> &'static str {
        match self {
            EdgeRole::EdgeA => "edge-a",
            EdgeRole::EdgeB => "edge-b",
        }
    }
}

/// An edge that this role talks to.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EdgeEntry {
    /// Which edge it is.
    #[serde(serialize_with = "plainly")]
    pub role: Spanned<EdgeRole>,
    /// `HOST:PORT`; not needed where the other side dials.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "plainly_maybe")]
    pub address: Option<Spanned<String>>,
    /// Fingerprint of its public key.
    #[serde(serialize_with = "plainly")]
    pub pin: Spanned<Pin>,
}

fn plainly<T: Serialize, S: serde::Serializer>(value: &Spanned<T>, serializer: S) -> Result<S::Ok, S::Error> {
    value.get_ref().serialize(serializer)
}

fn plainly_maybe<T: Serialize, S: serde::Serializer>(
    value: &Option<Spanned<T>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    value.as_ref().map(Spanned::get_ref).serialize(serializer)
}

/// A value without place in a file, for configurations that are written.
pub fn placed<T>(value: T) -> Spanned<T> {
    Spanned::new(0..0, value)
}

/// Checks addresses, and that no role is listed twice and no two edges have one key.
pub fn check_edges(source: &Source, edges: &[EdgeEntry]) -> Outcome<()> {
    for (i, edge) in edges.iter().enumerate() {
        if let Some(address) = &edge.address {
            crate::args::parse_address(address.get_ref()).map_err(|e| {
                let message = format!("address `{}` of {}: {e}", address.get_ref(), edge.role.get_ref().name());
                source.complain(address, "pponnx::config::address", message, "for example \"10.0.0.5:7101\"")
            })?;
        }
        for earlier in edges.iter().take(i) {
            if earlier.role.get_ref() == edge.role.get_ref() {
                let message = format!("{} is listed twice", edge.role.get_ref().name());
                return Err(source.complain(
                    &edge.role,
                    "pponnx::config::edge-twice",
                    message,
                    "keep one [[edge]] of each role",
                ));
            }
            if earlier.pin.get_ref() == edge.pin.get_ref() {
                return Err(source.complain(
                    &edge.pin,
                    "pponnx::config::one-operator",
                    "edge-a and edge-b have the same pin, so they are the same machine",
                    "privacy rests on two edges that do not collude: give each its own identity and operator",
                ));
            }
        }
    }
    Ok(())
}

/// Time-outs of connections.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Net {
    /// Longest wait for a connection with TLS to stand, in seconds.
    pub connect_timeout_s: f64,
    /// Longest wait for the next bytes of an answer, in seconds.
    pub reply_timeout_s: f64,
}

impl Default for Net {
    fn default() -> Net {
        Net { connect_timeout_s: 10.0, reply_timeout_s: 60.0 }
    }
}

impl Net {
    /// Checks that both are sensible and turns them into durations.
    pub fn durations(&self, source: &Source) -> Outcome<(std::time::Duration, std::time::Duration)> {
        let of = |key: &str, s: f64| match std::time::Duration::try_from_secs_f64(s) {
            Ok(d) if s > 0.0 && s <= 86_400.0 => Ok(d),
            _ => Err(source.complain_whole(
                "pponnx::config::timeout",
                format!("[net] {key} is {s}"),
                "give seconds, more than 0 and at most 86400",
            )),
        };
        Ok((of("connect_timeout_s", self.connect_timeout_s)?, of("reply_timeout_s", self.reply_timeout_s)?))
    }
}

/// How pictures become inputs: `(pixel * scale - mean) / std`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImageEntry {
    /// Axis order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layout: Option<Layout>,
    /// Channel order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub colour: Option<Colour>,
    /// Factor on pixels 0..255.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<f64>,
    /// One number, or one per channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<Vec<f64>>,
    /// One number, or one per channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std: Option<Vec<f64>>,
}

impl ImageEntry {
    /// The settings given on the command line.
    pub fn from_args(args: &crate::args::ImageOptions) -> ImageEntry {
        ImageEntry {
            layout: args.image_layout,
            colour: args.image_colour,
            scale: args.image_scale,
            mean: args.image_mean.clone(),
            std: args.image_std.clone(),
        }
    }

    /// These settings where given, else the others.
    pub fn or(self, other: &ImageEntry) -> ImageEntry {
        ImageEntry {
            layout: self.layout.or(other.layout),
            colour: self.colour.or(other.colour),
            scale: self.scale.or(other.scale),
            mean: self.mean.or_else(|| other.mean.clone()),
            std: self.std.or_else(|| other.std.clone()),
        }
    }

    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == ImageEntry::default()
    }
}

/// The text of a configuration file.
pub fn to_text<T: Serialize>(head: &str, value: &T) -> Outcome<String> {
    let body = toml::to_string(value).map_err(|e| Failure::internal(format!("cannot write a configuration: {e}")))?;
    Ok(format!("{head}\n{body}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn hex_round_trips_and_refuses_the_rest() {
        assert_eq!(unhex(&hex(&[0, 1, 0xfe])).unwrap(), [0, 1, 0xfe]);
        assert!(unhex("abc").is_none() && unhex("zz").is_none() && unhex("é").is_none());
    }

    #[test]
    fn command_line_wins_over_file() {
        let file = ImageEntry { scale: Some(1.0), mean: Some(vec![127.0]), ..ImageEntry::default() };
        let args = ImageEntry { scale: Some(0.5), ..ImageEntry::default() };
        let both = args.or(&file);
        assert_eq!((both.scale, both.mean), (Some(0.5), Some(vec![127.0])));
    }
}
