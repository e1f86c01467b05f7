//! The kinds of files.

use serde::Serialize;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// An image of a TDX module with a valid header.
    Image,
    /// The beginning of an image.
    CutImage,
    /// An image with a wrong header, or with extra bytes.
    DamagedImage,
    /// A SIGSTRUCT without its module.
    Sigstruct,
    /// The binary of a TDX module without its SIGSTRUCT.
    Module,
    /// An ELF file that is not the binary of a TDX module.
    Elf,
    /// An authenticated code module (ACM), such as NP-SEAMLDR, which contains P-SEAMLDR.
    Acm,
    /// A file that gzip compressed.
    Gzip,
    /// A file that xz compressed.
    Xz,
    /// A file that zstd compressed.
    Zstd,
    /// A file that bzip2 compressed.
    Bzip2,
    /// A file that lz4 compressed.
    Lz4,
    /// A zip archive.
    Zip,
    /// A 7-Zip archive.
    SevenZip,
    /// A tar archive.
    Tar,
    /// Intel's list of releases, `mapping_file.json`.
    MappingFile,
    /// JSON of another kind.
    Json,
    /// A web page, or another XML text.
    WebPage,
    /// A pointer that Git LFS leaves in place of a file.
    LfsPointer,
    /// Another text.
    Text,
    /// No bytes.
    Empty,
    /// Only zero bytes.
    Zeros,
    /// Anything else.
    Unknown,
}

impl Kind {
    /// Returns the kind in words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::CutImage => "the beginning of an image",
            Self::DamagedImage => "damaged image",
            Self::Sigstruct => "the SIGSTRUCT",
            Self::Module => "the module's binary",
            Self::Elf => "an ELF file that is not a TDX module",
            Self::Acm => "looks like an Intel ACM, as the SEAM loader is",
            Self::Gzip => "compressed by gzip",
            Self::Xz => "compressed by xz",
            Self::Zstd => "compressed by zstd",
            Self::Bzip2 => "compressed by bzip2",
            Self::Lz4 => "compressed by lz4",
            Self::Zip => "a zip archive",
            Self::SevenZip => "a 7-Zip archive",
            Self::Tar => "a tar archive",
            Self::MappingFile => "Intel's list of releases (mapping_file.json)",
            Self::Json => "a JSON file",
            Self::WebPage => "a web page or XML text",
            Self::LfsPointer => "a Git LFS pointer",
            Self::Text => "a text",
            Self::Empty => "an empty file",
            Self::Zeros => "only zero bytes",
            Self::Unknown => "no known kind of file",
        }
    }

    /// Returns how to get an image from a file of this kind. `None` if the kind does not show it.
    #[must_use]
    pub const fn advice(self) -> Option<&'static str> {
        Some(match self {
            Self::CutImage | Self::DamagedImage => "get the file again from its source",
            Self::Sigstruct => {
                "pack it with the module's binary: tdx-seamldr pack --module BIN --sigstruct FILE"
            }
            Self::Module => {
                "pack it with its .sigstruct file: tdx-seamldr pack --module FILE --sigstruct SIG"
            }
            Self::Gzip | Self::Xz | Self::Zstd | Self::Bzip2 | Self::Lz4 => "decompress it first",
            Self::Zip | Self::SevenZip | Self::Tar => "unpack it first and take the image from it",
            Self::Elf => "it may be P-SEAMLDR's binary or any other program",
            Self::Acm => {
                "the BIOS loads a SEAM loader at boot; Linux cannot update it, and it holds no TDX \
                 module"
            }
            Self::MappingFile => {
                "it belongs beside Intel's images and tells which module may update to which"
            }
            Self::WebPage | Self::Text | Self::Empty | Self::Zeros => {
                "a download or a copy may have failed: get the file again from its source"
            }
            Self::LfsPointer => "run \"git lfs pull\" where it was checked out",
            Self::Image | Self::Json | Self::Unknown => return None,
        })
    }
}
