//! Images of modules, signed with the key that platforms trust by default.

use std::ffi::c_void;

use tdx_seamldr_core::abi::{SeamSigstruct, TdxFeatures0};
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

/// Format of an image file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub enum TdxSimImageFormat {
    /// The format of Intel's releases (version 0x100).
    V1 = 1,
    /// The format of Linux 7.2 (version 0x200).
    V2 = 2,
}

enumeration!(TdxSimImageFormat, "tdx_sim_image_format", [V1, V2]);

/// A tdx_sim_image_format from C: any number.
pub type TdxSimImageFormatNumber = u32;

impl TdxSimImageFormat {
    const fn format(self) -> ImageFormat {
        match self {
            Self::V1 => ImageFormat::BlobV1,
            Self::V2 => ImageFormat::ImageV2,
        }
    }
}

/// The form in which a module writes its handoff data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub enum TdxSimHandoffForm {
    /// As 1.5.01, in every version.
    Plain = 0,
    /// As the 2.0 modules: version 0 has data of TDX Connect.
    Connect = 1,
    /// Version 1 has the counts for UPDATE_COMPATIBILITY.
    Counting = 2,
    /// As the newest modules: the size is rounded up to pages.
    Rounded = 3,
}

enumeration!(TdxSimHandoffForm, "tdx_sim_handoff_form", [Plain, Connect, Counting, Rounded]);

/// A tdx_sim_handoff_form from C: any number.
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

/// The oldest public release with a given behaviour. A 2.0 module behaves as the 1.5 module of the
/// same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub enum TdxSimModuleGeneration {
    /// 1.5.01, which was recorded.
    V1501 = 0,
    /// 1.5.05 and 2.0.02: TDH.SYS.RD also has the field that Linux 7.2 reads.
    V1505 = 1,
    /// 1.5.28 and 2.0.16: TDH.SYS.UPDATE does not check the size of the handoff data.
    V1528 = 2,
    /// 1.5.34 and 2.0.18: TDH.SYS.UPDATE checks its operands first, and TDH.SYS.INIT has a version
    /// 1.
    V1534 = 3,
}

enumeration!(TdxSimModuleGeneration, "tdx_sim_module_generation", [V1501, V1505, V1528, V1534]);

/// A tdx_sim_module_generation from C: any number.
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

/// Build-time properties of a module that its SIGSTRUCT does not contain. tdx_sim_build_defaults()
/// or tdx_sim_release_build() fills it in.
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
    /// Build date, YYYYMMDD, a decimal number.
    pub build_date: u32,
    /// Build number.
    pub build_num: u16,
    /// Highest handoff version. TDH.SYS.INIT fails if the SIGSTRUCT has another one.
    pub module_hv: u16,
    /// Lowest handoff version.
    pub min_update_hv: u16,
    /// Whether the module writes its highest handoff version only.
    pub no_downgrade: TdxSimBool,
    /// Version of the contexts of hashes and MACs in progress; 0: not reported. A module cannot
    /// continue contexts of another version, or of a module that reports none.
    pub crypto_context: u8,
    /// Form of the handoff data.
    pub handoff_form: TdxSimHandoffFormNumber,
    /// Behaviour of the leaves.
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

/// A description of an image. tdx_sim_image_defaults() fills it in. For properties without a field
/// here, change the SIGSTRUCT from tdx_sim_make_image() and sign it again with tdx_sim_sign().
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct TdxSimImage {
    /// sizeof(tdx_sim_image), set by the caller.
    pub size: u32,
    /// Number of 4 KiB pages of the module, 1 to TDX_SIM_MAX_MODULE_PAGES. With fewer than 3, the
    /// default `gdt_idt_offset` and `fault_wrapper_offset` lie outside the module.
    pub pages: u32,
    /// Build date, YYYYMMDD, one hexadecimal digit each.
    pub date: u32,
    /// Major SVN.
    pub svn_major: u8,
    /// Minor SVN.
    pub svn_minor: u8,
    /// Whether the module writes its highest handoff version only.
    pub no_downgrade: TdxSimBool,
    /// Whether this is a debug module.
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
    /// Fill byte of the unused part of the module.
    pub fill: u8,
    /// Whether the SIGSTRUCT contains `seamhash` instead of the hash of the module.
    pub seamhash_given: TdxSimBool,
    /// SHA-384, used if `seamhash_given` is true.
    pub seamhash: [u8; 48],
    /// 0.
    pub reserved: [u8; 2],
    /// Number of CPUs in the list, at most TDX_SIM_MAX_CPUS.
    pub num_cpus: u32,
    /// CPUs that the module runs on: CPUID.1:EAX without the stepping.
    pub cpus: [u32; TDX_SIM_MAX_CPUS],
    /// Build of the module. NULL: derived from the SIGSTRUCT. As with released modules, the SVN
    /// then determines the version: SVN 1.5 is version 1.5.05. Read only while the image is made.
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
            return Err(Failure::argument("reserved is not 0; set it to 0"));
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

/// Returns the image description.
///
/// # Safety
///
/// `image` points to a readable tdx_sim_image whose `size` is set. Its `build` points to a readable
/// tdx_sim_build whose `size` is set, or is NULL.
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

/// Fills in an image of 8 pages, similar to the released module 1.5.05 (SVN 1.5).
///
/// Errors: NULL; UNALIGNED; BAD_SIZE.
///
/// # Safety
///
/// `image` points to a writable tdx_sim_image whose `size` is set.
#[no_mangle]
pub unsafe extern "C" fn tdx_sim_image_defaults(image: *mut TdxSimImage) -> TdxSimStatus {
    guarded(|| {
        // SAFETY: this function's contract.
        unsafe { pointer::write_sized(image, &TdxSimImage::defaults()) }
    })
}

/// Fills in the build that a module of this image has if `image->build` is NULL.
///
/// Errors: NULL; UNALIGNED; BAD_SIZE; BAD_ARGUMENT: a field of `image` has an invalid value.
///
/// # Safety
///
/// `image` points to a readable tdx_sim_image, and `build` to a writable tdx_sim_build, both with
/// `size` set.
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

/// Fills in the build of a public release, e.g. 1, 5 and 16 for 1.5.16. Values that no public
/// source gives are 0: handoff versions and the date of some releases. An image with this build
/// needs the same `module_hv`, and `no_downgrade` if the build has it; otherwise TDH.SYS.INIT
/// fails.
///
/// Errors: NULL; UNALIGNED; BAD_SIZE; BAD_ARGUMENT: there is no such release.
///
/// # Safety
///
/// `build` points to a writable tdx_sim_build whose `size` is set.
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

/// Makes an image in the parts that SEAMLDR.INSTALL reads: a SIGSTRUCT, signed with the test key,
/// and `image->pages` pages of the module.
///
/// Errors: NULL; UNALIGNED; BAD_SIZE; BAD_ARGUMENT: a field of `image` has an invalid value;
/// BUFFER_TOO_SMALL: `module_size` is less than 4096 for each page.
///
/// # Safety
///
/// `image` points to a readable tdx_sim_image whose `size` is set. Its `build` points to a readable
/// tdx_sim_build whose `size` is set, or is NULL. `sigstruct` points to a writable
/// tdx_sim_sigstruct, and `module` to `module_size` writable bytes.
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
        // SAFETY: this function's contract; a SIGSTRUCT has the same size in C.
        unsafe { pointer::copy_out(image.sigstruct(&bytes).as_bytes(), sigstruct.cast()) };
        // SAFETY: this function's contract; the buffer has room for the module.
        unsafe { pointer::copy_out(&bytes, module.cast()) };
        Ok(())
    })
}

/// Signs a SIGSTRUCT with the test key, after any change: writes the modulus and the signature. If
/// `module` is not NULL, first sets `seamhash` to the SHA-384 of its `module_size` bytes. Makes no
/// other change and no check.
///
/// Errors: NULL: `sigstruct`; UNALIGNED; BAD_LENGTH.
///
/// # Safety
///
/// `sigstruct` points to a readable and writable tdx_sim_sigstruct. `module` points to
/// `module_size` readable bytes, or is NULL.
#[no_mangle]
pub unsafe extern "C" fn tdx_sim_sign(
    sigstruct: *mut TdxSimSigstruct,
    module: *const c_void,
    module_size: usize,
) -> TdxSimStatus {
    guarded(|| {
        pointer::checked(sigstruct)?;
        // SAFETY: this function's contract; a SIGSTRUCT has the same size in C.
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

/// Makes an image file from a SIGSTRUCT and a module, which need not match. `*needed` becomes the
/// size of the file, also if `file_size` is too small. So `file` may be NULL if `file_size` is 0.
///
/// Errors: NULL; UNALIGNED; BAD_ARGUMENT: `format` is not a tdx_sim_image_format; BAD_LENGTH:
/// `module_size` is not 1 to TDX_SIM_MAX_MODULE_PAGES times 4096; BUFFER_TOO_SMALL: `*needed` is
/// set.
///
/// # Safety
///
/// `sigstruct` points to a readable tdx_sim_sigstruct, `module` to `module_size` readable bytes,
/// `file` to `file_size` writable bytes, and `needed` to a writable number.
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
        // SAFETY: this function's contract; a SIGSTRUCT has the same size in C.
        let sigstruct = unsafe { pointer::read(sigstruct.cast::<[u8; SeamSigstruct::SIZE]>()) }?;
        // SAFETY: this function's contract.
        let module = unsafe { pointer::copy_in(module.cast::<u8>(), module_size) }?;
        let parts = ImageParts { sigstruct: &sigstruct, module: &module };
        // SAFETY: this function's contract.
        unsafe { write_file(&parts, format, file, file_size, needed) }
    })
}

/// Makes the file of an image that tdx_sim_make_image() would make. `*needed` becomes the size of
/// the file, also if `file_size` is too small. So `file` may be NULL if `file_size` is 0.
///
/// Errors: NULL; UNALIGNED; BAD_SIZE; BAD_ARGUMENT: `format` is not a tdx_sim_image_format, or a
/// field of `image` has an invalid value; BUFFER_TOO_SMALL: `*needed` is set.
///
/// # Safety
///
/// `image` points to a readable tdx_sim_image whose `size` is set. Its `build` points to a readable
/// tdx_sim_build whose `size` is set, or is NULL. `file` points to `file_size` writable bytes, and
/// `needed` to a writable number.
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

/// Writes a file if the buffer is large enough.
///
/// # Safety
///
/// `file` points to `file_size` writable bytes, and `needed` to a writable number.
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
    // SAFETY: this function's contract; the buffer has room for the file.
    unsafe { pointer::copy_out(&bytes, file.cast()) };
    Ok(())
}
