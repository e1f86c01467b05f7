//! Images of modules, signed with the key that platforms trust by default.

use std::ffi::c_void;

use tdx_seamldr_core::abi::SeamSigstruct;
use tdx_seamldr_core::abi::TdxFeatures0;
use tdx_seamldr_core::image::{ImageFormat, ImageParts};
use tdx_seamldr_core::{Crypto, TdxVersion};
use tdx_seamldr_mock::model::{HandoffForm, ModuleBuild, ModuleGeneration};
use tdx_seamldr_mock::{sign, TestImage};
use tdx_seamldr_verify::RustCrypto;
use zerocopy::{FromBytes, IntoBytes};

use crate::number::{enumeration, flag, Enumeration, TdxSimBool};
use crate::pointer::Growing;
use crate::status::{guarded, Failure};
use crate::{pointer, TdxSimSigstruct, TdxSimStatus, TDX_SIM_MAX_CPUS, TDX_SIM_MAX_MODULE_PAGES};

/// The form of a file with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub enum TdxSimImageFormat {
    /// The form of Intel's releases (version 0x100).
    V1 = 1,
    /// The form that Linux 7.2 takes (version 0x200).
    V2 = 2,
}

enumeration!(TdxSimImageFormat, "tdx_sim_image_format", [V1, V2]);

/// A tdx_sim_image_format as C gives it: any number.
pub type TdxSimImageFormatNumber = u32;

impl TdxSimImageFormat {
    const fn format(self) -> ImageFormat {
        match self {
            Self::V1 => ImageFormat::BlobV1,
            Self::V2 => ImageFormat::ImageV2,
        }
    }
}

/// How a module writes its handoff data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub enum TdxSimHandoffForm {
    /// As 1.5.01 does, whatever the version.
    Plain = 0,
    /// As the 2.0 modules do: with data of TDX Connect in version 0.
    Connect = 1,
    /// Version 1 has what is counted for UPDATE_COMPATIBILITY.
    Counting = 2,
    /// As the newest modules do: the size is that of whole pages.
    Rounded = 3,
}

enumeration!(TdxSimHandoffForm, "tdx_sim_handoff_form", [Plain, Connect, Counting, Rounded]);

/// A tdx_sim_handoff_form as C gives it: any number.
pub type TdxSimHandoffFormNumber = u32;

impl TdxSimHandoffForm {
    const fn form(self) -> HandoffForm {
        match self {
            Self::Plain => HandoffForm::Plain,
            Self::Connect => HandoffForm::Connect,
            Self::Counting => HandoffForm::Counting,
            Self::Rounded => HandoffForm::Rounded,
        }
    }
}

impl From<HandoffForm> for TdxSimHandoffForm {
    fn from(form: HandoffForm) -> Self {
        match form {
            HandoffForm::Plain => Self::Plain,
            HandoffForm::Connect => Self::Connect,
            HandoffForm::Counting => Self::Counting,
            HandoffForm::Rounded => Self::Rounded,
        }
    }
}

/// From which public release on a module behaves as it does, where they differ. 2.0 modules behave
/// as the 1.5 module of the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub enum TdxSimModuleGeneration {
    /// 1.5.01, whose behaviour was recorded.
    V1501 = 0,
    /// 1.5.05 and 2.0.02: TDH.SYS.RD knows the field that Linux 7.2 needs, too.
    V1505 = 1,
    /// 1.5.28 and 2.0.16: TDH.SYS.UPDATE does not look at the size of the handoff data.
    V1528 = 2,
    /// 1.5.34 and 2.0.18: TDH.SYS.UPDATE looks at its operands first, and TDH.SYS.INIT has a
    /// version 1.
    V1534 = 3,
}

enumeration!(TdxSimModuleGeneration, "tdx_sim_module_generation", [V1501, V1505, V1528, V1534]);

/// A tdx_sim_module_generation as C gives it: any number.
pub type TdxSimModuleGenerationNumber = u32;

impl TdxSimModuleGeneration {
    const fn generation(self) -> ModuleGeneration {
        match self {
            Self::V1501 => ModuleGeneration::V1_5_01,
            Self::V1505 => ModuleGeneration::V1_5_05,
            Self::V1528 => ModuleGeneration::V1_5_28,
            Self::V1534 => ModuleGeneration::V1_5_34,
        }
    }
}

impl From<ModuleGeneration> for TdxSimModuleGeneration {
    fn from(generation: ModuleGeneration) -> Self {
        match generation {
            ModuleGeneration::V1_5_01 => Self::V1501,
            ModuleGeneration::V1_5_05 => Self::V1505,
            ModuleGeneration::V1_5_28 => Self::V1528,
            ModuleGeneration::V1_5_34 => Self::V1534,
        }
    }
}

/// What is fixed when a module is built, apart from what its SIGSTRUCT says.
/// tdx_sim_build_defaults() or tdx_sim_release_build() fills it in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct TdxSimBuild {
    /// sizeof(tdx_sim_build), set by the caller.
    pub size: u32,
    /// Major version.
    pub version_major: u16,
    /// Minor version.
    pub version_minor: u16,
    /// Update version.
    pub version_update: u16,
    /// Internal version.
    pub version_internal: u16,
    /// YYYYMMDD, a decimal number.
    pub build_date: u32,
    /// Build number.
    pub build_num: u16,
    /// The handoff version that it was built for. TDH.SYS.INIT refuses another one in the
    /// SIGSTRUCT.
    pub module_hv: u16,
    /// The lowest handoff version that it was built for.
    pub min_update_hv: u16,
    /// It was built to write its own handoff version only.
    pub no_downgrade: TdxSimBool,
    /// The version of the contexts of hashes and MACs that are under way in TDs; 0: the module
    /// does not say. A module cannot go on with those of another version, nor of one that does
    /// not say.
    pub crypto_context: u8,
    /// How it writes its handoff data.
    pub handoff_form: TdxSimHandoffFormNumber,
    /// How its leaves behave.
    pub generation: TdxSimModuleGenerationNumber,
    /// TDX_FEATURES0.
    pub features0: u64,
}

// SAFETY: `repr(C)`, integers only, the first of them the size.
unsafe impl Growing for TdxSimBuild {
    const NAME: &'static str = "tdx_sim_build";
    const FIRST_SIZE: usize = size_of::<Self>();
}

impl TdxSimBuild {
    fn build(&self) -> Result<ModuleBuild, Failure> {
        Ok(ModuleBuild {
            version: TdxVersion {
                major: self.version_major,
                minor: self.version_minor,
                update: self.version_update,
            },
            internal_version: self.version_internal,
            build_date: self.build_date,
            build_num: self.build_num,
            features0: TdxFeatures0::from_bits_retain(self.features0),
            module_hv: self.module_hv,
            min_update_hv: self.min_update_hv,
            no_downgrade: flag(self.no_downgrade, "no_downgrade")?,
            handoff_form: TdxSimHandoffForm::of_number(self.handoff_form)?.form(),
            generation: TdxSimModuleGeneration::of_number(self.generation)?.generation(),
            crypto_context: (self.crypto_context != 0).then_some(self.crypto_context),
        })
    }
}

impl From<ModuleBuild> for TdxSimBuild {
    fn from(build: ModuleBuild) -> Self {
        Self {
            size: 0,
            version_major: build.version.major,
            version_minor: build.version.minor,
            version_update: build.version.update,
            version_internal: build.internal_version,
            build_date: build.build_date,
            build_num: build.build_num,
            module_hv: build.module_hv,
            min_update_hv: build.min_update_hv,
            no_downgrade: build.no_downgrade.into(),
            crypto_context: build.crypto_context.unwrap_or(0),
            handoff_form: TdxSimHandoffForm::from(build.handoff_form).number(),
            generation: TdxSimModuleGeneration::from(build.generation).number(),
            features0: build.features0.bits(),
        }
    }
}

/// A module's image that is to be made. tdx_sim_image_defaults() fills it in. For what has no field
/// here, take the SIGSTRUCT that tdx_sim_make_image() makes, change it, and sign it again with
/// tdx_sim_sign().
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct TdxSimImage {
    /// sizeof(tdx_sim_image), set by the caller.
    pub size: u32,
    /// 4 KiB pages of the module, 1 to TDX_SIM_MAX_MODULE_PAGES. With less than 3, the default of
    /// `gdt_idt_offset` and `fault_wrapper_offset` lies outside.
    pub pages: u32,
    /// YYYYMMDD, one hexadecimal digit each.
    pub date: u32,
    /// Major SVN.
    pub svn_major: u8,
    /// Minor SVN.
    pub svn_minor: u8,
    /// Writes the highest handoff version only.
    pub no_downgrade: TdxSimBool,
    /// A debug module.
    pub debug: TdxSimBool,
    /// Highest handoff version.
    pub module_hv: u16,
    /// Lowest handoff version.
    pub min_update_hv: u16,
    /// Pages for handoff data, minus one.
    pub num_handoff_pages: u16,
    /// Keyhole pages of each LP, minus one.
    pub num_keyhole_pages: u16,
    /// Global data pages, minus one.
    pub num_global_data_pages: u16,
    /// Stack pages of each LP, minus one.
    pub num_stack_pages: u8,
    /// Thread-local pages of each LP, minus one.
    pub num_tls_pages: u8,
    /// Offset of the GDT and the IDT in the module.
    pub gdt_idt_offset: u32,
    /// Offset of the fault wrappers in the module.
    pub fault_wrapper_offset: u32,
    /// The byte that the rest of the module is filled with.
    pub fill: u8,
    /// The hash that is signed is `seamhash`, not that of the module.
    pub seamhash_given: TdxSimBool,
    /// With `seamhash_given`: SHA-384.
    pub seamhash: [u8; 48],
    /// 0.
    pub reserved: [u8; 2],
    /// How many CPUs there are in the list, at most TDX_SIM_MAX_CPUS.
    pub num_cpus: u32,
    /// CPUs that the module runs on: CPUID.1:EAX without the stepping.
    pub cpus: [u32; TDX_SIM_MAX_CPUS],
    /// What the module is built as, or NULL: what follows from the SIGSTRUCT. Then its SVN decides
    /// about the version, as with released modules: 1.5 is version 1.5.05. Only read while the
    /// image is made.
    pub build: *const TdxSimBuild,
}

// SAFETY: `repr(C)`, integers and a pointer only, the first of them the size.
unsafe impl Growing for TdxSimImage {
    const NAME: &'static str = "tdx_sim_image";
    const FIRST_SIZE: usize = size_of::<Self>();
}

impl TdxSimImage {
    fn defaults() -> Self {
        let test_image = TestImage::default();
        let mut cpus = [0; TDX_SIM_MAX_CPUS];
        cpus.iter_mut().zip(&test_image.cpus).for_each(|(slot, cpu)| *slot = *cpu);
        Self {
            size: 0,
            pages: u32::try_from(test_image.pages).unwrap_or(0),
            date: test_image.date,
            svn_major: test_image.svn_major,
            svn_minor: test_image.svn_minor,
            no_downgrade: test_image.no_downgrade.into(),
            debug: test_image.debug.into(),
            module_hv: test_image.module_hv,
            min_update_hv: test_image.min_update_hv,
            num_handoff_pages: test_image.num_handoff_pages,
            num_keyhole_pages: test_image.num_keyhole_pages,
            num_global_data_pages: test_image.num_global_data_pages,
            num_stack_pages: test_image.num_stack_pages,
            num_tls_pages: test_image.num_tls_pages,
            gdt_idt_offset: test_image.gdt_idt_offset,
            fault_wrapper_offset: test_image.fault_wrapper_offset,
            fill: test_image.fill,
            seamhash_given: 0,
            seamhash: [0; 48],
            reserved: [0; 2],
            num_cpus: u32::try_from(test_image.cpus.len()).unwrap_or(0),
            cpus,
            build: std::ptr::null(),
        }
    }

    fn test_image(&self, build: Option<ModuleBuild>) -> Result<TestImage, Failure> {
        let pages = usize::try_from(self.pages).unwrap_or(usize::MAX);
        if !(1..=TDX_SIM_MAX_MODULE_PAGES).contains(&pages) {
            return Err(Failure::argument(format!("pages is {pages}, but should be 1 to 496")));
        }
        let num_cpus = usize::try_from(self.num_cpus).unwrap_or(usize::MAX);
        let cpus = self.cpus.get(..num_cpus).ok_or_else(|| {
            Failure::argument(format!(
                "num_cpus is {num_cpus}, but should be at most {TDX_SIM_MAX_CPUS}"
            ))
        })?;
        if self.reserved != [0; 2] {
            return Err(Failure::argument("reserved is not 0"));
        }
        Ok(TestImage {
            format: ImageFormat::BlobV1,
            pages,
            date: self.date,
            module_hv: self.module_hv,
            min_update_hv: self.min_update_hv,
            num_handoff_pages: self.num_handoff_pages,
            svn_major: self.svn_major,
            svn_minor: self.svn_minor,
            no_downgrade: flag(self.no_downgrade, "no_downgrade")?,
            debug: flag(self.debug, "debug")?,
            cpus: cpus.to_vec(),
            num_stack_pages: self.num_stack_pages,
            num_tls_pages: self.num_tls_pages,
            num_keyhole_pages: self.num_keyhole_pages,
            num_global_data_pages: self.num_global_data_pages,
            gdt_idt_offset: self.gdt_idt_offset,
            fault_wrapper_offset: self.fault_wrapper_offset,
            seamhash: flag(self.seamhash_given, "seamhash_given")?.then_some(self.seamhash),
            fill: self.fill,
            module_build: build,
        })
    }
}

/// What an image is to be made of.
///
/// # Safety
///
/// `image` leads to a tdx_sim_image with its size set that may be read, and so does its `build`, or
/// nowhere.
unsafe fn test_image(image: *const TdxSimImage) -> Result<TestImage, Failure> {
    // SAFETY: this function's contract.
    let image = unsafe { pointer::read_sized(image) }?;
    let build = if image.build.is_null() {
        None
    } else {
        // SAFETY: this function's contract.
        Some(unsafe { pointer::read_sized(image.build) }?.build()?)
    };
    image.test_image(build)
}

/// Fills in an image of 8 pages, much like the released module 1.5.05 (SVN 1.5).
///
/// Errors: NULL; UNALIGNED; BAD_SIZE.
///
/// # Safety
///
/// `image` leads to a tdx_sim_image with its `size` set that may be written.
#[no_mangle]
pub unsafe extern "C" fn tdx_sim_image_defaults(image: *mut TdxSimImage) -> TdxSimStatus {
    guarded(|| {
        // SAFETY: this function's contract.
        unsafe { pointer::write_sized(image, &TdxSimImage::defaults()) }
    })
}

/// Fills in what a module with this image is built as if `image->build` is NULL.
///
/// Errors: NULL; UNALIGNED; BAD_SIZE; BAD_ARGUMENT: a field of `image` has a value that it cannot
/// have.
///
/// # Safety
///
/// `image` leads to a tdx_sim_image that may be read, and `build` to a tdx_sim_build that may be
/// written, both with their `size` set.
#[no_mangle]
pub unsafe extern "C" fn tdx_sim_build_defaults(
    image: *const TdxSimImage,
    build: *mut TdxSimBuild,
) -> TdxSimStatus {
    guarded(|| {
        // SAFETY: this function's contract.
        let image = unsafe { pointer::read_sized(image) }?.test_image(None)?;
        let module = image.module();
        let found = ModuleBuild::of_image(&image.sigstruct(&module), &module);
        // SAFETY: this function's contract.
        unsafe { pointer::write_sized(build, &found.into()) }
    })
}

/// Fills in what a public release is built as, e.g. 1, 5 and 16 for 1.5.16. What no public source
/// tells is 0: handoff versions and the date of some. An image with this build needs the same
/// `module_hv`, and `no_downgrade` if the build has it: otherwise TDH.SYS.INIT refuses it.
///
/// Errors: NULL; UNALIGNED; BAD_SIZE; BAD_ARGUMENT: there is no such release.
///
/// # Safety
///
/// `build` leads to a tdx_sim_build with its `size` set that may be written.
#[no_mangle]
pub unsafe extern "C" fn tdx_sim_release_build(
    major: u16,
    minor: u16,
    update: u16,
    build: *mut TdxSimBuild,
) -> TdxSimStatus {
    guarded(|| {
        let version = TdxVersion { major, minor, update };
        let found = ModuleBuild::of_release(version)
            .ok_or_else(|| Failure::argument(format!("there is no public release {version}")))?;
        // SAFETY: this function's contract.
        unsafe { pointer::write_sized(build, &found.into()) }
    })
}

/// Makes a module's image, in the parts that SEAMLDR.INSTALL reads: the SIGSTRUCT, signed with the
/// test key, and `image->pages` pages of the module.
///
/// Errors: NULL; UNALIGNED; BAD_SIZE; BAD_ARGUMENT: a field of `image` has a value that it cannot
/// have; BUFFER_TOO_SMALL: `module_size` is less than 4096 for each page.
///
/// # Safety
///
/// `image` leads to a tdx_sim_image with its `size` set that may be read, its `build` to a
/// tdx_sim_build or nowhere, `sigstruct` to a tdx_sim_sigstruct and `module` to `module_size` bytes
/// that may be written.
#[no_mangle]
pub unsafe extern "C" fn tdx_sim_make_image(
    image: *const TdxSimImage,
    sigstruct: *mut TdxSimSigstruct,
    module: *mut c_void,
    module_size: usize,
) -> TdxSimStatus {
    guarded(|| {
        // SAFETY: this function's contract.
        let image = unsafe { test_image(image) }?;
        pointer::checked(sigstruct)?;
        if module.is_null() {
            return Err(TdxSimStatus::Null.into());
        }
        let bytes = image.module();
        if module_size < bytes.len() {
            let text =
                format!("module_size is {module_size}, but the module has {} bytes", bytes.len());
            return Err(Failure::new(TdxSimStatus::BufferTooSmall, text));
        }
        // SAFETY: this function's contract; a SIGSTRUCT has as many bytes in C.
        unsafe { pointer::copy_out(image.sigstruct(&bytes).as_bytes(), sigstruct.cast()) };
        // SAFETY: this function's contract; there is room for the module.
        unsafe { pointer::copy_out(&bytes, module.cast()) };
        Ok(())
    })
}

/// Signs a SIGSTRUCT with the test key, after any change: writes the modulus and the signature. If
/// `module` is not NULL, `seamhash` becomes the SHA-384 of its `module_size` bytes first. Nothing
/// else is changed and nothing is checked.
///
/// Errors: NULL: `sigstruct`; UNALIGNED; BAD_LENGTH.
///
/// # Safety
///
/// `sigstruct` leads to a tdx_sim_sigstruct that may be read and written, `module` to `module_size`
/// bytes that may be read, or nowhere.
#[no_mangle]
pub unsafe extern "C" fn tdx_sim_sign(
    sigstruct: *mut TdxSimSigstruct,
    module: *const c_void,
    module_size: usize,
) -> TdxSimStatus {
    guarded(|| {
        pointer::checked(sigstruct)?;
        // SAFETY: this function's contract; a SIGSTRUCT has as many bytes in C.
        let bytes = unsafe { pointer::read(sigstruct.cast::<[u8; SeamSigstruct::SIZE]>()) }?;
        let mut signed =
            SeamSigstruct::read_from_bytes(&bytes).map_err(|_| TdxSimStatus::BadLength)?;
        if !module.is_null() {
            // SAFETY: this function's contract.
            let module = unsafe { pointer::copy_in(module.cast::<u8>(), module_size) }?;
            signed.seamhash = RustCrypto.sha384(&[&module]).map_err(|_| TdxSimStatus::BadLength)?;
        }
        sign(&mut signed);
        // SAFETY: this function's contract.
        unsafe { pointer::copy_out(signed.as_bytes(), sigstruct.cast()) };
        Ok(())
    })
}

/// Makes a file of a SIGSTRUCT and a module, which need not fit together. `*needed` is how many
/// bytes the file has, also if `file_size` is less, so that `file` may be NULL if `file_size` is 0.
///
/// Errors: NULL; UNALIGNED; BAD_ARGUMENT: `format` is no tdx_sim_image_format; BAD_LENGTH:
/// `module_size` is not 1 to TDX_SIM_MAX_MODULE_PAGES times 4096; BUFFER_TOO_SMALL: `*needed` is
/// set then.
///
/// # Safety
///
/// `sigstruct` leads to a tdx_sim_sigstruct, and `module` to `module_size` bytes, that may be read;
/// `file` to `file_size` bytes, and `needed` to a number, that may be written.
#[no_mangle]
pub unsafe extern "C" fn tdx_sim_pack(
    format: TdxSimImageFormatNumber,
    sigstruct: *const TdxSimSigstruct,
    module: *const c_void,
    module_size: usize,
    file: *mut c_void,
    file_size: usize,
    needed: *mut usize,
) -> TdxSimStatus {
    guarded(|| {
        let format = TdxSimImageFormat::of_number(format)?.format();
        pointer::checked(sigstruct)?;
        if module.is_null() {
            return Err(TdxSimStatus::Null.into());
        }
        // SAFETY: this function's contract; a SIGSTRUCT has as many bytes in C.
        let sigstruct = unsafe { pointer::read(sigstruct.cast::<[u8; SeamSigstruct::SIZE]>()) }?;
        // SAFETY: this function's contract.
        let module = unsafe { pointer::copy_in(module.cast::<u8>(), module_size) }?;
        let parts = ImageParts { sigstruct: &sigstruct, module: &module };
        // SAFETY: this function's contract.
        unsafe { write_file(&parts, format, file, file_size, needed) }
    })
}

/// Makes a file with an image, as tdx_sim_make_image() makes it. `*needed` is how many bytes the
/// file has, also if `file_size` is less, so that `file` may be NULL if `file_size` is 0.
///
/// Errors: NULL; UNALIGNED; BAD_SIZE; BAD_ARGUMENT: `format` is no tdx_sim_image_format, or a field
/// of `image` has a value that it cannot have; BUFFER_TOO_SMALL: `*needed` is set then.
///
/// # Safety
///
/// `image` leads to a tdx_sim_image with its `size` set that may be read, its `build` to a
/// tdx_sim_build or nowhere; `file` to `file_size` bytes, and `needed` to a number, that may be
/// written.
#[no_mangle]
pub unsafe extern "C" fn tdx_sim_image_file(
    image: *const TdxSimImage,
    format: TdxSimImageFormatNumber,
    file: *mut c_void,
    file_size: usize,
    needed: *mut usize,
) -> TdxSimStatus {
    guarded(|| {
        let format = TdxSimImageFormat::of_number(format)?.format();
        // SAFETY: this function's contract.
        let image = unsafe { test_image(image) }?;
        let module = image.module();
        let sigstruct = image.sigstruct(&module);
        let parts = ImageParts { sigstruct: sigstruct.as_bytes(), module: &module };
        // SAFETY: this function's contract.
        unsafe { write_file(&parts, format, file, file_size, needed) }
    })
}

/// Writes a file, if there is room.
///
/// # Safety
///
/// `file` leads to `file_size` bytes, and `needed` to a number, that may be written.
unsafe fn write_file(
    parts: &ImageParts<'_>,
    format: ImageFormat,
    file: *mut c_void,
    file_size: usize,
    needed: *mut usize,
) -> Result<(), Failure> {
    let bad = |error: tdx_seamldr_core::image::WriteError| {
        Failure::new(TdxSimStatus::BadLength, error.to_string())
    };
    let len = parts.file_len().map_err(bad)?;
    pointer::checked(needed)?;
    if file.is_null() && file_size != 0 {
        return Err(TdxSimStatus::Null.into());
    }
    // SAFETY: this function's contract.
    unsafe { pointer::write(needed, len) }?;
    if file_size < len {
        let text = format!("file_size is {file_size}, but the file has {len} bytes");
        return Err(Failure::new(TdxSimStatus::BufferTooSmall, text));
    }
    let mut bytes = vec![0; len];
    parts.write(format, &mut bytes).map_err(bad)?;
    // SAFETY: this function's contract; there is room.
    unsafe { pointer::copy_out(&bytes, file.cast()) };
    Ok(())
}
